//! What only a bus in this process promises: it owns the clock, and knows what is durable and what is kept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by the suites of all backends")]
mod conformance;
#[allow(unreachable_pub, dead_code, reason = "shared by the suites of this backend")]
mod embedded_common;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tidegate_events::{
    Bus, Claim, Config, Error, EventId, GapReason, GroupName, Heard, Listen, NewEvent, Read, Retention, Source,
    StreamName, TABLES, Trim,
};
use tidegate_metrics::Registry;
use tidegate_store::{Durability, Store, Table};

use conformance::{claim, delivered, eventually, next, next_texts, numbers, stream, texts};
use embedded_common::{
    NOW, all, bus, folder, keys, listen, manual, publish, publish_numbers, store_at, value_of, write,
};

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
