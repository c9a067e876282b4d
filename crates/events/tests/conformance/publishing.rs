//! What goes in.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidegate_events::{Config, Error, NewEvent, Read};

use super::{Opening, World, numbers, stream};

fn full() -> NewEvent {
    NewEvent {
        source: Some("/shop".into()),
        subject: Some("größe".into()),
        ..NewEvent::new(r#"{"b": 1.0,"a":1e400 , "a":"\u00e9"}"#)
            .kind("order.created")
            .key("customer 7")
            .idempotence_id("o-1")
    }
}

pub async fn an_event_comes_back_byte_for_byte(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let id = world.publish(full()).await;
    world.restart().await;
    world.publish(NewEvent::new("2")).await;
    let events = world.all_events().await;
    let NewEvent { data, kind, key, source, subject, idempotence_id } = full();
    assert_eq!((events[0].id, &events[0].data, &events[0].kind), (id, &data, &kind));
    assert_eq!((&events[0].key, &events[0].source, &events[0].subject), (&key, &source, &subject));
    assert_eq!(events[0].idempotence_id, idempotence_id);
    assert_eq!((&events[1].kind, &events[1].key, &events[1].idempotence_id), (&None, &None, &None));
}

pub async fn hostile_text_is_kept_as_it_is(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let huge = "ö".repeat(1 << 19);
    let texts = [
        "",
        " ",
        "\0",
        "a\nb\r\nc\rd",
        "data: x\n\nid: 1-1\n\n",
        "*3\r\n$4\r\n",
        "\u{feff}\u{202e}{}",
        "not JSON",
        &huge,
    ];
    for text in texts {
        world.publish(NewEvent::new(text.to_owned())).await;
    }
    assert_eq!(world.all().await, texts);
    let attribute = "x".repeat(256);
    world.publish(NewEvent::new("{}").kind(attribute.clone()).key("🦀").idempotence_id(attribute.clone())).await;
    let last = world.all_events().await.pop().unwrap();
    assert_eq!((last.kind, last.key), (Some(attribute.clone().into()), Some("🦀".into())));
    assert_eq!(last.idempotence_id, Some(attribute.into()));
}

pub async fn events_of_one_call_stand_together(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let (first, second, third) =
        tokio::join!(world.publish_numbers(0..100), world.publish_numbers(100..101), world.publish_numbers(101..400));
    let mut ids = [first.clone(), second.clone(), third.clone()].concat();
    assert!(first.is_sorted() && second.is_sorted() && third.is_sorted());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 400, "no place is given out twice");
    let all = world.all().await;
    let start = all.iter().position(|text| text == "101").unwrap();
    assert_eq!(all[start..start + 299], numbers(101..400), "nobody came in between");
    let places: Vec<_> = world.all_events().await.iter().map(|event| event.id).collect();
    assert_eq!(places, ids);
}

pub async fn publishing_nothing_makes_no_stream(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    assert!(world.bus.publish(&world.stream, vec![]).await.unwrap().is_empty());
    assert!(matches!(world.bus.info(&world.stream).await, Err(Error::StreamNotFound { .. })));
}

pub async fn the_same_idempotence_id_is_one_event(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let event = |text: &'static str| NewEvent::new(text).idempotence_id("same");
    let first = world.bus.publish(&world.stream, vec![event("1")]).await.unwrap()[0];
    world.publish(NewEvent::new("2").idempotence_id("other")).await;
    let again = world.bus.publish(&world.stream, vec![event("3")]).await.unwrap()[0];
    assert_eq!((first.duplicate, again.duplicate, again.id), (false, true, first.id));
    assert_eq!(world.all().await, ["1", "2"]);
    let elsewhere = world.bus.publish(&stream("elsewhere"), vec![event("4")]).await.unwrap()[0];
    assert!(!elsewhere.duplicate, "ids count within their stream");
    assert_eq!(world.bus.stats().published, 3);
}

pub async fn a_call_may_mix_new_events_and_old_ones(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let known = world.publish(NewEvent::new("0").idempotence_id("a")).await;
    let events = vec![
        NewEvent::new("1"),
        NewEvent::new("2").idempotence_id("b"),
        NewEvent::new("3").idempotence_id("a"),
        NewEvent::new("4").idempotence_id("b"),
        NewEvent::new("5"),
    ];
    let published = world.bus.publish(&world.stream, events).await.unwrap();
    let duplicates: Vec<_> = published.iter().map(|published| published.duplicate).collect();
    assert_eq!(duplicates, [false, false, true, true, false]);
    assert_eq!((published[2].id, published[3].id), (known, published[1].id));
    assert_eq!(world.all().await, ["0", "1", "2", "5"]);
    let ids: Vec<_> = world.all_events().await.iter().map(|event| event.id).collect();
    assert_eq!(ids, [known, published[0].id, published[1].id, published[4].id]);
}

