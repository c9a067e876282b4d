//! What goes out.

use std::time::Duration;

use tidegate_events::{Config, Error, EventId, NewEvent, Pattern, Read, Retention, Trim};

use super::{Opening, World, claim, eventually, numbers, stream};

pub async fn a_trim_keeps_the_newest(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    for start in (0..3000).step_by(1000) {
        world.publish_numbers(start..start + 1000).await;
    }
    assert_eq!(world.bus.trim(&world.stream, Trim::MaxLength(4000)).await.unwrap(), 0);
    assert_eq!(world.bus.trim(&world.stream, Trim::MaxLength(7)).await.unwrap(), 2993);
    for _ in 0..2 {
        assert_eq!(world.all().await, numbers(2993..3000));
        world.restart().await;
    }
    assert_eq!(world.bus.trim(&world.stream, Trim::MaxLength(7)).await.unwrap(), 0);
}

pub async fn a_trim_before_a_place_keeps_it(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..10).await;
    assert_eq!(world.bus.trim(&world.stream, Trim::Before(EventId::ZERO)).await.unwrap(), 0);
    assert_eq!(world.bus.trim(&world.stream, Trim::Before(ids[4])).await.unwrap(), 4);
    assert_eq!(world.all().await, numbers(4..10));
    assert_eq!(world.bus.trim(&world.stream, Trim::Before(ids[2])).await.unwrap(), 0);
    assert_eq!(world.bus.trim(&world.stream, Trim::Before(ids[9].next())).await.unwrap(), 6);
    assert_eq!(world.all().await, numbers([]));
}

pub async fn an_emptied_stream_goes_on(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..10).await;
    assert_eq!(world.bus.trim(&world.stream, Trim::MaxLength(0)).await.unwrap(), 10);
    for _ in 0..2 {
        let info = world.bus.info(&world.stream).await.unwrap();
        assert_eq!((info.length, info.first, info.last), (0, None, None), "it is there, and empty");
        world.restart().await;
    }
    assert!(world.publish(NewEvent::new("10")).await > ids[9]);
    assert_eq!(world.all().await, ["10"]);
}

pub async fn a_deleted_stream_is_gone_with_its_groups(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    world.publish_numbers(0..1000).await;
    world.publish_to(&stream("other"), NewEvent::new("1")).await;
    world.group("g").claim(claim("c", 10)).await.unwrap();
    let names = [world.stream.clone(), stream("absent"), stream("other")];
    assert_eq!(world.bus.delete(&names).await.unwrap(), [true, false, true]);
    for _ in 0..2 {
        assert!(matches!(world.bus.info(&world.stream).await, Err(Error::StreamNotFound { .. })));
        assert!(matches!(world.bus.groups(&world.stream).await, Err(Error::StreamNotFound { .. })));
        let claimed = world.group("g").claim(claim("c", 10)).await;
        assert!(matches!(claimed, Err(Error::StreamNotFound { .. })), "{claimed:?}");
        assert_eq!(world.bus.delete(&names).await.unwrap(), [false, false, false]);
        world.restart().await;
    }
}

pub async fn a_stream_made_again_begins_anew(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    for round in 0..3 {
        let last = world.publish_numbers(0..10).await[9];
        let known = world.publish(NewEvent::new("10").idempotence_id("once")).await;
        world.group("g").claim(claim("c", 5)).await.unwrap();
        world.bus.delete(std::slice::from_ref(&world.stream)).await.unwrap();
        if round == 1 {
            world.restart().await;
        }
        let again =
            world.bus.publish(&world.stream, vec![NewEvent::new("new").idempotence_id("once")]).await.unwrap()[0];
        assert!(again.id > known && known > last, "a place is never given out twice");
        assert!(!again.duplicate);
        assert_eq!(world.all().await, ["new"]);
        assert_eq!(world.bus.groups(&world.stream).await.unwrap(), []);
        assert_eq!(world.bus.info(&world.stream).await.unwrap().first, Some(again.id));
        world.restart().await;
        assert_eq!(world.all().await, ["new"]);
        world.bus.delete(std::slice::from_ref(&world.stream)).await.unwrap();
    }
}

fn length(length_max: u64) -> Retention {
    Retention { length_max: Some(length_max), age_max: None }
}

pub async fn a_stream_forgets_beyond_its_length(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.retention = length(200)).await;
    for start in (0..3000).step_by(50) {
        world.publish_numbers(start..start + 50).await;
    }
    eventually(async || world.bus.info(&world.stream).await.unwrap().length <= 400).await;
    let all = world.all().await;
    assert!(all.len() >= 200 && all.ends_with(&numbers(2800..3000)), "the newest stay: {}", all.len());
}

pub async fn a_stream_forgets_what_is_too_old(open: impl Fn(Config) -> Opening + 'static) {
    let age_max = Some(Duration::from_millis(300));
    let world = World::new(open, |config| config.retention = Retention { length_max: None, age_max }).await;
    let old = world.publish_numbers(0..500).await;
    assert_eq!(world.all().await.len(), 500);
    eventually(async || {
        world.publish(NewEvent::new("later")).await;
        world.read(Read::default()).await.events[0].id > old[300]
    })
    .await;
    world.publish(NewEvent::new("newest")).await;
    assert_eq!(world.all().await.last().unwrap(), "newest");
}

pub async fn patterns_have_their_own_retention(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| {
        config.retention = length(100);
        config.retentions = vec![(Pattern::new("audit.**").unwrap(), Retention { length_max: None, age_max: None })];
    })
    .await;
    let publish = async |name: &str| {
        for _ in 0..5 {
            world.bus.publish(&stream(name), vec![NewEvent::new("1"); 200]).await.unwrap();
        }
    };
    publish("audit.logins").await;
    publish("clicks").await;
    eventually(async || world.bus.info(&stream("clicks")).await.unwrap().length <= 300).await;
    assert_eq!(world.bus.info(&stream("audit.logins")).await.unwrap().length, 1000);
}

pub async fn trimming_and_publishing_go_on_together(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish_numbers(0..1000).await;
    let publish = async {
        for start in (1000..6000).step_by(100) {
            world.publish_numbers(start..start + 100).await;
        }
    };
    let trim = async {
        let mut removed = 0;
        for _ in 0..20 {
            removed += world.bus.trim(&world.stream, Trim::MaxLength(100)).await.unwrap();
        }
        removed
    };
    let (removed, ()) = tokio::join!(trim, publish);
    let all = world.all().await;
    assert_eq!(all, numbers(removed as usize..6000), "what is kept has no hole, and what is gone was counted");
    assert_eq!(world.bus.info(&world.stream).await.unwrap().length, 6000 - removed);
}
