//! What the store promises while nothing is broken: order, atomicity, durability modes, and one meaning on disk and in
//! memory.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_metrics::Registry;
use tidegate_store::{Batch, Config, Durability, Error, Order, Store, Table};

const TABLES: [&str; 2] = ["a", "b"];
const A: Table = Table(0);
const B: Table = Table(1);

fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(path: &Path, durability: Durability) -> Store {
    let config = Config { durability, buffer_bytes: 16 << 10, reserve_bytes: 0, ..Config::new(path) };
    Store::open(config, &TABLES, &Registry::new()).unwrap()
}

fn wait<T>(ticket: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(ticket)
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    batch
}

fn all(store: &Store, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let scanned = store.scan(table, prefix, |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok::<_, Error>(true)
    });
    scanned.unwrap();
    found
}

fn between(store: &Store, table: Table, from: &[u8], to: &[u8], order: Order) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let walked = store.range(table, from, to, order, |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok::<_, Error>(true)
    });
    walked.unwrap();
    found
}

/// Runs a case on disk and in memory.
fn on_both(case: impl Fn(&Store)) {
    let folder = folder();
    case(&open(folder.path(), Durability::Sync));
    case(&Store::memory(&TABLES));
}

#[test]
fn the_last_write_to_a_key_wins_within_a_batch_and_between_batches() {
    on_both(|store| {
        let mut batch = Batch::new();
        batch.put(A, *b"k", *b"1");
        batch.delete(A, *b"k");
        batch.put(A, *b"k", *b"2");
        batch.put(B, *b"k", *b"other table");
        wait(store.submit(batch)).unwrap();
        assert_eq!(store.get(A, b"k").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(B, b"k").unwrap().as_deref(), Some(&b"other table"[..]));
        // Not awaited one by one, so they share a group on disk.
        let tickets: Vec<_> = (0..500_u32).map(|n| store.submit(put(A, b"k", &n.to_be_bytes()))).collect();
        for ticket in tickets {
            wait(ticket).unwrap();
        }
        assert_eq!(store.get(A, b"k").unwrap().as_deref(), Some(&499_u32.to_be_bytes()[..]));
        let mut batch = put(A, b"k", b"3");
        batch.delete(A, *b"k");
        wait(store.submit(batch)).unwrap();
        assert_eq!(store.get(A, b"k").unwrap(), None);
    });
}

#[test]
fn a_scan_is_in_order_keeps_to_its_prefix_and_stops_when_told() {
    on_both(|store| {
        let mut batch = Batch::new();
        for key in ["b/2", "a/1", "b/10", "b", "b/1", "c"] {
            batch.put(A, key, key);
        }
        wait(store.submit(batch)).unwrap();
        let keys: Vec<Vec<u8>> = all(store, A, b"b/").into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [&b"b/1"[..], b"b/10", b"b/2"]);
        assert_eq!(all(store, A, b"").len(), 6);
        let mut seen = 0;
        let stopped = store.scan(A, b"", |_, _| {
            seen += 1;
            Ok::<_, Error>(seen < 2)
        });
        assert!(stopped.is_ok() && seen == 2);
        let failed = store.scan(A, b"", |_, _| Err(Error::Closed));
        assert!(matches!(failed, Err(Error::Closed)));
    });
}

#[test]
fn a_range_has_its_first_key_but_not_its_last_in_either_order_and_stops_when_told() {
    on_both(|store| {
        let mut batch = Batch::new();
        for key in ["a", "a/1", "a/2", "b", "b/1", "c"] {
            batch.put(A, key, key);
        }
        batch.put(B, "a/1", "other table");
        wait(store.submit(batch)).unwrap();
        let keys = |from: &str, to: &str, order| -> Vec<String> {
            let found = between(store, A, from.as_bytes(), to.as_bytes(), order);
            found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
        };
        assert_eq!(keys("a/1", "b/1", Order::Forward), ["a/1", "a/2", "b"]);
        assert_eq!(keys("a/1", "b/1", Order::Backward), ["b", "a/2", "a/1"]);
        assert_eq!(keys("a/11", "bb", Order::Backward), ["b/1", "b", "a/2"]);
        assert_eq!(keys("", "z", Order::Forward).len(), 6);
        for (from, to) in [("b", "b"), ("c", "a"), ("x", "z"), ("", "")] {
            assert!(keys(from, to, Order::Forward).is_empty() && keys(from, to, Order::Backward).is_empty());
        }
        let mut seen = Vec::new();
        let stopped = store.range(A, b"a", b"z", Order::Backward, |key, _| {
            seen.push(key.to_vec());
            Ok::<_, Error>(seen.len() < 2)
        });
        assert!(stopped.is_ok() && seen == [&b"c"[..], b"b/1"]);
        let failed = store.range(A, b"a", b"z", Order::Forward, |_, _| Err(Error::Closed));
        assert!(matches!(failed, Err(Error::Closed)));
    });
}

