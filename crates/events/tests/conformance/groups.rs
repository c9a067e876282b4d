//! Consumer groups.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_events::{Claim, Config, Error, EventId, Failed, NewEvent, Read, Trim};
use tokio::time::timeout;

use super::{Opening, PATIENCE, World, claim, delivered, eventually, ids, numbers, stream, texts};

const NO_TIME: Option<Duration> = Some(Duration::ZERO);

fn first_time(numbers: Vec<String>) -> Vec<(String, u32)> {
    numbers.into_iter().map(|number| (number, 1)).collect()
}

pub async fn consumers_share_a_stream(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..10).await;
    let group = world.group("g");
    assert_eq!(delivered(&group.claim(claim("a", 4)).await.unwrap()), first_time(numbers(0..4)));
    assert_eq!(delivered(&group.claim(claim("b", 4)).await.unwrap()), first_time(numbers(4..8)));
    assert_eq!(delivered(&group.claim(claim("a", 4)).await.unwrap()), first_time(numbers(8..10)));
    assert_eq!(group.claim(claim("b", 4)).await.unwrap(), []);
    world.publish_numbers(10..11).await;
    assert_eq!(delivered(&group.claim(claim("b", 4)).await.unwrap()), first_time(numbers(10..11)));
}

pub async fn each_group_hears_all(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..3).await;
    for group in ["g", "h"] {
        assert_eq!(delivered(&world.group(group).claim(claim("a", 10)).await.unwrap()), first_time(numbers(0..3)));
    }
}

pub async fn a_group_begins_with_the_oldest_event_kept(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..10).await;
    world.bus.trim(&world.stream, Trim::MaxLength(3)).await.unwrap();
    assert_eq!(delivered(&world.group("g").claim(claim("a", 10)).await.unwrap()), first_time(numbers(7..10)));
}

pub async fn an_event_is_acknowledged_once(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    world.publish_numbers(0..4).await;
    let claimed = ids(&world.group("g").claim(claim("a", 3)).await.unwrap());
    let next = claimed[2].next();
    assert_eq!(world.group("g").ack(&[claimed[0], claimed[2], next]).await.unwrap(), [true, true, false]);
    assert_eq!(world.group("g").ack(&[claimed[1], claimed[1], claimed[0]]).await.unwrap(), [true, false, false]);
    world.restart().await;
    assert_eq!(world.group("g").ack(&claimed).await.unwrap(), [false; 3]);
    let again = world.group("g").claim(Claim { min_idle: NO_TIME, ..claim("b", 10) }).await.unwrap();
    assert_eq!(delivered(&again), first_time(numbers(3..4)));
}

pub async fn an_abandoned_delivery_goes_to_another_consumer(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..2).await;
    let group = world.group("g");
    let held = ids(&group.claim(claim("a", 10)).await.unwrap());
    group.ack(&held[..1]).await.unwrap();
    let patient = Claim { min_idle: Some(Duration::from_millis(100)), wait: PATIENCE, ..claim("b", 10) };
    let again = group.claim(patient).await.unwrap();
    assert_eq!(delivered(&again), [("1".to_owned(), 2)]);
    let pending = group.pending(EventId::ZERO, 10).await.unwrap();
    assert_eq!(pending.iter().map(|pending| (&*pending.consumer, pending.deliveries)).collect::<Vec<_>>(), [("b", 2)]);
}

pub async fn what_is_held_is_not_delivered_to_others(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..2).await;
    world.group("g").claim(claim("a", 10)).await.unwrap();
    let long = Claim { min_idle: Some(Duration::from_secs(3600)), wait: Duration::from_millis(50), ..claim("b", 10) };
    assert_eq!(world.group("g").claim(long).await.unwrap(), []);
}

pub async fn a_waiting_claim_wakes_for_an_event(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..1).await;
    let group = world.group("g");
    group.claim(claim("a", 10)).await.unwrap();
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.claim(Claim { wait: PATIENCE * 2, ..claim("b", 10) }).await.unwrap() }
    });
    eventually(async || world.bus.stats().live_streams == 1).await;
    world.publish_numbers(1..3).await;
    let claimed = timeout(PATIENCE, waiting).await.expect("it wakes").unwrap();
    // On several connections the first of a burst may be seen alone.
    assert_eq!(delivered(&claimed)[0], ("1".to_owned(), 1));
}

