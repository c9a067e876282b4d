//! What Redis or the way to it does to streams must be visible only as waiting, as an error or as a gap: no event lost, none
//! heard twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_events::{
    Bus, Claim, Config, Cursor, Error, Event, EventId, Gap, GapReason, GroupName, Heard, Listen, Listener, NewEvent,
    Read, Source, StreamName,
};
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Class, Redis};
use tidegate_test_redis::{Cluster, Fsync, Persistence, Proxy, Sentinel, Server, Toward};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open(url: &str, config: Config) -> Bus {
    let registry = Registry::new();
    let redis = Redis::connect(tidegate_redis_ops::Config::parse(url).unwrap(), &registry).await.unwrap();
    Bus::connect(redis, config, &registry).await.unwrap()
}

async fn on(server: &Server) -> Bus {
    open(&server.url(), Config::default()).await
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

async fn publish(bus: &Bus, name: &str, text: &str) -> Result<EventId, Error> {
    Ok(bus.publish(&stream(name), vec![NewEvent::new(text.to_owned())]).await?[0].id)
}

/// Until it is acknowledged: under its own idempotence id, so never twice.
async fn publish_surely(bus: &Bus, name: &str, text: &str) -> EventId {
    let event = NewEvent::new(text.to_owned()).idempotence_id(text.to_owned());
    loop {
        match bus.publish(&stream(name), vec![event.clone()]).await {
            Ok(published) => return published[0].id,
            Err(error) => assert!(error.is_retryable() || is_starting(&error), "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn is_starting(error: &Error) -> bool {
    matches!(error, Error::Redis(error) if error.class() != Class::Fatal)
}

async fn listen(bus: &Bus, names: &[&str], from: Option<Cursor>) -> Listener {
    let sources = names.iter().map(|name| Source::parse(name).unwrap()).collect();
    bus.listen(Listen { from, ..Listen::to(sources) }).await.unwrap()
}

async fn next(listener: &mut Listener) -> Heard {
    timeout(PATIENCE, listener.next()).await.expect("something is heard").expect("the listener goes on")
}

fn text(event: &Event) -> String {
    String::from_utf8(event.data.to_vec()).unwrap()
}

async fn next_text(listener: &mut Listener) -> String {
    match next(listener).await {
        Heard::Event(_, event) => text(&event),
        Heard::Gap(stream, gap) => panic!("a gap in {stream}: {gap:?}"),
    }
}

async fn next_gap(listener: &mut Listener) -> Gap {
    match next(listener).await {
        Heard::Gap(_, gap) => gap,
        Heard::Event(stream, event) => panic!("an event of {stream}: {event:?}"),
    }
}

async fn everything(bus: &Bus, name: &str) -> Vec<Event> {
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

fn counted<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    events.into_iter().for_each(|event| *counts.entry(text(event)).or_default() += 1);
    counts
}

async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("it comes to be so");
}

/// A server, a proxy in front of it, and the same streams by way of the proxy and directly.
struct Place {
    proxy: Proxy,
    through: Bus,
    direct: Bus,
    _server: Server,
}

impl Place {
    async fn new() -> Self {
        let server = Server::start().await;
        let proxy = Proxy::start(server.addr());
        let through = open(&server.url_through(&proxy), Config::default()).await;
        Self { direct: on(&server).await, proxy, through, _server: server }
    }

    /// Calls `act` once for every byte of its request and of its reply, each time with the connection cut there.
    async fn cut_everywhere(&self, mut act: impl AsyncFnMut(&Self)) {
        // So that every connection is there and the script is known.
        for _ in 0..4 {
            act(self).await;
        }
        let before = self.proxy.traffic();
        act(self).await;
        let after = self.proxy.traffic();
        let lengths = [
            (Toward::Server, after.to_server - before.to_server),
            (Toward::Client, after.to_client - before.to_client),
        ];
        for (toward, length) in lengths {
            for byte in 0..length {
                // One connection is always left to go on with, and none is cut so soon that it is dialled with a pause.
                eventually(async || self.proxy.traffic().open >= before.open).await;
                sleep(Duration::from_millis(21)).await;
                let cuts = self.proxy.traffic().cuts;
                self.proxy.cut_once(toward, byte);
                act(self).await;
                // The numbers in a request grow: the last bytes of the longest may be missing from a shorter one.
                assert!(self.proxy.traffic().cuts > cuts || byte + 8 > length, "byte {byte} of {length} was not cut");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_cut_at_any_byte_publishes_once() {
    let place = Place::new().await;
    let mut published = BTreeMap::new();
    place
        .cut_everywhere(async |place| {
            let text = format!("event-{:06}", published.len());
            let id = publish(&place.through, "s", &text).await.unwrap();
            published.insert(id, text);
        })
        .await;
    let kept = everything(&place.direct, "s").await;
    assert_eq!(kept.len(), published.len(), "none lost, none twice");
    assert!(kept.iter().all(|event| published[&event.id] == text(event)), "each under the id that was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_cut_at_any_byte_is_told_or_done() {
    let place = Place::new().await;
    let group = GroupName::new("g").unwrap();
    let (through, direct) = (place.through.group(&stream("s"), &group), place.direct.group(&stream("s"), &group));
    place
        .cut_everywhere(async |place| {
            publish(&place.direct, "s", "1").await.unwrap();
            let id = direct.claim(Claim::new("c")).await.unwrap()[0].event.id;
            match through.ack(&[id]).await {
                Ok(acknowledged) => assert_eq!(acknowledged, [true]),
                Err(Error::Redis(error)) => {
                    // So many cuts without a success between them may open the breaker: then it is certainly not done.
                    assert!(matches!(error.class(), Class::Ambiguous | Class::Transient), "{error}");
                    let done = direct.ack(&[id]).await.unwrap();
                    assert!(error.class() == Class::Ambiguous || done == [true], "{error}");
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(direct.pending(EventId::ZERO, 10).await.unwrap(), []);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_hear_every_event_once_while_connections_are_killed() {
    kill_connections_for(Duration::from_secs(3), Config::default()).await;
    kill_connections_for(Duration::from_secs(3), Config { direct_streams_max: 1, ..Config::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn listeners_hear_every_event_once_while_connections_are_killed_for_a_minute() {
    kill_connections_for(Duration::from_secs(60), Config::default()).await;
}

/// Every 50 ms, while eight callers publish to two streams.
async fn kill_connections_for(time: Duration, config: Config) {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, open(&server.url(), config).await);
    let mut listener = listen(&there, &["s0", "s1"], None).await;
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let publishers: Vec<_> = (0..8)
        .map(|publisher| {
            let (bus, over, acknowledged) = (here.clone(), Arc::clone(&over), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let (mut known, mut unknown) = (Vec::new(), Vec::new());
                for turn in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let text = format!("{publisher}-{turn}");
                    match publish(&bus, &format!("s{}", publisher % 2), &text).await {
                        Ok(_) => known.push(text),
                        Err(Error::Redis(error)) if error.class() == Class::Ambiguous => unknown.push(text),
                        Err(Error::Redis(error)) if error.class() == Class::Transient => {}
                        Err(error) => panic!("{error}"),
                    }
                    acknowledged.store(known.len(), Ordering::Relaxed);
                }
                (known, unknown)
            })
        })
        .collect();
    let until = Instant::now() + time;
    while Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
        server.client_kill_all().await;
    }
    over.store(true, Ordering::SeqCst);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for publisher in publishers {
        let (mine, mine_unknown) = publisher.await.unwrap();
        known.extend(mine);
        unknown.extend(mine_unknown);
    }
    publish_surely(&here, "s0", "end").await;
    publish_surely(&here, "s1", "end").await;
    let (mut heard, mut ends) = (Vec::new(), 0);
    while ends < 2 {
        match next(&mut listener).await {
            Heard::Event(_, event) if event.data == "end" => ends += 1,
            Heard::Event(_, event) => heard.push(event),
            Heard::Gap(stream, gap) => panic!("a gap in {stream}: {gap:?}"),
        }
    }
    let heard = counted(&heard);
    assert!(heard.values().all(|times| *times == 1), "none twice");
    assert!(known.iter().all(|text| heard.contains_key(text)), "none lost");
    assert!(heard.len() <= known.len() + unknown.len(), "nothing that was refused is heard");
    assert!(known.len() > 20, "{} acknowledged, {} unknown", known.len(), unknown.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_syncs_every_write_loses_nothing_and_no_gap_is_told() {
    for direct_streams_max in [100, 1] {
        let server = Server::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
        let here = on(&server).await;
        let there = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let mut listener = listen(&there, &["a", "b"], None).await;
        let publishing = async {
            for turn in 0..300 {
                publish_surely(&here, ["a", "b"][turn % 2], &turn.to_string()).await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        let killing = async {
            for _ in 0..3 {
                sleep(Duration::from_millis(400)).await;
                server.kill();
                server.restart().await;
            }
        };
        let hearing = async {
            let mut heard = Vec::new();
            for _ in 0..300 {
                heard.push(next_text(&mut listener).await.parse::<usize>().unwrap());
            }
            heard
        };
        let ((), (), mut heard) = tokio::join!(publishing, killing, hearing);
        heard.sort_unstable();
        assert!(heard.into_iter().eq(0..300), "each once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redis_forgot_in_a_restart_is_told_as_a_gap() {
    for direct_streams_max in [100, 1] {
        let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
        let config = Config { direct_streams_max, ..Config::default() };
        let bus = open(&server.url(), config).await;
        let (mut one, mut other) = (listen(&bus, &["s"], None).await, listen(&bus, &["t"], None).await);
        for turn in 0..10 {
            publish(&bus, "s", &turn.to_string()).await.unwrap();
            publish(&bus, "t", &turn.to_string()).await.unwrap();
            assert_eq!(next_text(&mut one).await, turn.to_string());
            assert_eq!(next_text(&mut other).await, turn.to_string());
        }
        server.kill();
        truncate_aof(&server, 600);
        server.restart().await;
        publish_surely(&bus, "s", "after").await;
        publish_surely(&bus, "t", "after").await;
        // The end that was heard is gone, and the restart itself is told unless both are the same.
        for listener in [&mut one, &mut other] {
            let mut reasons = Vec::new();
            let event = loop {
                match next(listener).await {
                    Heard::Gap(_, gap) => reasons.push(gap.reason),
                    Heard::Event(_, event) => break event,
                }
            };
            assert_eq!(text(&event), "after");
            assert!(!reasons.is_empty(), "a loss is told");
        }
    }
}

/// Cuts the last bytes off the file that is appended to.
fn truncate_aof(server: &Server, bytes: u64) {
    let folder = server.folder().join("appendonlydir");
    let files = std::fs::read_dir(&folder).or_else(|_| std::fs::read_dir(server.folder())).unwrap();
    let last = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".aof") && !path.to_string_lossy().contains("base"))
        .max();
    let file = std::fs::File::options().write(true).open(last.expect("an append-only file")).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(bytes)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_told_to_listeners_before_what_came_after_it() {
    for direct_streams_max in [100, 1] {
        let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
        let writer = on(&server).await;
        let bus = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let mut listeners = [listen(&bus, &["s"], None).await, listen(&bus, &["t"], None).await];
        for turn in 0..5 {
            for name in ["s", "t"] {
                publish_surely(&writer, name, &format!("{turn} before")).await;
            }
            for listener in &mut listeners {
                assert_eq!(next_text(listener).await, format!("{turn} before"));
            }
            server.restart().await;
            for name in ["s", "t"] {
                publish_surely(&writer, name, &format!("{turn} after")).await;
            }
            for listener in &mut listeners {
                assert_eq!(next_gap(listener).await.reason, GapReason::Restarted);
                assert_eq!(next_text(listener).await, format!("{turn} after"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_told_to_listeners_that_come_back_elsewhere_later() {
    let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
    let bus = on(&server).await;
    let before = publish(&bus, "s", "before").await.unwrap();
    // Durable before the kill, so that only the restart itself tells of what may be missing.
    server.stop().await;
    server.restart().await;
    // The restart happened in the second Redis says, so what comes next must come after that second.
    sleep(Duration::from_millis(1100)).await;
    publish_surely(&bus, "s", "after").await;
    bus.close().await.unwrap();
    for _ in 0..2 {
        let later = on(&server).await;
        let mut listener = listen(&later, &["s"], Some(Cursor::at(before))).await;
        assert_eq!(next_gap(&mut listener).await.reason, GapReason::Restarted);
        assert_eq!(next_text(&mut listener).await, "after");
        later.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_nobody_saw_is_noticed_by_who_comes_next() {
    let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
    let bus = on(&server).await;
    let before = publish(&bus, "s", "before").await.unwrap();
    bus.close().await.unwrap();
    drop(bus);
    server.restart().await;
    sleep(Duration::from_millis(1100)).await;
    let later = on(&server).await;
    publish(&later, "s", "after").await.unwrap();
    let mut listener = listen(&later, &["s"], Some(Cursor::at(before))).await;
    assert_eq!(next_gap(&mut listener).await.reason, GapReason::Restarted);
    assert_eq!(next_text(&mut listener).await, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_told_as_a_gap() {
    let sentinel = Sentinel::start().await;
    let bus = open(&sentinel.url(), Config::default()).await;
    let mut listener = listen(&bus, &["s"], None).await;
    for turn in 0..5 {
        publish(&bus, "s", &turn.to_string()).await.unwrap();
        assert_eq!(next_text(&mut listener).await, turn.to_string());
    }
    let former = sentinel.kill_primary().await;
    sentinel.wait_for_promotion(former).await;
    publish_surely(&bus, "s", "after").await;
    let gap = next_gap(&mut listener).await;
    assert!(matches!(gap.reason, GapReason::Restarted | GapReason::Rewound), "{gap:?}");
    loop {
        match next(&mut listener).await {
            Heard::Event(_, event) => {
                assert_eq!(text(&event), "after");
                break;
            }
            Heard::Gap(_, gap) => assert_ne!(gap.reason, GapReason::Trimmed),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_on_a_cluster_go_on_after_a_failover() {
    let cluster = Cluster::start().await;
    let bus = open(&cluster.url(), Config::default()).await;
    let names = ["a", "b", "c", "d"];
    let mut listeners = Vec::new();
    for name in names {
        listeners.push(listen(&bus, &[name], None).await);
        publish(&bus, name, "before").await.unwrap();
    }
    for listener in &mut listeners {
        assert_eq!(next_text(listener).await, "before");
    }
    cluster.kill_primary_of("a").await;
    cluster.wait_for_failover("a").await;
    for (name, listener) in names.iter().zip(&mut listeners) {
        publish_surely(&bus, name, "after").await;
        loop {
            match next(listener).await {
                Heard::Event(_, event) => {
                    assert_eq!(text(&event), "after", "none twice");
                    break;
                }
                // What the replica did not have yet.
                Heard::Gap(_, gap) => assert_eq!(gap.reason, GapReason::Rewound),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_is_told_as_a_gap() {
    for direct_streams_max in [100, 1] {
        let server = Server::start().await;
        let bus = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let (mut one, mut other) = (listen(&bus, &["s"], None).await, listen(&bus, &["t"], None).await);
        for name in ["s", "t"] {
            publish(&bus, name, "before").await.unwrap();
        }
        assert_eq!((next_text(&mut one).await, next_text(&mut other).await), ("before".into(), "before".into()));
        server.cli(&["FLUSHALL"]).await;
        assert_eq!(next_gap(&mut one).await.reason, GapReason::Rewound);
        assert_eq!(next_gap(&mut other).await.reason, GapReason::Rewound);
        for name in ["s", "t"] {
            publish(&bus, name, "after").await.unwrap();
        }
        assert_eq!((next_text(&mut one).await, next_text(&mut other).await), ("after".into(), "after".into()));
    }
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start().await;
    let bus = on(&server).await;
    let group = bus.group(&stream("s"), &GroupName::new("g").unwrap());
    for turn in 1..=3 {
        server.cli(&["SCRIPT", "FLUSH"]).await;
        publish(&bus, "s", "1").await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(everything(&bus, "s").await.len(), turn);
        server.cli(&["SCRIPT", "FLUSH"]).await;
        let claimed = group.claim(Claim::new("c")).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(group.ack(&[claimed[0].event.id]).await.unwrap(), [true]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_blocked_read_are_heard_by_the_bell_and_foreign_writers_are_found() {
    let server = Server::start().await;
    let here = on(&server).await;
    let there = open(&server.url(), Config { direct_streams_max: 10, ..Config::default() }).await;
    let names: Vec<String> = (0..300).map(|no| format!("live-{no:03}")).collect();
    let mut listeners = Vec::new();
    for name in &names {
        listeners.push(listen(&there, &[name], None).await);
    }
    for round in 0..3 {
        for name in &names {
            publish(&here, name, &round.to_string()).await.unwrap();
        }
        for listener in &mut listeners {
            assert_eq!(next_text(listener).await, round.to_string());
        }
    }
    // Nobody rings for what others write; who is found writing once is read directly from then on.
    for round in 0..3 {
        for no in [5, 150, 299] {
            server.cli(&["XADD", &names[no], "*", "round", &round.to_string()]).await;
        }
        for no in [5, 150, 299] {
            assert_eq!(next_text(&mut listeners[no]).await, format!(r#"{{"round":"{round}"}}"#));
        }
    }
    // What all of them together hold open: two general connections, the subscriber, one blocked read; and the other bus's.
    let clients = server.cli(&["CLIENT", "LIST"]).await.lines().count();
    assert!(clients <= 2 + 4 + 1, "{clients} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_others_made_is_found_by_those_who_follow_its_pattern() {
    let server = Server::start().await;
    let registry = Registry::new();
    let mut config = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    config.registry.refresh_interval = Duration::from_millis(100);
    config.registry.cache_expiry = Duration::from_millis(200);
    let redis = Redis::connect(config, &registry).await.unwrap();
    let bus = Bus::connect(redis, Config::default(), &registry).await.unwrap();
    let mut listener = listen(&bus, &["order.*"], None).await;
    server.cli(&["XADD", "order.made", "*", "no", "1"]).await;
    server.cli(&["XADD", "other", "*", "no", "1"]).await;
    assert_eq!(next_text(&mut listener).await, r#"{"no":"1"}"#);
    // Made by another process of ours, it is known at once.
    let other = on(&server).await;
    publish(&other, "order.paid", "2").await.unwrap();
    assert_eq!(next_text(&mut listener).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_comes_while_events_come_misses_none() {
    for direct_streams_max in [100, 1] {
        let server = Server::start().await;
        let here = on(&server).await;
        let there = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let over = Arc::new(AtomicBool::new(false));
        let publisher = tokio::spawn({
            let (bus, over) = (here.clone(), Arc::clone(&over));
            async move {
                let mut turn = 0;
                while !over.load(Ordering::SeqCst) {
                    publish(&bus, &format!("s{}", turn % 3), &(turn / 3).to_string()).await.unwrap();
                    turn += 1;
                }
            }
        });
        for turn in 0..60 {
            let mut listener = listen(&there, &[["s0", "s1", "s2"][turn % 3]], None).await;
            let first: u64 = next_text(&mut listener).await.parse().unwrap();
            for further in 1..=20 {
                assert_eq!(next_text(&mut listener).await, (first + further).to_string());
            }
        }
        over.store(true, Ordering::SeqCst);
        publisher.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_no_stream_spoils_nothing_for_others() {
    let server = Server::start().await;
    server.cli(&["SET", "text", "1"]).await;
    for direct_streams_max in [100, 1] {
        let bus = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let mut good = Vec::new();
        for no in 0..5 {
            good.push(listen(&bus, &[&format!("good{no}")], None).await);
        }
        let _bad = listen(&bus, &["text"], None).await;
        for no in 5..10 {
            good.push(listen(&bus, &[&format!("good{no}")], None).await);
        }
        for (no, listener) in good.iter_mut().enumerate() {
            publish(&bus, &format!("good{no}"), "1").await.unwrap();
            assert_eq!(next_text(listener).await, "1");
        }
        let refused = publish(&bus, "text", "1").await;
        assert!(matches!(refused, Err(Error::NotAStream { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_by_another_process_is_told_at_once() {
    let server = Server::start().await;
    let here = on(&server).await;
    let there = open(&server.url(), Config { direct_streams_max: 1, ..Config::default() }).await;
    let (mut one, mut other) = (listen(&there, &["s"], None).await, listen(&there, &["t"], None).await);
    for name in ["s", "t"] {
        publish(&here, name, "1").await.unwrap();
    }
    assert_eq!((next_text(&mut one).await, next_text(&mut other).await), ("1".into(), "1".into()));
    assert_eq!(here.delete(&[stream("s"), stream("t")]).await.unwrap(), [true, true]);
    for listener in [&mut one, &mut other] {
        let gap = next_gap(listener).await;
        assert!(matches!(gap.reason, GapReason::Deleted | GapReason::Rewound), "{gap:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_claim_hears_of_deliveries_given_back_elsewhere() {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, on(&server).await);
    let name = GroupName::new("g").unwrap();
    let (mine, theirs) = (here.group(&stream("s"), &name), there.group(&stream("s"), &name));
    publish(&here, "s", "1").await.unwrap();
    let id = mine.claim(Claim::new("a")).await.unwrap()[0].event.id;
    let waiting =
        tokio::spawn(
            async move { theirs.claim(Claim { wait: Duration::from_secs(25), ..Claim::new("b") }).await.unwrap() },
        );
    eventually(async || server.cli(&["PUBSUB", "NUMSUB", "tidegate:bell"]).await.ends_with('1')).await;
    sleep(Duration::from_millis(100)).await;
    mine.fail(&[id], "not today").await.unwrap();
    let began = Instant::now();
    let claimed = waiting.await.unwrap();
    assert_eq!((claimed[0].event.id, claimed[0].deliveries), (id, 2));
    assert!(began.elapsed() < Duration::from_secs(20), "it did not wait to the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_group_begins_again_before_what_was_not_acknowledged() {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, on(&server).await);
    let name = GroupName::new("g").unwrap();
    let (mine, theirs) = (here.group(&stream("s"), &name), there.group(&stream("s"), &name));
    for turn in 0..10 {
        publish(&here, "s", &turn.to_string()).await.unwrap();
    }
    let claim = |limit| Claim { limit, ..Claim::new("c") };
    let first = mine.claim(claim(4)).await.unwrap();
    let second = theirs.claim(claim(3)).await.unwrap();
    let ids = |claimed: &[tidegate_events::Delivery]| -> Vec<EventId> {
        claimed.iter().map(|delivery| delivery.event.id).collect()
    };
    mine.ack(&ids(&first)[..2]).await.unwrap();
    theirs.ack(&ids(&second)[2..]).await.unwrap();
    server.cli(&["XGROUP", "DESTROY", "s", "g"]).await;
    // Who comes first does not know what the others hold: theirs begin with the fifth, mine go back to the third.
    let texts = |claimed: Vec<tidegate_events::Delivery>| -> Vec<String> {
        claimed.iter().map(|delivery| text(&delivery.event)).collect()
    };
    assert_eq!(texts(theirs.claim(claim(1)).await.unwrap()), ["4"]);
    assert_eq!(texts(mine.claim(claim(100)).await.unwrap()), ["2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn what_others_wrote_is_read_as_objects() {
    let server = Server::start().await;
    let bus = on(&server).await;
    server.cli(&["XADD", "s", "5-1", "type", "made", "order", "7", "order", "8"]).await;
    server.cli(&["XADD", "s", "5-2", "a", "x\"y"]).await;
    let events = everything(&bus, "s").await;
    assert_eq!(events[0].kind.as_deref(), Some(&b"made"[..]));
    assert_eq!(
        events.iter().map(text).collect::<Vec<_>>(),
        [r#"{"order":["7","8"],"type":"made"}"#, r#"{"a":"x\"y"}"#]
    );
    assert_eq!(publish(&bus, "s", "1").await.unwrap(), everything(&bus, "s").await[2].id);
}

#[tokio::test]
async fn listing_asks_redis_once_for_many_callers() {
    let server = Server::start().await;
    let bus = on(&server).await;
    for no in 0..20 {
        publish(&bus, &format!("s{no:02}"), "1").await.unwrap();
    }
    bus.list("", None, 10).await.unwrap();
    let before = server.commands_by_name().await;
    let pages = futures_util::future::join_all((0..500).map(|_| bus.list("s", None, 10))).await;
    assert!(pages.iter().all(|page| page.as_ref().unwrap().streams.len() == 10));
    let after = server.commands_by_name().await;
    let grown = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    assert_eq!(grown("scan"), 0, "the list is known");
    assert!(grown("xinfo|stream") <= 20, "one page, twice at most: {}", grown("xinfo|stream"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_while_nobody_listens() {
    let server = Server::start().await;
    let bus = on(&server).await;
    publish(&bus, "s", "1").await.unwrap();
    drop(listen(&bus, &["s"], None).await);
    eventually(async || server.cli(&["PUBSUB", "CHANNELS"]).await.is_empty()).await;
    sleep(Duration::from_millis(200)).await;
    let before = server.commands_processed().await;
    sleep(Duration::from_secs(3)).await;
    assert!(server.commands_processed().await <= before + 1, "keep-alives at most");
}
