//! Damage in the journal, at every byte.

use std::path::Path;

use tidegate_store::{Config, Error};

use crate::common::{
    Outcome, config, copy, filled, journal, open, outcome, read, read_halves, record, trim, used, wait, write_out,
};

const COUNT: u64 = 6;
const LENGTH: usize = 40;

/// Where the last acknowledged group ends. Behind it are zeros.
fn acknowledged_end(bytes: &[u8]) -> usize {
    let ends: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, w)| w == b"FJL\x03").map(|(at, _)| at + 4).collect();
    ends[usize::try_from(COUNT).unwrap() - 1]
}

fn refuses_alike(folder: &Path, bytes: &[u8], what: &str) -> Error {
    let Outcome::Refused(error) = outcome(folder, COUNT, LENGTH, what) else { panic!("{what}: not refused") };
    let path = journal(folder);
    assert!(std::fs::read(&path).unwrap() == bytes, "{what}: a refused start changed the journal");
    error
}

#[test]
fn a_flipped_bit_anywhere_in_the_journal_is_refused_with_its_place_or_harmless() {
    let original = crate::common::folder();
    filled(original.path(), COUNT, LENGTH);
    flip_each_byte(original.path());
}

#[test]
fn a_flipped_bit_in_a_journal_half_of_which_is_in_sorted_files_is_refused_or_harmless() {
    // The engine skips what its sorted files hold by sequence numbers, which are outside of its checksums.
    let original = crate::common::folder();
    filled(original.path(), COUNT / 2, LENGTH);
    write_out(original.path());
    let store = open(config(original.path())).unwrap();
    for number in COUNT / 2..COUNT {
        wait(store.submit(record(number, LENGTH))).unwrap();
    }
    drop(store);
    flip_each_byte(original.path());
}

fn flip_each_byte(original: &Path) {
    let good = trim(&journal(original));
    let (end, mut refused) = (acknowledged_end(&good), 0);
    let folder = crate::common::folder();
    copy(original, folder.path());
    // A bit of each byte, then each byte zeroed.
    let flips = (0..good.len()).map(|at| (at, 1 << (at % 8)));
    let zeros = (0..good.len()).filter(|at| good[*at] != 0).map(|at| (at, good[at]));
    for (at, mask) in flips.chain(zeros) {
        let mut bad = good.clone();
        bad[at] ^= mask;
        std::fs::write(journal(folder.path()), &bad).unwrap();
        let what = format!("flip at {at} of {end}");
        match outcome(folder.path(), COUNT, LENGTH, &what) {
            Outcome::Refused(error) => {
                refused += 1;
                assert!(error.to_string().contains(" at byte "), "{what}: {error}");
                assert!(std::fs::read(journal(folder.path())).unwrap() == bad, "{what}: the evidence was changed");
            }
            Outcome::Intact => {
                // Opening may cut and write, so the next flip starts from the original.
                std::fs::remove_dir_all(folder.path()).unwrap();
                copy(original, folder.path());
            }
            Outcome::Unreadable(error) => panic!("{what}: {error}"),
        }
    }
    assert!(refused > end * 9 / 10, "only {refused} of {end} flips were noticed");
}

#[test]
fn a_flipped_length_never_makes_memory_grow() {
    // 2 GiB of address space: a length of 4 GiB that is believed ends the process.
    let original = crate::common::folder();
    filled(original.path(), COUNT, LENGTH);
    let good = trim(&journal(original.path()));
    let item = good.windows(4).position(|window| window == b"key-").unwrap() - 21;
    // Key length, value length, stored length: their highest bytes.
    for at in [item + 12, item + 16, item + 20] {
        let folder = crate::common::folder();
        copy(original.path(), folder.path());
        let mut bad = good.clone();
        bad[at] = 0xFF;
        std::fs::write(journal(folder.path()), &bad).unwrap();
        let mut child = crate::child::Task::new(folder.path()).start_after("ulimit -v 2097152");
        let said = child.rest();
        assert!(matches!(&said[..], [crate::child::Said::NotOpened(error)] if error.contains(" at byte ")), "{said:?}");
    }
}

#[test]
fn a_journal_cut_anywhere_loses_nothing_silently() {
    let original = crate::common::folder();
    filled(original.path(), COUNT, LENGTH);
    let good = trim(&journal(original.path()));
    let end = acknowledged_end(&good);
    let folder = crate::common::folder();
    for length in 0..good.len() {
        if length == 0 || length >= end {
            // What was opened may be changed.
            std::fs::remove_dir_all(folder.path()).unwrap();
            copy(original.path(), folder.path());
        }
        std::fs::write(journal(folder.path()), &good[..length]).unwrap();
        let what = format!("cut at {length} of {end}");
        if length >= end {
            let result = outcome(folder.path(), COUNT, LENGTH, &what);
            assert!(matches!(result, Outcome::Intact), "{what}: {result:?}");
        } else {
            let error = refuses_alike(folder.path(), &good[..length], &what);
            assert!(matches!(error, Error::Lost { .. }), "{what}: {error}");
        }
    }
}

