//! Workloads for event streams: publishers, listeners, consumer groups, and bare commands of Redis beside them.

use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_events::{Bus, Claim, Config, GroupName, Heard, Listen, Listener, NewEvent, Source, StreamName, TABLES};
use tidegate_metrics::Registry;
use tidegate_store::{Durability, Store};
use tidegate_test_redis::{Connection, Server};
use tokio::task::JoinSet;

use crate::measure::{count, rate};
use crate::redis;

/// What an event says, 51 bytes.
pub const DATA: &str = r#"{"order":1000000042,"state":"paid","amount":"17.5"}"#;
const KIND: &str = "order.paid";

/// A bus of its own, as another process has it.
///
/// # Panics
/// When there is no Redis.
pub async fn on_redis(server: &Server) -> Bus {
    let redis = redis::connect(server).await;
    Bus::connect(redis, Config::default(), &Registry::new()).await.expect("a bus")
}

/// A bus on a store in this folder.
///
/// # Panics
/// When it cannot be opened.
pub async fn on_disk(folder: &Path, durability: Durability) -> Bus {
    let config = tidegate_store::Config { durability, ..tidegate_store::Config::new(folder) };
    let store = Store::open(config, TABLES, &Registry::new()).expect("a store");
    Bus::open(store, 0, Config::default(), &Registry::new()).await.expect("a bus")
}

/// A stream.
///
/// # Panics
/// When it is no name.
#[must_use]
pub fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a name")
}

/// An event like all others.
#[must_use]
pub fn event() -> NewEvent {
    NewEvent::new(DATA).kind(KIND)
}

/// Events per second of callers who each await every event of theirs.
pub async fn publish_each(bus: &Bus, callers: usize, time: Duration) -> f64 {
    rate(callers, time, |until| {
        let (bus, stream) = (bus.clone(), stream("bench"));
        count(until, async move || drop(bus.publish(&stream, vec![event()]).await.expect("published")))
    })
    .await
}

/// Events per second of one caller who brings many at a time.
pub async fn publish_chunks(bus: &Bus, events: usize, chunk: usize) -> f64 {
    let (stream, started) = (stream("bench"), Instant::now());
    for _ in 0..events / chunk {
        bus.publish(&stream, vec![event(); chunk]).await.expect("published");
    }
    events as f64 / started.elapsed().as_secs_f64()
}

/// `XADD` by a client that does nothing else, one after the other.
///
/// # Panics
/// When Redis goes away.
pub async fn xadd_each(server: &Server, time: Duration) -> f64 {
    let client = ::redis::Client::open(server.url()).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await.expect("a Redis");
    rate(1, time, |until| {
        let connection = connection.clone();
        count(until, async move || {
            xadd("bench").query_async::<String>(&mut connection.clone()).await.expect("an id");
        })
    })
    .await
}

/// The same in pipelines.
///
/// # Panics
/// When Redis goes away.
pub async fn xadd_pipelined(server: &Server, length: usize, time: Duration) -> f64 {
    let client = ::redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a Redis");
    let mut pipe = ::redis::pipe();
    for _ in 0..length {
        pipe.add_command(xadd("bench"));
    }
    let (started, mut added) = (Instant::now(), 0);
    while started.elapsed() < time {
        added += pipe.query_async::<Vec<String>>(&mut connection).await.expect("ids").len();
    }
    added as f64 / started.elapsed().as_secs_f64()
}

fn xadd(stream: &str) -> ::redis::Cmd {
    let mut command = ::redis::cmd("XADD");
    for word in [stream, "*", "tg", "1", "type", KIND, "data", DATA] {
        command.arg(word);
    }
    command
}

/// A listener of one stream, from now on.
///
/// # Panics
/// When the bus refuses.
pub async fn listen(bus: &Bus, name: &str) -> Listener {
    let listen = Listen::to(vec![Source::Stream(stream(name))]);
    bus.listen(listen).await.expect("a listener")
}

/// Between two timed events: 1000 a second at most.
const INTERVAL: Duration = Duration::from_millis(1);

