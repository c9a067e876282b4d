//! Handlers: what runs for which event, and what becomes of one that fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidegate_events::{
    Bus, Config, Consumed, ConsumerConfig, GroupName, NewEvent, Pattern, Read, Source, StreamName, TABLES,
};
use tidegate_metrics::Registry;
use tokio::sync::mpsc;

async fn bus(deliveries_max: u32) -> Bus {
    let store = tidegate_store::Store::memory(TABLES);
    Bus::open(store, 0, Config { deliveries_max, ..Config::default() }, &Registry::new()).await.unwrap()
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn config() -> ConsumerConfig {
    let backoff = (Duration::from_millis(1), Duration::from_millis(4));
    ConsumerConfig { backoff, ..ConsumerConfig::new("one") }
}

async fn publish(bus: &Bus, to: &str, kind: &'static str, data: &'static str) {
    bus.publish(&stream(to), vec![NewEvent::new(data).kind(kind)]).await.unwrap();
}

#[tokio::test]
async fn handlers_get_the_types_they_asked_for_from_streams_made_later() {
    let bus = bus(5).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = |name: &'static str| {
        let tell = tell.clone();
        move |event: Consumed| {
            let said = (name, event.stream.to_string(), String::from_utf8(event.delivery.event.data.to_vec()).unwrap());
            let tell = tell.clone();
            async move { tell.send(said) }
        }
    };
    publish(&bus, "shop.eu", "order.created", "1").await;
    let consumer = bus
        .consumer(GroupName::new("g").unwrap(), config())
        .consume(Source::parse("shop.*").unwrap())
        .handle(&Pattern::new("order.*").unwrap(), handler("one"))
        .handle(&Pattern::new("order.**").unwrap(), handler("any"))
        .start(&Registry::new())
        .await
        .unwrap();
    let said = |name, stream: &str, data: &str| (name, stream.to_owned(), data.to_owned());
    assert_eq!(told.recv().await.unwrap(), said("one", "shop.eu", "1"), "from the beginning");
    assert_eq!(told.recv().await.unwrap(), said("any", "shop.eu", "1"));
    publish(&bus, "shop.us", "order.line.added", "2").await;
    assert_eq!(told.recv().await.unwrap(), said("any", "shop.us", "2"), "a stream made later");
    publish(&bus, "shop.us", "user.created", "3").await;
    publish(&bus, "shop.us", "order.paid", "4").await;
    assert_eq!(told.recv().await.unwrap(), said("one", "shop.us", "4"), "nobody asked for 3");
    consumer.stop().await;
    assert_eq!((consumer.stats().streams, consumer.stats().unrouted, consumer.stats().handled), (2, 1, 3));
    bus.close().await.unwrap();
}

#[tokio::test]
async fn what_fails_is_tried_again_and_put_aside_once_where_its_own_handlers_leave_it() {
    let bus = bus(3).await;
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    let consumer = bus
        .consumer(GroupName::new("g").unwrap(), config())
        .consume(Source::parse("**").unwrap())
        .handle(&Pattern::new("**").unwrap(), move |event: Consumed| {
            let count = Arc::clone(&count);
            async move {
                match &event.delivery.event.data[..] {
                    b"\"fails\"" => Err(format!("try {}", count.fetch_add(1, Ordering::SeqCst) + 1)),
                    b"\"panics\"" => panic!("planted"),
                    _ => Ok(()),
                }
            }
        })
        .start(&Registry::new())
        .await
        .unwrap();
    let mut heard = bus.listen(tidegate_events::Listen::to(vec![Source::parse("jobs.dead.g").unwrap()])).await.unwrap();
    publish(&bus, "jobs", "t", "\"fails\"").await;
    heard.next().await.unwrap();
    publish(&bus, "jobs", "t", "\"panics\"").await;
    heard.next().await.unwrap();
    let letters = bus.read(&stream("jobs.dead.g"), Read::default()).await.unwrap().events;
    let text = |letter: usize| String::from_utf8(letters[letter].data.to_vec()).unwrap();
    assert!(text(0).contains(r#""deliveries":3,"error":"try 3""#) && text(1).contains("panicked"), "{letters:?}");
    consumer.stop().await;
    assert_eq!((tries.load(Ordering::SeqCst), letters.len(), consumer.stats().streams), (3, 2, 1));
    bus.close().await.unwrap();
}
