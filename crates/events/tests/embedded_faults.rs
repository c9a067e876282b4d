//! Crashes, kills, damage and repairs of the embedded store, and what must come of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by the suites of all backends")]
mod conformance;
#[allow(unreachable_pub, dead_code, reason = "shared by the suites of this backend")]
mod embedded_common;

use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;
use tidegate_events::{Bus, Claim, Config, Error, EventId, GapReason, GroupName, Heard, NewEvent, Read, TABLES, Trim};
use tidegate_metrics::Registry;
use tidegate_store::{Batch, Durability, Store, Table};

use conformance::{claim, delivered, eventually, ids, next, next_texts, numbers, stream, texts};
use embedded_common::{
    EVENTS, STREAMS, all, as_killed, bus, folder, keys, listen, publish, publish_numbers, store_at, write,
};

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