#[test]
fn empty_batches_and_empty_values_are_fine() {
    on_both(|store| {
        assert!(Batch::new().is_empty());
        wait(store.submit(Batch::new())).unwrap();
        wait(store.submit(put(A, b"k", b""))).unwrap();
        assert_eq!(store.get(A, b"k").unwrap().as_deref(), Some(&b""[..]));
        store.check().unwrap();
        store.check_growth().unwrap();
    });
}

#[test]
fn a_crash_of_the_memory_store_forgets_only_loose_batches_newest_first() {
    let store = Store::memory(&TABLES);
    store.submit_loose(put(A, b"awaited", b"0"));
    wait(store.submit(put(A, b"k", b"awaited"))).unwrap();
    store.submit_loose(put(A, b"k", b"loose 1"));
    store.submit_loose(put(A, b"k", b"loose 2"));
    store.submit_loose(put(B, b"new", b"loose 3"));
    store.crash(1);
    assert_eq!(store.get(B, b"new").unwrap(), None);
    assert_eq!(store.get(A, b"k").unwrap().as_deref(), Some(&b"loose 2"[..]));
    store.crash(100);
    assert_eq!(store.get(A, b"k").unwrap().as_deref(), Some(&b"awaited"[..]));
    assert_eq!(store.get(A, b"awaited").unwrap().as_deref(), Some(&b"0"[..]), "made safe by the awaited one after it");
}

#[test]
fn a_dropped_ticket_and_a_loose_write_are_written_all_the_same() {
    let folder = folder();
    let store = open(folder.path(), Durability::Sync);
    drop(store.submit(put(A, b"dropped", b"1")));
    store.submit_loose(put(A, b"loose", b"2"));
    store.close().unwrap();
    drop(store);
    let store = open(folder.path(), Durability::Sync);
    assert_eq!(all(&store, A, b"").len(), 2);
}

#[test]
fn close_writes_everything_and_refuses_what_comes_after() {
    let folder = folder();
    let store = open(folder.path(), Durability::EverySecond);
    let tickets: Vec<_> = (0..2000_u32).map(|n| store.submit(put(A, &n.to_be_bytes(), b"v"))).collect();
    store.close().unwrap();
    for ticket in tickets {
        wait(ticket).unwrap();
    }
    assert!(matches!(wait(store.submit(put(A, b"late", b"v"))), Err(Error::Closed)));
    store.close().unwrap();
    drop(store);
    assert_eq!(all(&open(folder.path(), Durability::Sync), A, b"").len(), 2000);
}

/// Syncs of `everysec` so far, by the store's own metric.
fn syncs(registry: &Registry) -> u64 {
    let text = registry.render_prometheus();
    let line = text.lines().find(|line| line.starts_with("tidegate_store_sync_seconds_count"));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
}