pub async fn a_waiting_claim_wakes_for_a_failed_event(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..2).await;
    let group = world.group("g");
    let held = ids(&group.claim(claim("a", 10)).await.unwrap());
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.claim(Claim { wait: PATIENCE * 2, ..claim("b", 10) }).await.unwrap() }
    });
    eventually(async || world.bus.stats().live_streams == 1).await;
    assert_eq!(group.fail(&held[1..], "no luck").await.unwrap(), [Failed::Retried]);
    let claimed = timeout(PATIENCE, waiting).await.expect("it wakes").unwrap();
    assert_eq!(delivered(&claimed), [("1".to_owned(), 2)]);
}

pub async fn a_waiting_claim_wakes_when_a_delivery_is_idle(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.min_idle = Duration::from_millis(50)).await;
    world.publish_numbers(0..1).await;
    let group = world.group("g");
    for deliveries in 1..=4 {
        let claimed = group.claim(Claim { wait: PATIENCE, ..claim("a", 10) }).await.unwrap();
        assert_eq!(delivered(&claimed), [("0".to_owned(), deliveries)]);
    }
}

pub async fn a_claim_may_wait_for_the_stream(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let group = world.group("g");
    let short = group.claim(Claim { wait: Duration::from_millis(10), ..claim("a", 10) }).await;
    assert!(matches!(short, Err(Error::StreamNotFound { .. }) | Ok(_)), "{short:?}");
    let waiting = tokio::spawn(async move { group.claim(Claim { wait: PATIENCE * 2, ..claim("a", 10) }).await });
    eventually(async || world.bus.stats().live_streams == 1).await;
    world.publish_numbers(0..1).await;
    let claimed = timeout(PATIENCE, waiting).await.expect("it wakes").unwrap().unwrap();
    assert_eq!(delivered(&claimed), first_time(numbers(0..1)));
}

