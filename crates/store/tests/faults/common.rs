//! A small store with known contents, and what came of it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate_metrics::Registry;
use tidegate_store::{Batch, Config, Durability, Error, Store, Table};

pub(crate) const TABLES: [&str; 2] = ["jobs", "payloads"];
pub(crate) const JOBS: Table = Table(0);
pub(crate) const PAYLOADS: Table = Table(1);

/// A folder in memory where the system has one: these tests open hundreds of stores, and a disk syncs slowly.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn config(folder: &Path) -> Config {
    // Small buffers, so that a test sees sorted files without writing much.
    Config { reserve_bytes: 0, buffer_bytes: 64 << 10, ..Config::new(folder) }
}

/// Opens a store. A process that another test is just starting holds our locks for a moment, between fork and exec.
pub(crate) fn open(config: Config) -> Result<Store, Error> {
    let own = format!("process {}", std::process::id());
    for _ in 0..100 {
        match Store::open(config.clone(), &TABLES, &Registry::new()) {
            Err(Error::Locked { by, .. }) if by == own => {
                std::thread::park_timeout(std::time::Duration::from_millis(2));
            }
            result => return result,
        }
    }
    Store::open(config, &TABLES, &Registry::new())
}

/// Waits for a ticket.
pub(crate) fn wait<T>(ticket: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(ticket)
}

pub(crate) fn key(number: u64) -> Vec<u8> {
    format!("key-{number:08}").into_bytes()
}

pub(crate) fn value(number: u64, length: usize) -> Vec<u8> {
    let mut value = format!("value-{number:08}-").into_bytes();
    // Not compressible, so that sorted files grow with it.
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while value.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend(state.to_le_bytes());
    }
    value
}

/// Record `number`: one write in each table.
pub(crate) fn record(number: u64, length: usize) -> Batch {
    let mut batch = Batch::new();
    batch.put(JOBS, key(number), number.to_be_bytes());
    batch.put(PAYLOADS, key(number), value(number, length));
    batch
}

/// Makes a store of `count` acknowledged records and stops it.
pub(crate) fn filled(folder: &Path, count: u64, length: usize) {
    let store = open(config(folder)).unwrap();
    for number in 0..count {
        wait(store.submit(record(number, length))).unwrap();
    }
    store.close().unwrap();
}

/// Writes all that is in a closed store's journal out into sorted files as well, as the engine does sooner or later.
pub(crate) fn write_out(folder: &Path) {
    let database = fjall::Database::builder(folder.join("store")).open().unwrap();
    for name in ["_store", TABLES[0], TABLES[1]] {
        let table = database.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
        assert!(table.rotate_memtable().unwrap());
        while table.sealed_memtable_count() > 0 {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
    }
}

/// How many of `count` records are there, by `get` and by `scan` alike. Nothing else is, and no half of a batch.
pub(crate) fn read(store: &Store, count: u64, length: usize) -> Result<u64, Error> {
    for number in 0..count {
        let (job, payload) = (store.get(JOBS, &key(number))?, store.get(PAYLOADS, &key(number))?);
        assert_eq!(job.is_some(), payload.is_some(), "record {number}: half a batch");
    }
    read_halves(store, count, length)
}

/// As [`read`], where a repair may have left half a batch: it counts when its job is there.
pub(crate) fn read_halves(store: &Store, count: u64, length: usize) -> Result<u64, Error> {
    let mut found = 0;
    for number in 0..count {
        if let Some(payload) = store.get(PAYLOADS, &key(number))? {
            assert_eq!(payload, value(number, length), "record {number}: wrong bytes");
        }
        if let Some(job) = store.get(JOBS, &key(number))? {
            assert_eq!(job, number.to_be_bytes(), "record {number}: wrong bytes");
            found += 1;
        }
    }
    let mut scanned = 0;
    store.scan(JOBS, b"", |_, _| {
        scanned += 1;
        Ok::<_, Error>(true)
    })?;
    assert_eq!(scanned, found, "scan and get differ");
    Ok(found)
}

/// What came of opening a damaged store.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Every record is there.
    Intact,
    /// The start was refused.
    Refused(Error),
    /// Reading failed with an error.
    Unreadable(Error),
}

/// Opens and reads a store of `count` acknowledged records. Anything but one of the three outcomes fails the test.
pub(crate) fn outcome(folder: &Path, count: u64, length: usize, what: &str) -> Outcome {
    let store = match open(config(folder)) {
        Ok(store) => store,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&*folder.to_string_lossy()), "{what}: no place in: {text}");
            assert!(
                matches!(error, Error::Damaged { .. } | Error::Lost { .. } | Error::Broken { .. }),
                "{what}: another kind of error: {text}"
            );
            return Outcome::Refused(error);
        }
    };
    match read(&store, count, length) {
        Ok(found) => {
            assert_eq!(found, count, "{what}: acknowledged records vanished without a word");
            Outcome::Intact
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&*folder.to_string_lossy()), "{what}: no place in: {text}");
            Outcome::Unreadable(error)
        }
    }
}

/// All files under a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A journal up to its last byte that is not zero, and a few zeros.
pub(crate) fn used(journal: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(journal).unwrap();
    // Whole blocks first: comparing slices is fast without optimisation, looking at bytes is not.
    let zeros = [0; 4096];
    while bytes.ends_with(&zeros) {
        bytes.truncate(bytes.len() - zeros.len());
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.resize(end + 8, 0);
    bytes
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.extension().is_some_and(|extension| extension == "jnl") {
            // Without the zeros that the engine allocates ahead, 64 MiB of them.
            std::fs::write(&target, used(&path)).unwrap();
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// The newest journal under a data folder.
pub(crate) fn journal(folder: &Path) -> PathBuf {
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    files(&folder.join("store")).into_iter().filter(is_journal).max_by_key(|path| path.as_os_str().len()).unwrap()
}

/// Cuts the zeros that the engine allocates ahead, but for a few.
pub(crate) fn trim(journal: &Path) -> Vec<u8> {
    let bytes = used(journal);
    std::fs::write(journal, &bytes).unwrap();
    bytes
}

/// A store without any sync, for tests that are about something else.
pub(crate) fn unsynced(folder: &Path) -> Config {
    Config { durability: Durability::Memory, ..config(folder) }
}