/// From the call of publish until a listener of the same process has the event, `samples` times, one stream after the other.
///
/// # Panics
/// When something else is heard.
pub async fn publish_latencies(
    bus: &Bus,
    names: &[String],
    listeners: &mut [Listener],
    samples: usize,
) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(samples);
    for turn in 0..samples {
        tokio::time::sleep(INTERVAL).await;
        // Neighbours in the list are not neighbours in time.
        let at = turn * 7919 % names.len();
        let stream = stream(&names[at]);
        let started = Instant::now();
        let (published, heard) = tokio::join!(bus.publish(&stream, vec![event()]), async {
            let heard = listeners[at].next().await;
            (heard, started.elapsed())
        });
        published.expect("published");
        assert!(matches!(heard.0, Some(Heard::Event(..))), "{heard:?}");
        latencies.push(heard.1);
    }
    latencies
}

/// From a foreign `XADD` until a listener has the event.
///
/// # Panics
/// When something else is heard.
pub async fn xadd_latencies(server: &Server, name: &str, listener: &mut Listener, samples: usize) -> Vec<Duration> {
    let mut writer = Connection::tcp(server.addr()).await.expect("a connection");
    let mut latencies = Vec::with_capacity(samples);
    for _ in 0..samples {
        tokio::time::sleep(INTERVAL).await;
        let started = Instant::now();
        let words = ["XADD", name, "*", "data", DATA];
        let (added, heard) = tokio::join!(writer.command(&words), async { (listener.next().await, started.elapsed()) });
        added.expect("an id");
        assert!(matches!(heard.0, Some(Heard::Event(..))), "{heard:?}");
        latencies.push(heard.1);
    }
    latencies
}

/// From `XADD` until a bare blocked `XREAD` has the entry: what is under all of it.
///
/// # Panics
/// When Redis goes away.
pub async fn bare_latencies(server: &Server, samples: usize) -> Vec<Duration> {
    let mut writer = Connection::tcp(server.addr()).await.expect("a connection");
    let mut reader = Connection::tcp(server.addr()).await.expect("a connection");
    let mut latencies = Vec::with_capacity(samples);
    for _ in 0..samples {
        reader.send(&["XREAD", "BLOCK", "0", "STREAMS", "bare", "$"]).await.expect("a connection");
        tokio::time::sleep(INTERVAL).await;
        let started = Instant::now();
        let words = ["XADD", "bare", "*", "data", DATA];
        let (added, read) = tokio::join!(writer.command(&words), async { (reader.reply().await, started.elapsed()) });
        added.expect("an id");
        read.0.expect("an entry");
        latencies.push(read.1);
    }
    latencies
}

/// How long each of many bare `XADD`s takes, one after the other.
///
/// # Panics
/// When Redis goes away.
pub async fn xadd_times(server: &Server, name: &str, samples: usize) -> Vec<Duration> {
    let mut writer = Connection::tcp(server.addr()).await.expect("a connection");
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let started = Instant::now();
        writer.command(&["XADD", name, "*", "data", DATA]).await.expect("an id");
        times.push(started.elapsed());
    }
    times
}

/// Listeners that wait in tasks of their own, until the set is dropped.
pub async fn waiting_listeners(bus: &Bus, names: impl Iterator<Item = String>) -> JoinSet<()> {
    let mut listeners = JoinSet::new();
    for name in names {
        let mut listener = listen(bus, &name).await;
        listeners.spawn(async move { while listener.next().await.is_some() {} });
    }
    listeners
}

/// Events per second that consumers claim and acknowledge, `batch` at a time.
///
/// # Panics
/// When not all of them are delivered.
pub async fn claim_and_ack(bus: &Bus, consumers: usize, batch: usize, events: usize) -> f64 {
    let group = bus.group(&stream("bench"), &GroupName::new("bench").expect("a name"));
    let (started, mut claiming) = (Instant::now(), JoinSet::new());
    for consumer in 0..consumers {
        let group = group.clone();
        claiming.spawn(async move {
            let mut done = 0;
            loop {
                let claim = Claim { limit: batch, ..Claim::new(format!("consumer{consumer}")) };
                let ids: Vec<_> =
                    group.claim(claim).await.expect("a claim").iter().map(|delivery| delivery.event.id).collect();
                if ids.is_empty() {
                    return done;
                }
                done +=
                    group.ack(&ids).await.expect("acknowledged").iter().filter(|acknowledged| **acknowledged).count();
            }
        });
    }
    let done: usize = claiming.join_all().await.into_iter().sum();
    assert_eq!(done, events);
    events as f64 / started.elapsed().as_secs_f64()
}