pub async fn what_fails_too_often_is_put_aside(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.deliveries_max = 3).await;
    let event = NewEvent::new(r#"{"a":1.0}"#).kind("order.created").key("k");
    let id = world.publish(event.clone()).await;
    world.publish(NewEvent::new("not JSON \"")).await;
    let group = world.group("g");
    for deliveries in 1..=3 {
        let claimed = group.claim(claim("a", 10)).await.unwrap();
        assert!(claimed.len() == 2 && claimed.iter().all(|delivery| delivery.deliveries == deliveries), "{claimed:?}");
        let became = if deliveries < 3 { Failed::Retried } else { Failed::DeadLettered };
        assert_eq!(group.fail(&ids(&claimed), "no luck").await.unwrap(), [became; 2]);
    }
    assert_eq!(group.claim(Claim { min_idle: NO_TIME, ..claim("a", 10) }).await.unwrap(), []);
    let letters = world.bus.read(&stream("orders.dead.g"), Read::default()).await.unwrap().events;
    let expected = format!(
        r#"{{"stream":"orders","group":"g","id":"{id}","deliveries":3,"error":"no luck","type":"order.created","data":{{"a":1.0}}}}"#
    );
    assert_eq!(texts(&letters)[0], expected);
    assert_eq!((letters[0].kind.as_deref(), &letters[0].key), (Some(&b"dead"[..]), &event.key));
    assert!(texts(&letters)[1].ends_with(r#""text":"not JSON \""}"#), "{letters:?}");
}

pub async fn what_is_never_acknowledged_is_put_aside(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.deliveries_max = 2).await;
    world.publish_numbers(0..1).await;
    let group = world.group("g");
    let at_once = Claim { min_idle: NO_TIME, ..claim("a", 10) };
    for deliveries in 1..=2 {
        let claimed = group.claim(at_once.clone()).await.unwrap();
        assert_eq!(delivered(&claimed), [("0".to_owned(), deliveries)]);
    }
    world.publish_numbers(1..2).await;
    assert_eq!(delivered(&group.claim(at_once).await.unwrap()), first_time(numbers(1..2)), "others come through");
    let letters = world.bus.read(&stream("orders.dead.g"), Read::default()).await.unwrap().events;
    assert_eq!(letters.len(), 1);
    assert_eq!(group.pending(EventId::ZERO, 10).await.unwrap().len(), 1, "it is acknowledged");
}

pub async fn failing_what_is_not_pending_changes_nothing(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let published = world.publish_numbers(0..2).await;
    let group = world.group("g");
    let held = ids(&group.claim(claim("a", 1)).await.unwrap());
    group.ack(&held).await.unwrap();
    assert_eq!(group.fail(&published, "no").await.unwrap(), [Failed::NotPending; 2]);
    assert_eq!(delivered(&group.claim(claim("a", 10)).await.unwrap()), first_time(numbers(1..2)));
}

pub async fn pending_deliveries_are_listed(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let published = world.publish_numbers(0..5).await;
    let group = world.group("g");
    group.claim(claim("a", 2)).await.unwrap();
    group.claim(claim("b", 2)).await.unwrap();
    group.ack(&published[1..2]).await.unwrap();
    let list = async |after, limit| {
        let pending = group.pending(after, limit).await.unwrap();
        assert!(pending.iter().all(|pending| pending.deliveries == 1 && pending.idle < PATIENCE), "{pending:?}");
        pending.iter().map(|pending| (pending.id, pending.consumer.to_string())).collect::<Vec<_>>()
    };
    let expected = [(published[0], "a".to_owned()), (published[2], "b".into()), (published[3], "b".into())];
    assert_eq!(list(EventId::ZERO, 10).await, expected);
    assert_eq!(list(EventId::ZERO, 2).await, expected[..2]);
    assert_eq!(list(published[0], 10).await, expected[1..]);
    assert_eq!(list(published[3], 10).await, []);
}

pub async fn groups_are_listed(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let published = world.publish_numbers(0..5).await;
    assert_eq!(world.bus.groups(&world.stream).await.unwrap(), []);
    world.group("b").claim(claim("x", 2)).await.unwrap();
    world.group("b").claim(claim("y", 2)).await.unwrap();
    world.group("a").claim(claim("x", 1)).await.unwrap();
    let groups = world.bus.groups(&world.stream).await.unwrap();
    let told: Vec<_> = groups.iter().map(|g| (g.name.as_str(), g.delivered_to, g.pending, g.consumers)).collect();
    assert_eq!(told, [("a", published[0], 1, 1), ("b", published[3], 4, 2)]);
}

pub async fn a_group_survives_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let published = world.publish_numbers(0..6).await;
    let held = ids(&world.group("g").claim(claim("a", 4)).await.unwrap());
    world.group("g").ack(&held[..2]).await.unwrap();
    world.restart().await;
    let pending = world.group("g").pending(EventId::ZERO, 10).await.unwrap();
    assert_eq!(pending.iter().map(|pending| pending.id).collect::<Vec<_>>(), published[2..4]);
    assert_eq!(delivered(&world.group("g").claim(claim("b", 10)).await.unwrap()), first_time(numbers(4..6)));
    let again = world.group("g").claim(Claim { min_idle: NO_TIME, ..claim("b", 10) }).await.unwrap();
    assert_eq!(delivered(&again)[..2], [("2".to_owned(), 2), ("3".to_owned(), 2)]);
    assert_eq!(world.group("g").ack(&held[2..]).await.unwrap(), [true, true]);
}

pub async fn pending_deliveries_are_bounded(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.pending_max = 3).await;
    world.publish_numbers(0..10).await;
    let group = world.group("g");
    let held = group.claim(claim("a", 10)).await.unwrap();
    assert_eq!(delivered(&held), first_time(numbers(0..3)));
    assert_eq!(group.claim(claim("b", 10)).await.unwrap(), []);
    group.ack(&ids(&held)[..2]).await.unwrap();
    assert_eq!(delivered(&group.claim(claim("b", 10)).await.unwrap()), first_time(numbers(3..5)));
}

