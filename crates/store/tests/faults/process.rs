//! Killed processes, and two on one folder.

use tidegate_store::{Durability, Error};

use crate::child::{Said, Task, acknowledged};
use crate::common::{config, journal, key, open, read, trim};

fn survives_kills(durability: Durability) {
    let folder = tempfile::tempdir().unwrap();
    let mut from = 0;
    for round in 0..8 {
        // Records of this size fill a buffer each second round, so kills also meet the engine writing sorted files.
        let task = Task { durability, from, length: 700, ..Task::new(folder.path()) };
        let mut child = task.start(|_| ());
        // A different moment each round, in numbers of writes.
        let mut said: Vec<Said> = (0..(round * 37) % 200).map(|_| child.next().unwrap()).collect();
        said.extend(child.kill());
        let last = acknowledged(&said).last().map_or(from, |last| last + 1);
        let store = open(config(folder.path())).unwrap();
        let found = read(&store, last + 1, 700).unwrap();
        assert!(found >= last, "round {round}: {found} of {last} acknowledged are there");
        from = found;
    }
    assert!(from > 100, "only {from} writes in all rounds");
}

#[test]
fn kill_loses_nothing_acknowledged_with_sync() {
    survives_kills(Durability::Sync);
}

#[test]
fn kill_loses_nothing_acknowledged_with_everysec() {
    survives_kills(Durability::EverySecond);
}

#[test]
fn the_last_acknowledged_write_before_a_kill_is_missed_when_it_is_gone() {
    let folder = crate::common::folder();
    let mut child = Task::new(folder.path()).start(|_| ());
    let mut said: Vec<Said> = (0..21).map(|_| child.next().unwrap()).collect();
    said.extend(child.kill());
    let last = *acknowledged(&said).last().unwrap();
    let path = journal(folder.path());
    let bytes = trim(&path);
    let key = key(last);
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    std::fs::write(&path, &bytes[..at]).unwrap();
    let error = open(config(folder.path())).map(|_| ()).unwrap_err();
    // The mark is set before the answer is given, so it knows of this write, and perhaps of one more.
    assert!(matches!(error, Error::Lost { acknowledged, .. } if acknowledged > last), "{error}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
}

#[test]
fn a_second_process_is_refused_by_name_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Task::new(folder.path()).start(|_| ());
    assert_eq!(first.next(), Some(Said::Opened));
    let error = open(config(folder.path())).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&*folder.path().to_string_lossy()), "{text}");
    assert!(text.contains(&format!("process {}", first.id())), "{text}");
    let mut said: Vec<Said> = (0..50).map(|_| first.next().unwrap()).collect();
    assert_eq!(acknowledged(&said).len(), 50, "{said:?}");
    said.extend(first.kill());
    let store = open(config(folder.path())).expect("a killed process holds no lock");
    let last = acknowledged(&said).last().map_or(0, |last| last + 1);
    assert!(read(&store, last + 1, 64).unwrap() >= last);
}

#[test]
fn the_same_process_cannot_open_a_folder_twice() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(config(folder.path())).unwrap();
    assert!(matches!(open(config(folder.path())), Err(Error::Locked { .. })));
    drop(first);
    open(config(folder.path())).unwrap();
}
