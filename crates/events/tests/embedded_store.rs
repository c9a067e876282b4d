//! What only a bus in this process promises: it owns the clock and the disk, and its starts are told apart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by the suites of all backends")]
mod conformance;

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;
use tidegate_events::{
    Bus, Claim, Clock, Config, Cursor, Error, EventId, GapReason, GroupName, Heard, Listen, Listener, ManualClock,
    NewEvent, Published, Read, Retention, Source, StreamName, TABLES, Trim,
};
use tidegate_metrics::Registry;
use tidegate_store::{Batch, Durability, Store, Table};

use conformance::{claim, delivered, eventually, ids, next, next_texts, numbers, stream, texts};

const STREAMS: Table = Table(0);
const EVENTS: Table = Table(1);
const NOW: u64 = 1_700_000_000_000;

fn manual(start_ms: u64) -> (ManualClock, Config) {
    let clock = ManualClock::new(start_ms);
    (clock.clone(), Config { clock: Clock::Manual(clock), ..Config::default() })
}

async fn bus(store: &Store, config: Config) -> Bus {
    Bus::open(store.clone(), 0, config, &Registry::new()).await.unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn store_at(path: &Path, tables: &[&str], durability: Durability) -> Store {
    let config = tidegate_store::Config { durability, reserve_bytes: 0, ..tidegate_store::Config::new(path) };
    Store::open(config, tables, &Registry::new()).unwrap()
}

/// What is in the folder now, as a killed process would leave it.
fn as_killed(path: &Path) -> TempDir {
    let copy = folder();
    copy_all(path, copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn publish(bus: &Bus, name: &str, events: Vec<NewEvent>) -> Vec<Published> {
    bus.publish(&stream(name), events).await.unwrap()
}

async fn publish_numbers(bus: &Bus, name: &str, range: std::ops::Range<usize>) -> Vec<EventId> {
    let events = range.map(|no| NewEvent::new(no.to_string())).collect();
    publish(bus, name, events).await.iter().map(|published| published.id).collect()
}

async fn all(bus: &Bus, name: &str) -> Vec<String> {
    texts(&bus.read(&stream(name), Read { limit: 1000, ..Read::default() }).await.unwrap().events)
}

async fn listen(bus: &Bus, name: &str, from: EventId) -> Listener {
    let sources = vec![Source::Stream(stream(name))];
    bus.listen(Listen { from: Some(Cursor::at(from)), ..Listen::to(sources) }).await.unwrap()
}

/// Keys in a table.
fn keys(store: &Store, table: u8) -> usize {
    let mut count = 0;
    let each = |_: &[u8], _: &[u8]| {
        count += 1;
        Ok::<_, tidegate_store::Error>(true)
    };
    store.scan(Table(table), b"", each).unwrap();
    count
}

async fn write(store: &Store, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    change(&mut batch);
    store.submit(batch).await.unwrap();
}

fn value_of(registry: &Registry, metric: &str) -> f64 {
    let text = registry.render_prometheus();
    let line = text.lines().find(|line| line.starts_with(&format!("{metric} "))).unwrap_or_else(|| panic!("{metric}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn ids_ascend_when_the_clock_is_set_back() {
    let (store, (clock, config)) = (Store::memory(TABLES), manual(NOW));
    let first = bus(&store, config.clone()).await;
    let mut given = publish_numbers(&first, "s", 0..3).await;
    clock.set(NOW - 1000);
    given.extend(publish_numbers(&first, "s", 3..6).await);
    first.close().await.unwrap();
    clock.set(5);
    let second = bus(&store, config).await;
    given.extend(publish_numbers(&second, "s", 6..9).await);
    assert_eq!(given, (0..9).map(|seq| EventId { ms: NOW, seq }).collect::<Vec<_>>());
    clock.set(NOW + 1);
    assert_eq!(publish_numbers(&second, "s", 9..10).await, [EventId { ms: NOW + 1, seq: 0 }]);
}

#[tokio::test]
async fn a_stream_made_again_within_the_millisecond_uses_no_id_twice() {
    let (store, (_, config)) = (Store::memory(TABLES), manual(NOW));
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let bus = bus(&store, config.clone()).await;
        for _ in 0..3 {
            for id in publish_numbers(&bus, "s", 0..5).await {
                assert!(seen.insert(id), "{id} twice");
            }
            bus.delete(&[stream("s")]).await.unwrap();
        }
        bus.close().await.unwrap();
    }
}

#[tokio::test]
async fn who_comes_back_to_a_stream_made_again_is_told() {
    let (store, (_, config)) = (Store::memory(TABLES), manual(NOW));
    let bus = bus(&store, config).await;
    let ids = publish_numbers(&bus, "s", 0..5).await;
    bus.delete(&[stream("s")]).await.unwrap();
    publish_numbers(&bus, "s", 5..7).await;
    let mut listener = listen(&bus, "s", ids[2]).await;
    let Heard::Gap(_, gap) = next(&mut listener).await else { panic!("a gap") };
    assert_eq!((gap.from, gap.to, gap.reason), (ids[2], ids[4], GapReason::Trimmed));
    assert_eq!(next_texts(&mut listener, 2).await, numbers(5..7));
}

#[tokio::test]
async fn a_publisher_that_goes_away_has_published() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let bus = bus(&store, Config::default()).await;
    let mut listener = listen(&bus, "s", EventId::ZERO).await;
    for no in 0..20 {
        let name = stream("s");
        let polled = {
            let mut publishing = pin!(bus.publish(&name, vec![NewEvent::new(no.to_string())]));
            publishing.as_mut().now_or_never()
        };
        assert!(polled.is_none(), "it did not wait for the disk");
    }
    assert_eq!(next_texts(&mut listener, 20).await, numbers(0..20));
    assert_eq!(all(&bus, "s").await, numbers(0..20));
}

#[tokio::test]
async fn nothing_is_seen_before_it_is_durable() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let bus = bus(&store, Config::default()).await;
    let name = stream("s");
    let mut publishing = pin!(bus.publish(&name, vec![NewEvent::new("1").idempotence_id("a")]));
    assert!(publishing.as_mut().now_or_never().is_none());
    // The committer has not had its turn on this thread.
    assert!(matches!(bus.info(&name).now_or_never().unwrap(), Err(Error::StreamNotFound { .. })));
    assert!(matches!(bus.read(&name, Read::default()).now_or_never().unwrap(), Err(Error::StreamNotFound { .. })));
    assert!(bus.list("", None, 10).now_or_never().unwrap().unwrap().streams.is_empty());
    let mut duplicate = pin!(bus.publish(&name, vec![NewEvent::new("1").idempotence_id("a")]));
    assert!(duplicate.as_mut().now_or_never().is_none(), "a duplicate waits for its original");
    let (first, second) = tokio::join!(publishing, duplicate);
    assert_eq!((first.unwrap()[0].id, true), (second.as_ref().unwrap()[0].id, second.unwrap()[0].duplicate));
    assert_eq!(all(&bus, "s").await, ["1"]);
}

#[tokio::test]
async fn full_streams_say_so_until_something_is_removed() {
    let store = Store::memory(TABLES);
    let bus = bus(&store, Config { bytes_max: 10_000, ..Config::default() }).await;
    let event = || vec![NewEvent::new(vec![b'x'; 1070]).idempotence_id(Vec::from(*b"only this"))];
    publish(&bus, "s", event()).await;
    for _ in 0..8 {
        publish(&bus, "s", vec![NewEvent::new(vec![b'x'; 1070])]).await;
    }
    let refused = bus.publish(&stream("s"), vec![NewEvent::new(vec![b'x'; 1070])]).await;
    let Err(error @ Error::Full { capacity: 10_000, .. }) = refused else { panic!("{refused:?}") };
    assert!(error.is_retryable());
    assert!(bus.publish(&stream("new"), vec![NewEvent::new(vec![b'x'; 1070])]).await.is_err());
    assert!(bus.info(&stream("new")).await.is_err(), "a refused publish makes no stream");
    assert!(publish(&bus, "s", event()).await[0].duplicate, "what is there already needs no room");
    bus.trim(&stream("s"), Trim::MaxLength(8)).await.unwrap();
    publish(&bus, "s", vec![NewEvent::new(vec![b'x'; 1070])]).await;
    bus.delete(&[stream("s")]).await.unwrap();
    for _ in 0..9 {
        publish(&bus, "new", vec![NewEvent::new(vec![b'x'; 1070])]).await;
    }
}

#[tokio::test]
async fn streams_are_bounded() {
    let store = Store::memory(TABLES);
    let bus = bus(&store, Config { streams_max: 2, ..Config::default() }).await;
    publish_numbers(&bus, "a", 0..1).await;
    publish_numbers(&bus, "b", 0..1).await;
    let third = bus.publish(&stream("c"), vec![NewEvent::new("1")]).await;
    assert!(matches!(third, Err(Error::TooMany { what: "streams", capacity: 2 })), "{third:?}");
    publish_numbers(&bus, "a", 1..2).await;
    bus.delete(&[stream("a")]).await.unwrap();
    publish_numbers(&bus, "c", 0..1).await;
}

#[tokio::test]
async fn names_of_our_own_keys_are_reserved() {
    let bus = bus(&Store::memory(TABLES), Config::default()).await;
    let own = stream("tidegate:x");
    assert!(matches!(bus.publish(&own, vec![NewEvent::new("1")]).await, Err(Error::ReservedName { .. })));
    assert!(matches!(bus.info(&own).await, Err(Error::ReservedName { .. })));
    assert!(matches!(bus.read(&own, Read::default()).await, Err(Error::ReservedName { .. })));
    assert!(matches!(bus.delete(&[stream("a"), own.clone()]).await, Err(Error::ReservedName { .. })));
    assert!(matches!(bus.listen(Listen::to(vec![Source::Stream(own)])).await, Err(Error::ReservedName { .. })));
    publish_numbers(&bus, "tidegate", 0..1).await;
    publish_numbers(&bus, "tidegate.x", 0..1).await;
}

#[tokio::test]
async fn events_go_when_they_reach_their_age() {
    let age_max = Some(Duration::from_secs(64));
    let (store, (clock, config)) = (Store::memory(TABLES), manual(NOW));
    let config = Config { retention: Retention { length_max: None, age_max }, ..config };
    let bus = bus(&store, config).await;
    for start in (0..2500).step_by(500) {
        publish_numbers(&bus, "s", start..start + 500).await;
    }
    clock.advance(Duration::from_secs(60));
    publish_numbers(&bus, "s", 2500..2510).await;
    assert_eq!(bus.info(&stream("s")).await.unwrap().length, 2510);
    clock.advance(Duration::from_secs(6));
    // Whoever publishes notices that the clock was moved; otherwise a timer does.
    let other = publish_numbers(&bus, "s", 2510..2511).await;
    eventually(async || bus.info(&stream("s")).await.unwrap().length == 11).await;
    assert_eq!(all(&bus, "s").await, numbers(2500..2511));
    assert_eq!(bus.info(&stream("s")).await.unwrap().last, Some(other[0]));
}

#[tokio::test]
async fn an_old_stream_is_emptied_without_anybody_publishing() {
    let age_max = Some(Duration::from_millis(50));
    let config = Config { retention: Retention { length_max: None, age_max }, ..Config::default() };
    let (store, registry) = (Store::memory(TABLES), Registry::new());
    let bus = Bus::open(store.clone(), 0, config, &registry).await.unwrap();
    publish_numbers(&bus, "s", 0..10).await;
    eventually(async || bus.info(&stream("s")).await.unwrap().length == 0).await;
    assert_eq!((keys(&store, 1), value_of(&registry, "tidegate_events_bytes")), (0, 0.0));
    assert_eq!(value_of(&registry, "tidegate_events_removed_total"), 10.0);
}

#[tokio::test]
async fn what_got_too_old_or_too_long_while_nobody_ran_goes_at_the_start() {
    let (store, (clock, config)) = (Store::memory(TABLES), manual(NOW));
    let first = bus(&store, config.clone()).await;
    publish_numbers(&first, "s", 0..100).await;
    first.close().await.unwrap();
    clock.advance(Duration::from_secs(10));
    let length_max = Some(10);
    let shorter = Config { retention: Retention { length_max, age_max: None }, ..config.clone() };
    let second = bus(&store, shorter).await;
    eventually(async || second.info(&stream("s")).await.unwrap().length == 10).await;
    assert_eq!(all(&second, "s").await, numbers(90..100));
    second.close().await.unwrap();
    let age_max = Some(Duration::from_secs(5));
    let younger = Config { retention: Retention { length_max: None, age_max }, ..config };
    let third = bus(&store, younger).await;
    eventually(async || third.info(&stream("s")).await.unwrap().length == 0).await;
}

#[tokio::test]
async fn an_idempotence_id_is_forgotten_after_its_window() {
    let (store, (clock, config)) = (Store::memory(TABLES), manual(NOW));
    let config = Config { idempotence_window: Duration::from_secs(60), ..config };
    let bus = bus(&store, config).await;
    let event = || vec![NewEvent::new("1").idempotence_id("a")];
    assert!(!publish(&bus, "s", event()).await[0].duplicate);
    clock.advance(Duration::from_secs(60));
    assert!(publish(&bus, "s", event()).await[0].duplicate);
    clock.advance(Duration::from_millis(1));
    let again = publish(&bus, "s", event()).await[0];
    assert!(!again.duplicate);
    assert_eq!(publish(&bus, "s", event()).await[0].id, again.id, "and remembered anew");
    clock.advance(Duration::from_secs(120));
    publish(&bus, "s", vec![NewEvent::new("2")]).await;
    eventually(async || keys(&store, 2) == 0).await;
}

#[tokio::test]
async fn a_delivery_is_idle_by_the_clock_also_when_that_is_set_back() {
    let (store, (clock, config)) = (Store::memory(TABLES), manual(NOW));
    let bus = bus(&store, config).await;
    publish_numbers(&bus, "s", 0..1).await;
    let group = bus.group(&stream("s"), &GroupName::new("g").unwrap());
    let claim = || Claim { min_idle: Some(Duration::from_secs(30)), ..claim("a", 10) };
    assert_eq!(group.claim(claim()).await.unwrap().len(), 1);
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(group.claim(claim()).await.unwrap(), []);
    clock.advance(Duration::from_millis(1));
    assert_eq!(delivered(&group.claim(claim()).await.unwrap()), [("0".to_owned(), 2)]);
    clock.set(NOW - 3_600_000);
    assert_eq!(group.claim(claim()).await.unwrap(), []);
    clock.advance(Duration::from_secs(30));
    assert_eq!(delivered(&group.claim(claim()).await.unwrap()), [("0".to_owned(), 3)]);
}

#[tokio::test]
async fn a_crash_may_forget_a_delivery_but_no_acknowledgement() {
    let store = Store::memory(TABLES);
    let before = bus(&store, Config::default()).await;
    publish_numbers(&before, "s", 0..6).await;
    let group = before.group(&stream("s"), &GroupName::new("g").unwrap());
    let held = ids(&group.claim(claim("a", 2)).await.unwrap());
    group.ack(&held[..1]).await.unwrap();
    group.claim(claim("a", 2)).await.unwrap();
    store.crash(10);
    let after = bus(&store, Config::default()).await;
    let group = after.group(&stream("s"), &GroupName::new("g").unwrap());
    let pending = group.pending(EventId::ZERO, 10).await.unwrap();
    assert_eq!(pending.iter().map(|pending| pending.id).collect::<Vec<_>>(), held[1..]);
    let again = group.claim(Claim { min_idle: Some(Duration::ZERO), ..claim("b", 10) }).await.unwrap();
    let again: Vec<_> = delivered(&again).into_iter().map(|(text, _)| text).collect();
    assert_eq!(again, numbers(1..6), "all but what was acknowledged");
}

#[tokio::test]
async fn a_killed_process_loses_nothing_and_tells_no_gap() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let before = bus(&store, Config::default()).await;
    let ids = publish_numbers(&before, "s", 0..500).await;
    publish(&before, "t", vec![NewEvent::new("1").idempotence_id("a")]).await;
    let group = before.group(&stream("s"), &GroupName::new("g").unwrap());
    let held = conformance::ids(&group.claim(claim("a", 10)).await.unwrap());
    group.ack(&held[..5]).await.unwrap();
    before.trim(&stream("s"), Trim::MaxLength(400)).await.unwrap();

    let killed = as_killed(folder.path());
    let store = store_at(killed.path(), TABLES, Durability::Sync);
    assert!(!store.ended_cleanly());
    let after = bus(&store, Config::default()).await;
    assert_eq!(all(&after, "s").await, numbers(100..500));
    let info = after.info(&stream("s")).await.unwrap();
    assert_eq!((info.length, info.first, info.last), (400, Some(ids[100]), Some(ids[499])));
    assert!(publish(&after, "t", vec![NewEvent::new("1").idempotence_id("a")]).await[0].duplicate);
    let group = after.group(&stream("s"), &GroupName::new("g").unwrap());
    assert_eq!(group.pending(EventId::ZERO, 10).await.unwrap().len(), 5);
    let mut listener = listen(&after, "s", ids[498]).await;
    publish_numbers(&after, "s", 500..502).await;
    assert_eq!(next_texts(&mut listener, 3).await, numbers(499..502));
}

#[tokio::test]
async fn after_an_unclean_end_of_a_weaker_store_listeners_are_told() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::EverySecond);
    let before = bus(&store, Config::default()).await;
    let ids = publish_numbers(&before, "s", 0..10).await;
    let killed = as_killed(folder.path());
    let mut after = bus(&store_at(killed.path(), TABLES, Durability::EverySecond), Config::default()).await;
    // Also by a later start, which was a clean one.
    for no in 10..12 {
        publish_numbers(&after, "s", no..no + 1).await;
        let mut behind = listen(&after, "s", ids[7]).await;
        assert_eq!(next_texts(&mut behind, 2).await, numbers(8..10), "what is there is not told to be missing");
        let Heard::Gap(_, gap) = next(&mut behind).await else { panic!("a gap") };
        assert_eq!((gap.from, gap.reason), (ids[9], GapReason::Restarted));
        assert_eq!(next_texts(&mut behind, no - 9).await, numbers(10..no + 1), "and it is told once");
        drop(behind);
        after.close().await.unwrap();
        drop(after);
        let store = store_at(killed.path(), TABLES, Durability::EverySecond);
        assert!(store.ended_cleanly());
        after = bus(&store, Config::default()).await;
    }
}