pub async fn idempotence_survives_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let id = world.publish(full()).await;
    world.restart().await;
    let again = world.bus.publish(&world.stream, vec![full()]).await.unwrap()[0];
    assert_eq!((again.id, again.duplicate), (id, true));
}

pub async fn idempotence_ids_are_bounded(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.idempotence_max = 3).await;
    let event = |no: usize| NewEvent::new(no.to_string()).idempotence_id(format!("id {no}"));
    for no in 0..10 {
        world.publish(event(no)).await;
    }
    let again = world.bus.publish(&world.stream, vec![event(9), event(8), event(0)]).await.unwrap();
    assert_eq!(again.iter().map(|published| published.duplicate).collect::<Vec<_>>(), [true, true, false]);
}

pub async fn many_publishers_lose_nothing_and_keep_their_order(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let publisher = |publisher: usize| {
        let (bus, stream) = (world.bus.clone(), world.stream.clone());
        tokio::spawn(async move {
            for no in 0..20 {
                let events = (0..=no % 3).map(|part| NewEvent::new(format!("{publisher:02} {no:02} {part}"))).collect();
                bus.publish(&stream, events).await.unwrap();
            }
        })
    };
    let publishers: Vec<_> = (0..64).map(publisher).collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let all = world.all().await;
    assert_eq!(all.len(), 64 * (20 + 13 + 6));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for publisher in 0..64 {
        let own: Vec<_> = all.iter().filter(|text| text.starts_with(&format!("{publisher:02} "))).collect();
        assert!(own.is_sorted(), "publisher {publisher}");
    }
    assert!(world.all_events().await.is_sorted_by_key(|event| event.id));
}

pub async fn the_same_event_from_many_is_one(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let publisher = |_| {
        let (bus, stream) = (world.bus.clone(), world.stream.clone());
        tokio::spawn(async move {
            let published = bus.publish(&stream, vec![NewEvent::new("1").idempotence_id("same")]).await.unwrap()[0];
            let page = bus.read(&stream, Read::default()).await.unwrap();
            assert_eq!(page.events[0].id, published.id, "also a duplicate is answered once it can be read");
            usize::from(!published.duplicate)
        })
    };
    let publishers: Vec<_> = (0..64).map(publisher).collect();
    let mut new = 0;
    for publisher in publishers {
        new += publisher.await.unwrap();
    }
    assert_eq!((new, world.all().await.len()), (1, 1));
}

pub async fn what_cannot_be_kept_is_refused_by_name(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| (config.event_bytes_max, config.batch_max) = (100, 3)).await;
    let plain = || NewEvent::new("{}");
    let refused = [
        ("data", NewEvent::new(vec![b' '; 101])),
        ("data", NewEvent::new(Bytes::from_static(b"\xff"))),
        ("type", plain().kind("a\nb")),
        ("type", plain().kind("")),
        ("key", plain().key("x".repeat(257))),
        ("key", plain().key(Bytes::from_static(b"\xff"))),
        ("source", NewEvent { source: Some("\0".into()), ..plain() }),
        ("subject", NewEvent { subject: Some("\r".into()), ..plain() }),
        ("id", plain().idempotence_id("\u{7f}")),
    ];
    for (field, event) in refused {
        match world.bus.publish(&world.stream, vec![plain(), event]).await {
            Err(Error::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let many = world.bus.publish(&world.stream, vec![plain(); 4]).await;
    assert!(matches!(many, Err(Error::Invalid { field: "events", .. })), "{many:?}");
    assert!(world.bus.info(&world.stream).await.is_err(), "nothing of a refused call is published");
    world.publish(NewEvent::new(vec![b' '; 100])).await;
}

pub async fn ids_ascend_over_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let mut ids = world.publish_numbers(0..50).await;
    world.restart().await;
    ids.extend(world.publish_numbers(50..100).await);
    assert!(ids.is_sorted());
    assert_eq!(world.all().await, numbers(0..100));
}

pub async fn a_draining_bus_takes_nothing(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish(NewEvent::new("1")).await;
    world.bus.drain();
    let refused = world.bus.publish(&world.stream, vec![NewEvent::new("2")]).await;
    assert!(matches!(refused, Err(Error::Draining)), "{refused:?}");
    assert_eq!(world.all().await, ["1"], "reading goes on");
}
