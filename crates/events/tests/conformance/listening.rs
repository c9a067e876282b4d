//! Listeners: what is heard, in which order, and what is told when history is missing.

use std::collections::BTreeMap;

use tidegate_events::{Config, Cursor, EventId, GapReason, Heard, Listen, NewEvent, Read, Source, Trim};
use tokio::time::timeout;

use super::{Opening, PATIENCE, World, eventually, next, next_event, next_texts, numbers, stream};

const START: Option<Cursor> = Some(Cursor { base: Some(EventId::ZERO), places: BTreeMap::new() });

pub async fn from_now_on_is_from_now_on(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..5).await;
    let mut listener = world.listen(&["orders"], None).await;
    let ids = world.publish_numbers(5..8).await;
    let (name, event) = next_event(&mut listener).await;
    assert_eq!((name.as_str(), event.id, &event.data[..]), ("orders", ids[0], &b"5"[..]));
    assert_eq!(next_texts(&mut listener, 2).await, numbers(6..8));
    assert_eq!(listener.cursor().of(&world.stream), Some(ids[2]));
}

pub async fn from_the_start_is_everything(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    for start in (0..3000).step_by(1000) {
        world.publish_numbers(start..start + 1000).await;
    }
    world.restart().await;
    let mut listener = world.listen(&["orders"], START).await;
    assert_eq!(next_texts(&mut listener, 3000).await, numbers(0..3000));
    world.publish_numbers(3000..3001).await;
    assert_eq!(next_texts(&mut listener, 1).await, ["3000"]);
}

pub async fn a_listener_resumes_in_the_middle(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..100).await;
    for place in [0, 41, 98] {
        let mut listener = world.listen(&["orders"], Some(Cursor::at(ids[place]))).await;
        assert_eq!(next_texts(&mut listener, 99 - place).await, numbers(place + 1..100));
    }
    let mut last = world.listen(&["orders"], Some(Cursor::at(ids[99]))).await;
    world.publish_numbers(100..101).await;
    assert_eq!(next_texts(&mut last, 1).await, ["100"]);
}

pub async fn a_listener_resumes_over_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let mut listener = world.listen(&["orders"], None).await;
    world.publish_numbers(0..10).await;
    assert_eq!(next_texts(&mut listener, 4).await, numbers(0..4));
    let cursor = listener.cursor();
    drop(listener);
    world.restart().await;
    let mut listener = world.listen(&["orders"], Some(cursor)).await;
    world.publish_numbers(10..12).await;
    assert_eq!(next_texts(&mut listener, 8).await, numbers(4..12), "and no gap is told");
}

pub async fn replay_and_live_have_no_seam(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..500).await;
    let publish = async {
        for start in (500..3000).step_by(10) {
            world.publish_numbers(start..start + 10).await;
        }
    };
    let listen = async {
        let mut listeners = Vec::new();
        for _ in 0..10 {
            listeners.push(world.listen(&["orders"], START).await);
            tokio::task::yield_now().await;
        }
        for listener in &mut listeners {
            assert_eq!(next_texts(listener, 3000).await, numbers(0..3000));
        }
    };
    tokio::join!(publish, listen);
}

pub async fn a_trimmed_history_is_told(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..10).await;
    world.bus.trim(&world.stream, Trim::MaxLength(4)).await.unwrap();
    let mut listener = world.listen(&["orders"], Some(Cursor::at(ids[2]))).await;
    let Heard::Gap(name, gap) = next(&mut listener).await else { panic!("a gap") };
    assert_eq!((name.as_str(), gap.from, gap.reason), ("orders", ids[2], GapReason::Trimmed));
    assert!(gap.to >= ids[5] && gap.to < ids[6], "it goes on with the oldest event kept: {gap:?}");
    assert_eq!(next_texts(&mut listener, 4).await, numbers(6..10));
    let mut connected = world.listen(&["orders"], Some(Cursor::at(ids[6]))).await;
    assert_eq!(next_texts(&mut connected, 3).await, numbers(7..10), "who missed nothing is told nothing");
}

pub async fn a_deleted_stream_is_told(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..3).await;
    let mut listener = world.listen(&["orders"], START).await;
    assert_eq!(next_texts(&mut listener, 3).await, numbers(0..3));
    world.bus.delete(std::slice::from_ref(&world.stream)).await.unwrap();
    let Heard::Gap(_, gap) = next(&mut listener).await else { panic!("a gap") };
    assert_eq!((gap.from, gap.reason), (ids[2], GapReason::Deleted));
    world.publish_numbers(3..4).await;
    assert_eq!(next_texts(&mut listener, 1).await, ["3"]);
}

pub async fn a_place_of_a_deleted_stream_is_told(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..4).await;
    world.bus.delete(std::slice::from_ref(&world.stream)).await.unwrap();
    world.publish_numbers(4..5).await;
    for sources in [&["orders"][..], &["orders", "other"]] {
        let place = Cursor { base: None, places: [(world.stream.clone(), ids[1])].into() };
        let mut listener = world.listen(sources, Some(place)).await;
        let Heard::Gap(_, gap) = next(&mut listener).await else { panic!("2 and 3 are missing") };
        assert_eq!(gap.from, ids[1]);
        assert_eq!(next_texts(&mut listener, 1).await, ["4"]);
    }
}

