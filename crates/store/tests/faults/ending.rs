//! Whether the run before came to its end: right after any kind of one.

use std::path::Path;

use tidegate_store::{Config, Durability, Store};

use crate::child::Task;
use crate::common::{TABLES, config, copy, filled, folder, journal, open, record, trim, wait};

/// Opens the store, tells whether the run before ended cleanly, and leaves no trace of having done so.
fn ended_cleanly(folder: &Path) -> bool {
    let looked_at = crate::common::folder();
    copy(folder, looked_at.path());
    open(config(looked_at.path())).unwrap().ended_cleanly()
}

#[test]
fn a_new_store_and_a_closed_or_dropped_one_ended_cleanly() {
    let folder = folder();
    for durability in [Durability::Sync, Durability::EverySecond, Durability::Memory] {
        let store = open(Config { durability, ..config(folder.path()) }).unwrap();
        assert!(store.ended_cleanly(), "{durability}");
        wait(store.submit(record(1, 64))).unwrap();
        store.submit_loose(record(2, 64));
        store.close().unwrap();
    }
    let store = open(config(folder.path())).unwrap();
    store.submit_loose(record(3, 64));
    drop(store);
    assert!(open(config(folder.path())).unwrap().ended_cleanly(), "a run without a write is one as well");
    assert!(Store::memory(&TABLES).ended_cleanly());
}

#[test]
fn a_killed_run_did_not_end_cleanly_and_the_next_start_tells_it_once() {
    let folder = folder();
    filled(folder.path(), 3, 64);
    // Also when it wrote nothing.
    for writes in [0, 5] {
        let mut child = Task::new(folder.path()).start(|_| ());
        for _ in 0..=writes {
            child.next().unwrap();
        }
        child.kill();
        let store = open(config(folder.path())).unwrap();
        assert!(!store.ended_cleanly() && !store.was_repaired(), "killed after {writes} writes");
        drop(store);
        assert!(ended_cleanly(folder.path()), "the run that told it was closed");
    }
}

#[test]
fn a_start_that_is_refused_leaves_word_for_the_one_that_is_not() {
    let folder = folder();
    filled(folder.path(), 3, 64);
    let head = folder.path().join("store.head");
    let good = std::fs::read(&head).unwrap();
    std::fs::write(&head, b"rubbish").unwrap();
    assert!(open(config(folder.path())).is_err());
    std::fs::write(&head, good).unwrap();
    assert!(open(config(folder.path())).unwrap().ended_cleanly());
}

#[test]
fn a_repair_that_gave_something_up_is_no_clean_end_and_one_that_did_not_is() {
    let folder = folder();
    filled(folder.path(), 10, 64);
    let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
    assert!(store.ended_cleanly() && !store.was_repaired(), "nothing was given up");
    drop(store);
    let path = journal(folder.path());
    let mut bad = trim(&path);
    let place = bad.windows(12).position(|window| window == b"key-00000005").unwrap();
    bad[place + 20] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
    assert!(!store.ended_cleanly() && store.was_repaired());
    drop(store);
    let store = open(config(folder.path())).unwrap();
    assert!(store.ended_cleanly() && !store.was_repaired());
}

#[test]
fn word_of_an_older_end_or_of_another_store_is_not_believed() {
    let folder = folder();
    filled(folder.path(), 3, 64);
    let path = folder.path().join("store.closed");
    let old = std::fs::read(&path).unwrap();
    filled(folder.path(), 3, 64);
    // As a power cut may bring it back.
    std::fs::write(&path, &old).unwrap();
    assert!(!ended_cleanly(folder.path()));
    let moved_away = crate::common::folder();
    std::fs::write(moved_away.path().join("store.closed"), &old).unwrap();
    assert!(!open(config(moved_away.path())).unwrap().ended_cleanly(), "started empty where there was something");
}