/// Waits until the number of syncs is more than `than`; a minute is for a machine that stands still.
fn await_sync(registry: &Registry, than: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while syncs(registry) <= than {
        assert!(Instant::now() < deadline, "never synced");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn every_second(folder: &Path, registry: &Registry) -> Store {
    let config = Config { durability: Durability::EverySecond, ..Config::new(folder) };
    Store::open(config, &TABLES, registry).unwrap()
}

#[test]
fn everysec_syncs_without_further_writes_once_and_then_rests() {
    let (folder, registry) = (folder(), Registry::new());
    let store = every_second(folder.path(), &registry);
    wait(store.submit(put(A, b"k", b"v"))).unwrap();
    await_sync(&registry, 0);
    // Two intervals in which a timer that still ran would sync again.
    let rest = Instant::now() + Duration::from_millis(2200);
    while Instant::now() < rest {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(syncs(&registry), 1, "nothing to do, nothing done");
    wait(store.submit(put(A, b"k", b"v"))).unwrap();
    await_sync(&registry, 1);
}

#[test]
fn everysec_syncs_while_writes_never_pause() {
    let (folder, registry) = (folder(), Registry::new());
    let config = Config { durability: Durability::EverySecond, pending_max: 1 << 20, ..Config::new(folder.path()) };
    let store = Store::open(config, &TABLES, &registry).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    std::thread::scope(|scope| {
        // Two of them, so that something always waits when the writer thread looks.
        for _ in 0..2 {
            scope.spawn(|| {
                while syncs(&registry) == 0 && Instant::now() < end {
                    for _ in 0..100 {
                        if store.check_growth().is_ok() {
                            store.submit_loose(put(A, b"k", &[7; 100]));
                        }
                    }
                }
            });
        }
    });
    assert!(syncs(&registry) > 0, "writes starve the sync");
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(bool, u8, Option<Vec<u8>>)>, bool),
    Get(bool, u8),
    Scan(bool, Vec<u8>),
    Range(bool, Vec<u8>, Vec<u8>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few keys, so that they meet; values long enough to fill the small buffers.
    let value = prop_oneof![
        1 => Just(None),
        3 => (any::<u8>(), 0..3000_usize).prop_map(|(byte, length)| Some(vec![byte; length])),
    ];
    let step = prop_oneof![
        8 => (prop::collection::vec((any::<bool>(), 0..24_u8, value), 0..6), any::<bool>()).prop_map(|(w, a)| Step::Write(w, a)),
        4 => (any::<bool>(), 0..24_u8).prop_map(|(table, key)| Step::Get(table, key)),
        2 => (any::<bool>(), prop::collection::vec(0..3_u8, 0..2)).prop_map(|(table, prefix)| Step::Scan(table, prefix)),
        2 => (any::<bool>(), edge(), edge()).prop_map(|(table, from, to)| Step::Range(table, from, to)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// A bound of a range: as long as a key, and at times a key.
fn edge() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..26_u8, 0..3)
}

/// Keys of one or two bytes: some are prefixes of others.
fn key(number: u8) -> Vec<u8> {
    if number < 3 { vec![number] } else { vec![number % 3, number] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_disk_is_a_map_whatever_is_done_to_it(steps in steps()) {
        let folder = folder();
        let mut store = open(folder.path(), Durability::EverySecond);
        let mut model: [BTreeMap<Vec<u8>, Vec<u8>>; 2] = Default::default();
        let table = |second: bool| Table(u8::from(second));
        for step in steps {
            match step {
                Step::Write(writes, awaited) => {
                    let mut batch = Batch::new();
                    for (second, number, value) in writes {
                        let (model, key) = (&mut model[usize::from(second)], key(number));
                        match value {
                            Some(value) => {
                                batch.put(table(second), key.clone(), value.clone());
                                model.insert(key, value);
                            }
                            None => {
                                batch.delete(table(second), key.clone());
                                model.remove(&key);
                            }
                        }
                    }
                    if awaited { wait(store.submit(batch)).unwrap() } else { store.submit_loose(batch) }
                }
                Step::Get(second, number) => {
                    // A loose write is visible once an awaited one after it is.
                    wait(store.submit(Batch::new())).unwrap();
                    let found = store.get(table(second), &key(number)).unwrap();
                    prop_assert_eq!(found.as_ref(), model[usize::from(second)].get(&key(number)));
                }
                Step::Scan(second, prefix) => {
                    wait(store.submit(Batch::new())).unwrap();
                    let wanted: Vec<_> = model[usize::from(second)].iter().filter(|(k, _)| k.starts_with(&prefix))
                        .map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(all(&store, table(second), &prefix), wanted);
                }
                Step::Range(second, from, to) => {
                    wait(store.submit(Batch::new())).unwrap();
                    let inside = |(key, _): &(&Vec<u8>, _)| from <= **key && **key < to;
                    let mut wanted: Vec<_> = model[usize::from(second)].iter().filter(inside)
                        .map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(&between(&store, table(second), &from, &to, Order::Forward), &wanted);
                    wanted.reverse();
                    prop_assert_eq!(&between(&store, table(second), &from, &to, Order::Backward), &wanted);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(folder.path(), Durability::Sync);
                }
            }
        }
    }
}
