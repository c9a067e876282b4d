//! Damage in all files but the journal, and missing files and folders.

use std::collections::BTreeMap;
use std::path::Path;

use tidegate_store::{Config, Error};

use crate::common::{Outcome, config, copy, files, filled, open, outcome};

const COUNT: u64 = 400;
const LENGTH: usize = 600;

/// A store whose records lie in sorted files and in the journal.
fn sorted(folder: &Path) {
    filled(folder, COUNT, LENGTH);
    // Opening once more ends what the engine was doing in the background.
    drop(open(config(folder)).unwrap());
    crate::common::trim(&crate::common::journal(folder));
    let tables = files(&folder.join("store/keyspaces/3/tables"));
    assert!(!tables.is_empty(), "there is no sorted file to damage");
}

#[test]
fn a_flipped_bit_in_any_other_file_is_refused_with_its_place_or_harmless() {
    let original = crate::common::folder();
    sorted(original.path());
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for path in files(original.path()) {
        let good = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "jnl") || good.is_empty() {
            continue;
        }
        let relative = path.strip_prefix(original.path()).unwrap();
        // Each byte of the small files; a prime stride in sorted files, and all of their ends, where the lists are.
        let stride = (good.len() / 60).max(1) | 1;
        let is_list = |at: usize| good.len() < 64 || (at + 60 > good.len() && at.is_multiple_of(3));
        for at in (0..good.len()).filter(|at| at % stride == 0 || is_list(*at)) {
            let folder = crate::common::folder();
            copy(original.path(), folder.path());
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(folder.path().join(relative), &bad).unwrap();
            let what = format!("flip at {at} of {}", relative.display());
            let kind = match outcome(folder.path(), COUNT, LENGTH, &what) {
                Outcome::Intact => "intact",
                Outcome::Refused(_) => "refused",
                Outcome::Unreadable(_) => "unreadable",
            };
            *outcomes.entry(kind).or_default() += 1;
        }
    }
    assert!(outcomes.len() == 3, "some outcomes never came about: {outcomes:?}");
}

#[test]
fn a_missing_file_is_refused_with_its_place_or_harmless() {
    let original = crate::common::folder();
    sorted(original.path());
    let mut refused = Vec::new();
    for path in files(original.path()) {
        let folder = crate::common::folder();
        copy(original.path(), folder.path());
        let relative = path.strip_prefix(original.path()).unwrap();
        std::fs::remove_file(folder.path().join(relative)).unwrap();
        // Twice: a refused start must not make the next one succeed.
        for _ in 0..2 {
            let what = format!("{} is gone", relative.display());
            match outcome(folder.path(), COUNT, LENGTH, &what) {
                Outcome::Refused(error) => refused.push(format!("{what}: {error}")),
                Outcome::Intact => {
                    let harmless = relative.ends_with("lock") || relative.ends_with("store.closed");
                    assert!(harmless, "{what}: nobody noticed");
                }
                Outcome::Unreadable(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert!(refused.len() >= 8, "{refused:#?}");
}

#[test]
fn a_missing_folder_is_refused_with_its_place() {
    let original = crate::common::folder();
    sorted(original.path());
    for gone in ["store", "store/keyspaces", "store/keyspaces/0", "store/keyspaces/1", "store/keyspaces/3/tables"] {
        let folder = crate::common::folder();
        copy(original.path(), folder.path());
        std::fs::remove_dir_all(folder.path().join(gone)).unwrap();
        for _ in 0..2 {
            let result = outcome(folder.path(), COUNT, LENGTH, gone);
            assert!(matches!(result, Outcome::Refused(_)), "{gone}: {result:?}");
        }
    }
}

#[test]
fn a_first_start_that_was_killed_anywhere_is_no_damage() {
    // Every file of a fresh store, taken away one after the other from the last one made.
    let original = crate::common::folder();
    drop(open(config(original.path())).unwrap());
    std::fs::remove_file(original.path().join("store.head")).unwrap();
    for gone in [&[][..], &["store/keyspaces/3"], &["store/keyspaces/3", "store/keyspaces/2"], &["store/keyspaces"]] {
        for without_version in [false, true] {
            let folder = crate::common::folder();
            copy(original.path(), folder.path());
            // What was there of a group is not: no group is written before the first start has come to its end.
            std::fs::write(crate::common::journal(folder.path()), vec![0; 100]).unwrap();
            for gone in gone {
                std::fs::remove_dir_all(folder.path().join(gone)).unwrap();
            }
            if without_version {
                std::fs::remove_file(folder.path().join("store/version")).unwrap();
            }
            // The engine makes this folder before anything else in it.
            std::fs::create_dir_all(folder.path().join("store/keyspaces")).unwrap();
            open(config(folder.path())).unwrap_or_else(|error| panic!("without {gone:?}, {without_version}: {error}"));
        }
    }
}

#[test]
fn repair_makes_the_mark_and_the_version_anew_and_says_what_it_cannot_mend() {
    let original = crate::common::folder();
    sorted(original.path());
    for (file, mends) in [("store.head", true), ("store/version", true), ("store/keyspaces/3/current", false)] {
        let folder = crate::common::folder();
        copy(original.path(), folder.path());
        std::fs::write(folder.path().join(file), b"rubbish").unwrap();
        assert!(open(config(folder.path())).is_err(), "{file}");
        let repaired = open(Config { repair: true, ..config(folder.path()) });
        if mends {
            drop(repaired.unwrap_or_else(|error| panic!("{file}: {error}")));
            let result = outcome(folder.path(), COUNT, LENGTH, file);
            assert!(matches!(result, Outcome::Intact), "{file}: {result:?}");
        } else {
            let error = repaired.map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Broken { .. }), "{file}: {error}");
        }
    }
}