#[tokio::test]
async fn a_folder_of_before_is_taken_over() {
    const OTHERS: [&str; 2] = ["queues", "jobs"];
    let folder = folder();
    let store = store_at(folder.path(), &OTHERS, Durability::Sync);
    write(&store, |batch| batch.put(Table(1), *b"job", *b"1")).await;
    store.close().unwrap();
    drop(store);
    let tables = [&OTHERS, TABLES].concat();
    for round in 1..=2 {
        let store = store_at(folder.path(), &tables, Durability::Sync);
        assert_eq!(store.get(Table(1), b"job").unwrap().as_deref(), Some(&b"1"[..]));
        let bus = Bus::open(store.clone(), 2, Config::default(), &Registry::new()).await.unwrap();
        publish_numbers(&bus, "s", 0..1).await;
        assert_eq!((all(&bus, "s").await.len(), keys(&store, 1), keys(&store, 3)), (round, 1, round));
        bus.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_event_is_named_and_others_can_be_read() {
    let store = Store::memory(TABLES);
    let before = bus(&store, Config::default()).await;
    let ids = publish_numbers(&before, "s", 0..10).await;
    before.close().await.unwrap();
    let key = [&1u32.to_be_bytes()[..], &ids[4].ms.to_be_bytes(), &ids[4].seq.to_be_bytes()].concat();
    write(&store, |batch| batch.put(EVENTS, key, *b"rubbish")).await;
    let after = bus(&store, Config::default()).await;
    let Err(error @ Error::Damaged { .. }) = after.read(&stream("s"), Read::default()).await else { panic!("damaged") };
    assert!(error.to_string().contains(&format!("stream s: event {}", ids[4])), "{error}");
    let others = after.read(&stream("s"), Read::after(ids[4], 10)).await.unwrap().events;
    assert_eq!(texts(&others), numbers(5..10));
}

#[tokio::test]
async fn a_damaged_record_of_a_stream_stops_the_start_and_is_named() {
    for (table, key, named) in
        [(0, b"sorders".to_vec(), "orders"), (3, [&1u32.to_be_bytes()[..], b"g"].concat(), "orders: group: g")]
    {
        let store = Store::memory(TABLES);
        let before = bus(&store, Config::default()).await;
        publish_numbers(&before, "orders", 0..1).await;
        let group = before.group(&stream("orders"), &GroupName::new("g").unwrap());
        group.claim(claim("a", 1)).await.unwrap();
        before.close().await.unwrap();
        write(&store, |batch| batch.put(Table(table), key, *b"rubbish")).await;
        let refused = Bus::open(store, 0, Config::default(), &Registry::new()).await;
        let Err(error @ Error::Damaged { .. }) = refused else { panic!("damaged") };
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn what_was_left_of_a_deleted_stream_goes_at_the_next_start() {
    let store = Store::memory(TABLES);
    let before = bus(&store, Config::default()).await;
    for _ in 0..3 {
        publish_numbers(&before, "gone", 0..1000).await;
    }
    publish(&before, "gone", vec![NewEvent::new("1").idempotence_id("a")]).await;
    let group = before.group(&stream("gone"), &GroupName::new("g").unwrap());
    group.claim(claim("a", 10)).await.unwrap();
    publish_numbers(&before, "kept", 0..5).await;
    before.close().await.unwrap();
    // As if it had been deleted right before the end.
    write(&store, |batch| {
        batch.delete(STREAMS, *b"sgone");
        batch.put(STREAMS, [&b"d"[..], &1u32.to_be_bytes()].concat(), Vec::new());
    })
    .await;
    let after = bus(&store, Config::default()).await;
    assert!(after.info(&stream("gone")).await.is_err());
    let made = publish_numbers(&after, "new", 0..1).await;
    eventually(async || (0..5).map(|table| keys(&store, table)).eq([2, 6, 0, 0, 0])).await;
    assert_eq!((all(&after, "kept").await, all(&after, "new").await), (numbers(0..5), numbers(0..1)));
    assert_eq!(after.info(&stream("new")).await.unwrap().first, Some(made[0]));
}

#[tokio::test]
async fn deleted_streams_leave_nothing_but_their_last_place() {
    let (store, registry) = (Store::memory(TABLES), Registry::new());
    let bus = Bus::open(store.clone(), 0, Config::default(), &registry).await.unwrap();
    let names: Vec<StreamName> = (0..50).map(|no| stream(&format!("s{no}"))).collect();
    for name in &names {
        publish_numbers(&bus, name.as_str(), 0..50).await;
        publish(&bus, name.as_str(), vec![NewEvent::new("1").idempotence_id("a")]).await;
        let group = bus.group(name, &GroupName::new("g").unwrap());
        group.claim(claim("a", 10)).await.unwrap();
    }
    assert_eq!(bus.delete(&names).await.unwrap(), vec![true; 50]);
    eventually(async || (0..5).map(|table| keys(&store, table)).eq([50, 0, 0, 0, 0])).await;
    for metric in ["tidegate_events_bytes", "tidegate_events_streams", "tidegate_events_tail_bytes"] {
        assert_eq!(value_of(&registry, metric), 0.0, "{metric}");
    }
}

#[tokio::test]
async fn recent_events_in_memory_are_bounded() {
    let (store, registry) = (Store::memory(TABLES), Registry::new());
    let bus = Bus::open(store, 0, Config::default(), &registry).await.unwrap();
    for no in 0..200 {
        let name = format!("s{}", no % 150);
        publish(&bus, &name, vec![NewEvent::new(vec![b'x'; 200_000]), NewEvent::new(vec![b'y'; 200_000])]).await;
        let held = value_of(&registry, "tidegate_events_tail_bytes");
        assert!(held <= f64::from(32 << 20), "{held}");
    }
    assert!(value_of(&registry, "tidegate_events_tail_bytes") > f64::from(16 << 20));
    for no in 0..150 {
        assert!(all(&bus, &format!("s{no}")).await.iter().all(|text| text.len() == 200_000));
    }
}

#[tokio::test]
async fn what_is_answered_while_the_bus_closes_is_there_and_what_is_refused_is_not() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let before = bus(&store, Config::default()).await;
    let publisher = |no: usize| {
        let bus = before.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for turn in 0.. {
                let text = format!("{no} {turn}");
                match bus.publish(&stream("s"), vec![NewEvent::new(text.clone())]).await {
                    Ok(_) => kept.push(text),
                    Err(Error::Draining) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            kept
        })
    };
    let publishers: Vec<_> = (0..16).map(publisher).collect();
    eventually(async || before.info(&stream("s")).await.is_ok_and(|info| info.length > 100)).await;
    before.close().await.unwrap();
    let mut kept = BTreeSet::new();
    for publisher in publishers {
        kept.extend(publisher.await.unwrap());
    }
    drop((before, store));
    let after = bus(&store_at(folder.path(), TABLES, Durability::Sync), Config::default()).await;
    let mut found = BTreeSet::new();
    let mut read = Read { limit: 1000, ..Read::default() };
    loop {
        let page = after.read(&stream("s"), read).await.unwrap();
        found.extend(texts(&page.events));
        match page.events.last() {
            Some(last) if page.more => read.after = last.id,
            _ => break,
        }
    }
    assert_eq!(found, kept);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_tasks() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let first = bus(&store, Config::default()).await;
    publish_numbers(&first, "s", 0..1).await;
    drop((first, store));
    // The folder is free once nobody holds the store any more.
    let open = || {
        let config = tidegate_store::Config::new(folder.path());
        Store::open(config, TABLES, &Registry::new()).ok()
    };
    let again = std::cell::RefCell::new(None);
    eventually(async || {
        *again.borrow_mut() = open();
        again.borrow().is_some()
    })
    .await;
    assert!(again.take().unwrap().ended_cleanly());
}

#[tokio::test]
async fn nothing_is_seen_of_what_a_failed_store_did_not_take() {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let bus = bus(&store, Config::default()).await;
    let ids = publish_numbers(&bus, "s", 0..3).await;
    let mut listener = listen(&bus, "s", ids[1]).await;
    assert_eq!(next_texts(&mut listener, 1).await, ["2"]);
    // From here on it refuses every write, as after a failed one.
    store.close().unwrap();
    for _ in 0..2 {
        let refused = bus.publish(&stream("s"), vec![NewEvent::new("3").idempotence_id("a")]).await;
        assert!(matches!(refused, Err(Error::Store(_))), "also a duplicate of what failed: {refused:?}");
    }
    assert!(matches!(bus.publish(&stream("t"), vec![NewEvent::new("1")]).await, Err(Error::Store(_))));
    assert!(matches!(bus.info(&stream("t")).await, Err(Error::StreamNotFound { .. })));
    assert_eq!((all(&bus, "s").await, bus.info(&stream("s")).await.unwrap().length), (numbers(0..3), 3));
    assert!(listener.next().now_or_never().is_none(), "nothing is heard");
    assert!(matches!(bus.trim(&stream("s"), Trim::MaxLength(0)).await, Err(Error::Store(_))));
    bus.close().await.unwrap();
}

/// A folder whose records do not fit together, as a repair that gave some of them up leaves it.
async fn repaired(change: impl FnOnce(&mut Batch)) -> TempDir {
    let folder = folder();
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let before = bus(&store, Config::default()).await;
    publish_numbers(&before, "s", 0..10).await;
    publish_numbers(&before, "other", 0..10).await;
    let group = before.group(&stream("s"), &GroupName::new("g").unwrap());
    group.claim(claim("a", 3)).await.unwrap();
    before.close().await.unwrap();
    write(&store, change).await;
    as_killed(folder.path())
}

#[tokio::test]
async fn a_stream_whose_newest_events_a_repair_gave_up_counts_what_is_left_and_tells() {
    let mut ids = Vec::new();
    let folder = repaired(|_| ()).await;
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let whole = bus(&store, Config::default()).await;
    for event in whole.read(&stream("s"), Read::default()).await.unwrap().events {
        ids.push(event.id);
    }
    whole.close().await.unwrap();
    let key = |id: EventId| [&1u32.to_be_bytes()[..], &id.ms.to_be_bytes(), &id.seq.to_be_bytes()].concat();
    write(&store, |batch| ids[7..].iter().for_each(|id| batch.delete(EVENTS, key(*id)))).await;
    let killed = as_killed(folder.path());
    let after = bus(&store_at(killed.path(), TABLES, Durability::Sync), Config::default()).await;
    assert_eq!((all(&after, "s").await, after.info(&stream("s")).await.unwrap().length), (numbers(0..7), 7));
    assert_eq!(all(&after, "other").await, numbers(0..10));
    let made = publish_numbers(&after, "s", 10..11).await;
    assert!(made[0] > ids[9], "no id is used again");
    let mut listener = listen(&after, "s", ids[5]).await;
    assert_eq!(next_texts(&mut listener, 1).await, ["6"]);
    let Heard::Gap(_, gap) = next(&mut listener).await else { panic!("a gap") };
    assert_eq!((gap.from, gap.reason), (ids[6], GapReason::Restarted));
    assert_eq!(next_texts(&mut listener, 1).await, ["10"]);
}

#[tokio::test]
async fn records_of_a_stream_nobody_can_name_are_removed_and_their_number_is_not_used_again() {
    let folder = repaired(|batch| batch.delete(STREAMS, *b"ss")).await;
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let after = bus(&store, Config::default()).await;
    publish_numbers(&after, "new", 0..2).await;
    assert_eq!((all(&after, "new").await, all(&after, "other").await), (numbers(0..2), numbers(0..10)));
    eventually(async || (1..5).map(|table| keys(&store, table)).eq([12, 0, 0, 0])).await;
}

#[tokio::test]
async fn a_group_a_repair_gave_up_begins_again() {
    let folder = repaired(|batch| batch.delete(Table(3), [&1u32.to_be_bytes()[..], b"g"].concat())).await;
    let store = store_at(folder.path(), TABLES, Durability::Sync);
    let after = bus(&store, Config::default()).await;
    assert_eq!(keys(&store, 4), 0, "deliveries of nobody");
    let group = after.group(&stream("s"), &GroupName::new("g").unwrap());
    assert_eq!(group.claim(claim("a", 100)).await.unwrap().len(), 10);
}