pub async fn deleting_amid_publishes_hides_nothing_that_is_kept(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut listeners = vec![world.listen(&["orders"], None).await, world.listen(&["*"], None).await];
    let doomed = [world.stream.clone()];
    for round in 0..100 {
        let publish = |number: usize| world.publish_numbers([number]);
        let (_, deleted, _) = tokio::join!(publish(2 * round), world.bus.delete(&doomed), publish(2 * round + 1));
        deleted.unwrap();
        listeners.push(world.listen(&["orders"], START).await);
        let kept = world.read(Read::default()).await.events;
        let texts = super::texts(&kept);
        let Some(last) = texts.last() else { continue };
        // Whoever began before it has heard all of it, and so has who came now.
        for listener in &mut listeners {
            let mut heard = Vec::new();
            while heard.last() != Some(last) {
                if let Heard::Event(_, event) = next(listener).await {
                    heard.extend(super::texts(&[event]));
                }
            }
            assert!(heard.ends_with(&texts) || texts.ends_with(&heard), "round {round}: {heard:?}, kept {texts:?}");
        }
        listeners.truncate(2);
    }
}

pub async fn a_stream_that_stayed_silent_misses_nothing(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let last = world.publish_numbers(0..1).await[0];
    // As a cursor says of streams it does not name; after that millisecond, as the next event comes.
    let base = EventId { ms: last.ms + 1, seq: 0 };
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let mut listener = world.listen(&["*"], Some(Cursor { base: Some(base), places: [].into() })).await;
    world.publish_numbers(1..2).await;
    let Heard::Event(_, event) = next(&mut listener).await else { panic!("nothing is missing") };
    assert_eq!(super::texts(&[event]), ["1"]);
}

pub async fn one_listener_hears_many_streams(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let names: Vec<String> = (0..20).map(|no| format!("s{no}")).collect();
    let sources: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut listener = world.listen(&sources, None).await;
    for round in 0..5 {
        for name in &names {
            world.publish_to(&stream(name), NewEvent::new(round.to_string())).await;
        }
    }
    let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..100 {
        let (name, event) = next_event(&mut listener).await;
        heard.entry(name).or_default().extend(super::texts(&[event]));
    }
    assert_eq!(heard.len(), 20);
    assert!(heard.values().all(|texts| *texts == numbers(0..5)), "{heard:?}");
}

pub async fn a_cursor_of_many_streams_resumes_each(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let (a, b) = (stream("a"), stream("b"));
    let mut listener = world.listen(&["a", "b"], None).await;
    for no in 0..10 {
        world.publish_to(&a, NewEvent::new(no.to_string())).await;
        world.publish_to(&b, NewEvent::new(no.to_string())).await;
    }
    let mut heard = BTreeMap::from([("a".to_owned(), Vec::new()), ("b".to_owned(), Vec::new())]);
    let mut hear = async |listener: &mut tidegate_events::Listener, count| {
        for _ in 0..count {
            let (name, event) = next_event(listener).await;
            heard.entry(name).or_default().extend(super::texts(&[event]));
        }
    };
    hear(&mut listener, 7).await;
    // As it is written into a frame and read back.
    let cursor: Cursor = listener.cursor().to_string().parse().unwrap();
    drop(listener);
    world.restart().await;
    let mut listener = world.listen(&["a", "b"], Some(cursor)).await;
    hear(&mut listener, 13).await;
    assert!(heard.values().all(|texts| *texts == numbers(0..10)), "{heard:?}");
}

pub async fn a_pattern_follows_streams_made_later(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_to(&stream("order.created"), NewEvent::new("before")).await;
    let mut listener = world.listen(&["order.*"], None).await;
    world.publish_to(&stream("order.paid"), NewEvent::new("1")).await;
    world.publish_to(&stream("order.line.added"), NewEvent::new("no")).await;
    world.publish_to(&stream("order"), NewEvent::new("no")).await;
    let (name, event) = next_event(&mut listener).await;
    assert_eq!((name.as_str(), &event.data[..]), ("order.paid", &b"1"[..]), "from its first event on");
    world.publish_to(&stream("order.created"), NewEvent::new("2")).await;
    let (name, event) = next_event(&mut listener).await;
    assert_eq!((name.as_str(), &event.data[..]), ("order.created", &b"2"[..]));
}

pub async fn a_listener_may_come_before_its_stream(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut now = world.listen(&["orders"], None).await;
    let mut start = world.listen(&["orders"], START).await;
    world.publish_numbers(0..3).await;
    assert_eq!(next_texts(&mut now, 3).await, numbers(0..3));
    assert_eq!(next_texts(&mut start, 3).await, numbers(0..3));
}

pub async fn all_listeners_hear_all(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut listeners = Vec::new();
    for _ in 0..50 {
        listeners.push(world.listen(&["orders"], None).await);
    }
    assert_eq!(world.bus.stats().listeners, 50);
    world.publish_numbers(0..20).await;
    for listener in &mut listeners {
        assert_eq!(next_texts(listener, 20).await, numbers(0..20));
    }
}

pub async fn a_listener_that_left_costs_nothing(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let listeners = [world.listen(&["orders"], None).await, world.listen(&["orders", "b", "c.**"], None).await];
    world.publish_numbers(0..20).await;
    assert_eq!(world.bus.stats().listeners, 2);
    drop(listeners);
    eventually(async || {
        let stats = world.bus.stats();
        (stats.listeners, stats.live_streams, stats.ring_bytes) == (0, 0, 0)
    })
    .await;
}

pub async fn draining_ends_listeners(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut listener = world.listen(&["orders", "b.*"], None).await;
    let waiting = tokio::spawn(async move { listener.next().await });
    world.bus.drain();
    assert_eq!(timeout(PATIENCE, waiting).await.expect("it ends").unwrap(), None);
    let late = world.bus.listen(Listen::to(vec![Source::parse("orders").unwrap()])).await;
    assert!(matches!(late, Err(tidegate_events::Error::Draining)), "{late:?}");
}