pub async fn groups_are_bounded(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.groups_max = 2).await;
    world.publish_numbers(0..1).await;
    for group in ["a", "b", "a"] {
        world.group(group).claim(claim("x", 1)).await.unwrap();
    }
    let third = world.group("c").claim(claim("x", 1)).await;
    assert!(matches!(third, Err(Error::TooMany { capacity: 2, .. })), "{third:?}");
}

pub async fn removed_events_leave_the_group(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..4).await;
    let group = world.group("g");
    let held = ids(&group.claim(claim("a", 3)).await.unwrap());
    world.bus.trim(&world.stream, Trim::Before(held[2])).await.unwrap();
    let again = group.claim(Claim { min_idle: NO_TIME, ..claim("b", 10) }).await.unwrap();
    assert_eq!(delivered(&again), [("2".to_owned(), 2), ("3".to_owned(), 1)]);
    assert_eq!(group.pending(EventId::ZERO, 10).await.unwrap().len(), 2);
    assert_eq!(group.ack(&held[..2]).await.unwrap(), [false, false]);
}

pub async fn many_consumers_handle_each_event_once(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..500).await;
    let consumer = |no: usize| {
        let group = world.group("g");
        tokio::spawn(async move {
            let mut handled = Vec::new();
            loop {
                let claim = Claim { wait: Duration::from_millis(500), ..claim(&format!("c{no}"), 7) };
                let claimed = group.claim(claim).await.unwrap();
                if claimed.is_empty() {
                    return handled;
                }
                assert!(group.ack(&ids(&claimed)).await.unwrap().iter().all(|acked| *acked));
                handled.extend(delivered(&claimed));
            }
        })
    };
    let consumers: Vec<_> = (0..8).map(consumer).collect();
    world.publish_numbers(500..1000).await;
    let mut handled = BTreeMap::new();
    for consumer in consumers {
        for (text, deliveries) in consumer.await.unwrap() {
            *handled.entry(text.parse::<usize>().unwrap()).or_insert(0) += deliveries;
        }
    }
    assert_eq!(handled, (0..1000).map(|no| (no, 1)).collect());
}

pub async fn unknown_groups_and_streams_are_told_apart(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let group = world.group("g");
    let some = [EventId { ms: 1, seq: 1 }];
    let pending = group.pending(EventId::ZERO, 10).await;
    assert!(matches!(pending, Err(Error::StreamNotFound { .. })), "{pending:?}");
    assert!(matches!(group.claim(claim("a", 1)).await, Err(Error::StreamNotFound { .. })));
    assert_eq!(group.ack(&some).await.unwrap(), [false]);
    assert_eq!(group.fail(&some, "no").await.unwrap(), [Failed::NotPending]);
    world.publish_numbers(0..1).await;
    let pending = group.pending(EventId::ZERO, 10).await;
    assert!(matches!(pending, Err(Error::GroupNotFound { .. })), "{pending:?}");
    assert_eq!(group.ack(&some).await.unwrap(), [false]);
    assert_eq!(group.fail(&some, "no").await.unwrap(), [Failed::NotPending]);
}

pub async fn bad_claims_are_refused(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..1).await;
    let long = "x".repeat(65);
    for (field, claim) in [
        ("limit", claim("a", 0)),
        ("limit", claim("a", 1001)),
        ("consumer", claim("", 1)),
        ("consumer", claim(&long, 1)),
        ("consumer", claim("a\n", 1)),
    ] {
        match world.group("g").claim(claim).await {
            Err(Error::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

pub async fn draining_ends_waiting_claims(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..1).await;
    let group = world.group("g");
    group.claim(claim("a", 10)).await.unwrap();
    let waiting = tokio::spawn(async move { group.claim(Claim { wait: PATIENCE * 2, ..claim("b", 10) }).await });
    eventually(async || world.bus.stats().live_streams == 1).await;
    world.bus.drain();
    assert_eq!(timeout(PATIENCE, waiting).await.expect("it ends").unwrap().unwrap(), []);
}
