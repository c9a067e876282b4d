//! Buses on Redis servers that are about to fail, and what is heard and kept meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_events::{
    Bus, Config, Cursor, Error, Event, EventId, Gap, Heard, Listen, Listener, NewEvent, Read, Source, StreamName,
};
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Class, Redis};
use tidegate_test_redis::Server;
use tokio::time::{sleep, timeout};

/// Longer than anything takes that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn open(url: &str, config: Config) -> Bus {
    let registry = Registry::new();
    let redis = Redis::connect(tidegate_redis_ops::Config::parse(url).unwrap(), &registry).await.unwrap();
    Bus::connect(redis, config, &registry).await.unwrap()
}

pub async fn on(server: &Server) -> Bus {
    open(&server.url(), Config::default()).await
}

pub fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

pub async fn publish(bus: &Bus, name: &str, text: &str) -> Result<EventId, Error> {
    Ok(bus.publish(&stream(name), vec![NewEvent::new(text.to_owned())]).await?[0].id)
}

/// Until it is acknowledged: under its own idempotence id, so never twice.
pub async fn publish_surely(bus: &Bus, name: &str, text: &str) -> EventId {
    let event = NewEvent::new(text.to_owned()).idempotence_id(text.to_owned());
    loop {
        match bus.publish(&stream(name), vec![event.clone()]).await {
            Ok(published) => return published[0].id,
            Err(error) => assert!(error.is_retryable() || is_starting(&error), "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub fn is_starting(error: &Error) -> bool {
    matches!(error, Error::Redis(error) if error.class() != Class::Fatal)
}

pub async fn listen(bus: &Bus, names: &[&str], from: Option<Cursor>) -> Listener {
    let sources = names.iter().map(|name| Source::parse(name).unwrap()).collect();
    bus.listen(Listen { from, ..Listen::to(sources) }).await.unwrap()
}

pub async fn next(listener: &mut Listener) -> Heard {
    timeout(PATIENCE, listener.next()).await.expect("something is heard").expect("the listener goes on")
}

pub fn text(event: &Event) -> String {
    String::from_utf8(event.data.to_vec()).unwrap()
}

pub async fn next_text(listener: &mut Listener) -> String {
    match next(listener).await {
        Heard::Event(_, event) => text(&event),
        Heard::Gap(stream, gap) => panic!("a gap in {stream}: {gap:?}"),
    }
}

pub async fn next_gap(listener: &mut Listener) -> Gap {
    match next(listener).await {
        Heard::Gap(_, gap) => gap,
        Heard::Event(stream, event) => panic!("an event of {stream}: {event:?}"),
    }
}

pub async fn everything(bus: &Bus, name: &str) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(EventId::ZERO, |event| event.id);
        let page = bus.read(&stream(name), Read::after(after, 1000)).await.unwrap();
        events.extend(page.events);
        if !page.more {
            return events;
        }
    }
}

pub fn counted<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    events.into_iter().for_each(|event| *counts.entry(text(event)).or_default() += 1);
    counts
}

pub async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("it comes to be so");
}