#[test]
fn when_everything_is_in_sorted_files_an_unfinished_write_is_cut_and_a_missing_one_is_lost() {
    let folder = crate::common::folder();
    filled(folder.path(), COUNT, LENGTH);
    write_out(folder.path());
    let torn = trim(&journal(folder.path()))[..20].to_vec();
    for content in [&[][..], &torn] {
        std::fs::write(journal(folder.path()), content).unwrap();
        let result = outcome(folder.path(), COUNT, LENGTH, "in sorted files");
        assert!(matches!(result, Outcome::Intact), "{result:?}");
    }
    // A mark from the future of these files: a write after them was in the journal, and is not.
    let store = open(config(folder.path())).unwrap();
    wait(store.submit(record(COUNT, LENGTH))).unwrap();
    drop(store);
    std::fs::write(journal(folder.path()), &torn).unwrap();
    for _ in 0..2 {
        let error = refuses_alike(folder.path(), &torn, "mark ahead");
        assert!(matches!(error, Error::Lost { .. }), "{error}");
    }
    let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
    assert_eq!(read(&store, COUNT, LENGTH).unwrap(), COUNT);
    drop(store);
    let result = outcome(folder.path(), COUNT, LENGTH, "after the repair");
    assert!(matches!(result, Outcome::Intact), "{result:?}");
}

#[test]
fn a_zeroed_tail_is_lost_not_forgotten() {
    let folder = crate::common::folder();
    filled(folder.path(), COUNT, LENGTH);
    let path = journal(folder.path());
    let mut bytes = trim(&path);
    let from = acknowledged_end(&bytes) / 2;
    bytes[from..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    for _ in 0..2 {
        let error = refuses_alike(folder.path(), &bytes, "zeroed");
        assert!(matches!(error, Error::Lost { .. }), "{error}");
    }
}

#[test]
fn a_torn_tail_of_unacknowledged_writes_is_cut_silently_at_every_byte() {
    let original = crate::common::folder();
    filled(original.path(), COUNT, LENGTH);
    let mark = std::fs::read(original.path().join("store.head")).unwrap();
    // One more group that reaches the journal, and a mark from before it: a kill in the middle of a write.
    let store = open(config(original.path())).unwrap();
    let opened = written_now(original.path());
    wait(store.submit(record(COUNT, LENGTH))).unwrap();
    let written = written_now(original.path());
    drop(store);
    for length in opened.len()..=written.len() {
        let folder = crate::common::folder();
        copy(original.path(), folder.path());
        std::fs::write(folder.path().join("store.head"), &mark).unwrap();
        std::fs::write(journal(folder.path()), &written[..length]).unwrap();
        let store = open(config(folder.path())).unwrap_or_else(|error| panic!("cut at {length}: {error}"));
        let found = read(&store, COUNT + 1, LENGTH).unwrap();
        assert_eq!(found, COUNT + u64::from(length == written.len()), "cut at {length}: all or nothing");
        wait(store.submit(record(COUNT + 1, LENGTH))).unwrap();
        drop(store);
        let store = open(config(folder.path())).unwrap_or_else(|error| panic!("again, cut at {length}: {error}"));
        assert_eq!(read(&store, COUNT + 2, LENGTH).unwrap(), found + 1);
    }
}

/// The journal as it is now, without any zeros at its end.
fn written_now(folder: &Path) -> Vec<u8> {
    let bytes = used(&journal(folder));
    bytes[..bytes.len() - 8].to_vec()
}

/// A store with two journals, of which the older holds records that are in no sorted file.
fn two_journals(folder: &Path) -> u64 {
    // Record 0 stays in a buffer that is never full, so the journal it is in is needed.
    let store = open(Config { buffer_bytes: 24 << 20, ..crate::common::unsynced(folder) }).unwrap();
    let mut number = 0;
    while std::fs::read_dir(folder.join("store")).unwrap().filter(|f| has_ending(f, "jnl")).count() < 2 {
        wait(store.submit(record(number, 1 << 20))).unwrap();
        number += 1;
        assert!(number < 500, "the engine never began a second journal");
    }
    for _ in 0..3 {
        wait(store.submit(record(number, 1 << 20))).unwrap();
        number += 1;
    }
    store.close().unwrap();
    number
}

fn has_ending(file: &std::io::Result<std::fs::DirEntry>, ending: &str) -> bool {
    file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == ending)
}

#[test]
fn damage_in_an_older_journal_is_lost_though_the_newest_write_is_there() {
    let original = tempfile::tempdir().unwrap();
    let count = two_journals(original.path());
    let oldest = std::fs::read_dir(original.path().join("store"))
        .unwrap()
        .filter(|file| has_ending(file, "jnl"))
        .map(|file| file.unwrap().file_name())
        .min_by_key(|name| (name.len(), name.clone()))
        .unwrap();
    let size = std::fs::metadata(original.path().join("store").join(&oldest)).unwrap().len();
    for damage in ["flip", "cut", "gone"] {
        let folder = tempfile::tempdir().unwrap();
        copy(original.path(), folder.path());
        let path = folder.path().join("store").join(&oldest);
        match damage {
            "flip" => {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
            "cut" => std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size / 2).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        for _ in 0..2 {
            let result = outcome(folder.path(), count, 1 << 20, damage);
            assert!(matches!(result, Outcome::Refused(Error::Lost { .. })), "{damage}: {result:?}");
        }
        let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
        let kept = read_halves(&store, count, 1 << 20).unwrap();
        assert!(kept > 0 && kept < count, "{damage}: kept {kept} of {count}");
        drop(store);
        let store = open(config(folder.path())).unwrap_or_else(|error| panic!("{damage}, after the repair: {error}"));
        assert_eq!(read_halves(&store, count, 1 << 20).unwrap(), kept);
    }
}
