//! `repair`: what it keeps, what it sets aside, and that a start afterwards is a normal one.

use tidegate_store::{Config, Error};

use crate::common::{Outcome, config, files, filled, journal, open, outcome, read, record, trim, wait};

const COUNT: u64 = 10;
const LENGTH: usize = 40;

#[test]
fn repair_sets_the_damage_aside_keeps_what_was_before_it_and_starts_normally_afterwards() {
    let folder = crate::common::folder();
    filled(folder.path(), COUNT, LENGTH);
    let path = journal(folder.path());
    let mut bad = trim(&path);
    // In the sixth record.
    let place = bad.windows(12).position(|window| window == b"key-00000005").unwrap();
    bad[place + 20] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let mut said = Vec::new();
    for _ in 0..3 {
        let Outcome::Refused(error) = outcome(folder.path(), COUNT, LENGTH, "flip") else { panic!("not refused") };
        assert!(std::fs::read(&path).unwrap() == bad, "a refused start changed the evidence");
        said.push(error.to_string());
    }
    assert!(said.iter().all(|text| *text == said[0] && text.contains("--repair")), "{said:#?}");

    let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
    assert_eq!(read(&store, COUNT, LENGTH).unwrap(), 5, "all before the damage is kept");
    let aside = files(&folder.path().join("aside"));
    assert!(matches!(&aside[..], [copy] if std::fs::read(copy).unwrap() == bad), "{aside:?}");
    drop(store);

    for number in 5..8 {
        let store = open(config(folder.path())).unwrap();
        assert_eq!(read(&store, COUNT, LENGTH).unwrap(), number);
        wait(store.submit(record(number, LENGTH))).unwrap();
    }
}

#[test]
fn repair_of_a_healthy_store_changes_nothing() {
    let folder = crate::common::folder();
    filled(folder.path(), COUNT, LENGTH);
    for _ in 0..2 {
        let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
        assert_eq!(read(&store, COUNT, LENGTH).unwrap(), COUNT);
    }
    assert!(!folder.path().join("aside").exists());
}

#[test]
fn a_second_repair_keeps_the_copies_of_the_first() {
    let folder = crate::common::folder();
    filled(folder.path(), COUNT, LENGTH);
    for round in 1..=2 {
        let path = journal(folder.path());
        let mut bad = trim(&path);
        bad[0] ^= 2;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(open(config(folder.path())), Err(Error::Lost { .. })));
        let store = open(Config { repair: true, ..config(folder.path()) }).unwrap();
        wait(store.submit(record(0, LENGTH))).unwrap();
        drop(store);
        assert_eq!(files(&folder.path().join("aside")).len(), round);
    }
}
