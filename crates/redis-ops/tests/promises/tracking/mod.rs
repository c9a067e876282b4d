//! What others do to tracked keys is heard, in Redis's order, or the connection's end is.

mod everywhere;
mod unheard;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_redis_ops::{Class, Redis, Script, Tracking, Watcher, acl_line};
use tidegate_test_redis::{Fault, Proxy, Server, Toward};
use tokio::sync::Notify;

use crate::{FOREVER, command, connect, until};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Connected,
    Disconnected,
    Invalidated(Vec<Bytes>),
    Flushed,
}

/// Writes down what it hears.
#[derive(Debug, Default)]
struct Log {
    heard: Mutex<Vec<Heard>>,
    changed: Notify,
}

impl Log {
    fn note(&self, heard: Heard) {
        self.heard.lock().push(heard);
        self.changed.notify_one();
    }

    fn all(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    fn count(&self, wanted: &Heard) -> usize {
        self.heard.lock().iter().filter(|heard| *heard == wanted).count()
    }

    /// Every key so far.
    fn keys(&self) -> Vec<Bytes> {
        let keys = |heard: &Heard| match heard {
            Heard::Invalidated(keys) => keys.clone(),
            _ => Vec::new(),
        };
        self.heard.lock().iter().flat_map(keys).collect()
    }

    async fn wait_for(&self, is_there: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_there(self) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(FOREVER, waiting).await.unwrap_or_else(|_| panic!("not heard: {:?}", self.all()));
    }

    async fn wait_for_count(&self, wanted: Heard, count: usize) {
        self.wait_for(|log| log.count(&wanted) >= count).await;
    }

    async fn wait_for_key(&self, key: &str) {
        self.wait_for(|log| log.keys().iter().any(|heard| heard == key)).await;
    }
}

impl Watcher for Log {
    fn connected(&self) {
        self.note(Heard::Connected);
    }
    fn disconnected(&self) {
        self.note(Heard::Disconnected);
    }
    fn invalidated(&self, keys: &[Bytes]) {
        self.note(Heard::Invalidated(keys.to_vec()));
    }
    fn flushed(&self) {
        self.note(Heard::Flushed);
    }
}

fn tracking(prefixes: &[&'static str]) -> Tracking {
    Tracking {
        // Only tests of late replies want less.
        command_timeout: FOREVER,
        ..Tracking::new(prefixes.iter().map(|prefix| Bytes::from_static(prefix.as_bytes())).collect())
    }
}

/// A tracked handle beside `redis`, and what it heard.
async fn track(redis: &Redis) -> (Redis, Arc<Log>) {
    track_with(redis, tracking(&["t:"])).await
}

async fn track_with(redis: &Redis, tracking: Tracking) -> (Redis, Arc<Log>) {
    let log = Arc::new(Log::default());
    let tracked = redis.track(tracking, log.clone()).await.unwrap();
    (tracked, log)
}

/// Never more ends than beginnings, never two of a kind in a row on one server.
fn assert_paired(log: &Log) {
    let ups: Vec<Heard> =
        log.all().into_iter().filter(|heard| matches!(heard, Heard::Connected | Heard::Disconnected)).collect();
    for (turn, heard) in ups.iter().enumerate() {
        assert_eq!(*heard, if turn % 2 == 0 { Heard::Connected } else { Heard::Disconnected }, "{ups:?}");
    }
}

#[tokio::test]
async fn whatever_others_do_to_a_key_is_heard_and_no_other_keys() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, log) = track_with(&redis, tracking(&["t:", "u:"])).await;
    assert_eq!(log.all(), [Heard::Connected]);
    let script = Script::new("write", "redis.call('SET', 't:script', '1') return redis.call('SET', 'x:script', '1')");
    let writes: [(&str, &[&str]); 10] = [
        ("t:set", &["SET", "t:set", "1"]),
        ("t:mset", &["MSET", "x:1", "1", "t:mset", "1"]),
        ("t:del", &["SET", "t:del", "1"]),
        ("t:del", &["DEL", "t:del"]),
        ("t:unlink", &["SET", "t:unlink", "1"]),
        ("t:unlink", &["UNLINK", "t:unlink"]),
        ("t:hash", &["HSET", "t:hash", "f", "1"]),
        ("u:list", &["RPUSH", "u:list", "1"]),
        ("t:renamed", &["RENAME", "u:list", "t:renamed"]),
        ("t:short", &["SET", "t:short", "1", "PX", "30000"]),
    ];
    for (key, words) in writes {
        log.heard.lock().clear();
        command(&redis, words).await.unwrap();
        log.wait_for_key(key).await;
    }
    redis.run(&script, &[], []).await.unwrap();
    log.wait_for_key("t:script").await;
    log.heard.lock().clear();
    command(&redis, &["PEXPIRE", "t:short", "30"]).await.unwrap();
    // Once for the command, once more when it has expired.
    log.wait_for(|log| log.keys().len() == 2).await;
    assert_eq!(log.keys(), ["t:short", "t:short"]);

    log.heard.lock().clear();
    server.command(&["FLUSHDB"]).await;
    log.wait_for_count(Heard::Flushed, 1).await;
    server.command(&["FLUSHALL"]).await;
    log.wait_for_count(Heard::Flushed, 2).await;
    assert!(log.keys().iter().all(|key| !key.starts_with(b"x:")));
    drop(tracked);
}

#[tokio::test]
async fn what_redis_evicts_is_heard() {
    let server = Server::builder().config("maxmemory-policy allkeys-random").start().await;
    let redis = connect(&server.url()).await;
    let (_tracked, log) = track(&redis).await;
    command(&redis, &["SET", "t:k", "1"]).await.unwrap();
    log.wait_for_key("t:k").await;
    log.heard.lock().clear();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    log.wait_for_key("t:k").await;
}

#[tokio::test]
async fn own_writes_are_not_heard_and_those_of_own_scripts_are_after_their_reply() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, log) = track(&redis).await;
    for words in
        [&["SET", "t:k", "1"][..], &["PEXPIRE", "t:k", "60000"], &["MSET", "t:a", "1", "t:b", "1"], &["DEL", "t:a"]]
    {
        command(&tracked, words).await.unwrap();
    }
    command(&redis, &["SET", "t:end", "1"]).await.unwrap();
    log.wait_for_key("t:end").await;
    assert_eq!(log.keys(), ["t:end"]);
    let script = Script::new("write", "return redis.call('SET', KEYS[1], ARGV[1])");
    tracked.run(&script, &["t:script".into()], ["1".into()]).await.unwrap();
    log.wait_for_key("t:script").await;
}

#[tokio::test]
async fn an_acknowledged_write_is_heard_before_the_reply_to_a_later_read() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, log) = track(&redis).await;
    for round in 1..=500 {
        command(&redis, &["SET", "t:k", &round.to_string()]).await.unwrap();
        let value = command(&tracked, &["GET", "t:k"]).await.unwrap();
        assert_eq!((value.as_int().unwrap(), log.keys().len()), (round, usize::try_from(round).unwrap()));
    }
}

/// Holds up whatever it hears until the caller has its reply, or it is clear that the caller has none.
#[derive(Debug)]
struct Holding {
    caller_has_reply: Mutex<Receiver<()>>,
    overtaken: Sender<bool>,
}

impl Holding {
    fn new() -> (Arc<Self>, Sender<()>, Receiver<bool>) {
        let ((reply, caller_has_reply), (overtaken, verdict)) = (channel(), channel());
        (Arc::new(Self { caller_has_reply: Mutex::new(caller_has_reply), overtaken }), reply, verdict)
    }

    fn hold(&self) {
        let overtaken = self.caller_has_reply.lock().recv_timeout(Duration::from_millis(100)).is_ok();
        self.overtaken.send(overtaken).unwrap();
    }
}

impl Watcher for Holding {
    fn connected(&self) {}
    fn disconnected(&self) {
        self.hold();
    }
    fn invalidated(&self, _keys: &[Bytes]) {
        self.hold();
    }
    fn flushed(&self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_and_a_reply_that_arrive_together_are_handled_in_their_order() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let redis = connect(&server.url_through(&proxy)).await;
    let (watcher, reply, verdict) = Holding::new();
    let tracked = redis.track(tracking(&["t:"]), watcher).await.unwrap();
    command(&tracked, &["SET", "t:k", "old"]).await.unwrap();

    proxy.set(Toward::Client, Fault::Stall);
    server.cli(&["SET", "t:k", "new"]).await;
    // Both on the thread of the test: what wakes it is not held up together with the worker that wakes it.
    let reading = async {
        let value = command(&tracked, &["GET", "t:k"]).await.unwrap();
        let _ = reply.send(());
        value
    };
    let letting = async {
        until(async || server.commands_by_name().await.contains_key("get").then_some(())).await;
        proxy.heal();
    };
    let (value, ()) = tokio::join!(reading, letting);
    assert_eq!(value.as_str().unwrap(), "new");
    assert!(!verdict.recv().unwrap(), "the caller had the reply before the push was heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_connection_is_heard_before_those_who_wait_get_their_errors() {
    for late in [false, true] {
        let server = Server::start().await;
        let redis = connect(&server.url()).await;
        let (watcher, reply, verdict) = Holding::new();
        let mut tracking = tracking(&["t:"]);
        if late {
            tracking.command_timeout = Duration::from_millis(100);
        }
        let tracked = redis.track(tracking, watcher).await.unwrap();
        until(async || tracked.ping_all().await.ok()).await;
        server.pause();
        let reading = async {
            let error = command(&tracked, &["GET", "t:k"]).await.unwrap_err();
            let _ = reply.send(());
            error
        };
        let ending = async {
            if !late {
                server.kill();
            }
        };
        let (error, ()) = tokio::join!(reading, ending);
        assert!(matches!(error.class(), Class::Ambiguous | Class::Transient), "{error}");
        assert!(!verdict.recv().unwrap(), "the caller had its error before the end was heard");
        server.resume();
    }
}

#[tokio::test]
async fn a_late_reply_ends_the_connection_and_a_new_one_tracks_again() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, log) =
        track_with(&redis, Tracking { command_timeout: Duration::from_millis(100), ..tracking(&["t:"]) }).await;
    until(async || tracked.ping_all().await.ok()).await;
    server.pause();
    let error = tracked.ping_all().await.unwrap_err();
    assert_eq!(error.class(), Class::Ambiguous, "{error}");
    assert_eq!(log.all().last(), Some(&Heard::Disconnected));
    server.resume();
    until(async || tracked.ping_all().await.ok()).await;
    command(&redis, &["SET", "t:k", "1"]).await.unwrap();
    log.wait_for_key("t:k").await;
    assert_paired(&log);
}

#[tokio::test]
async fn a_connection_that_comes_back_tracks_again() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, log) = track(&redis).await;
    for round in 1..=5 {
        match round % 2 {
            0 => {
                server.kill();
                log.wait_for_count(Heard::Disconnected, round).await;
                server.restart().await;
            }
            _ => drop(server.client_kill_all().await),
        }
        log.wait_for_count(Heard::Connected, round + 1).await;
        let key = format!("t:{round}");
        until(async || command(&redis, &["SET", &key, "1"]).await.ok()).await;
        log.wait_for_key(&key).await;
    }
    tracked.close().await;
    assert_eq!(log.count(&Heard::Connected), log.count(&Heard::Disconnected));
    assert_paired(&log);
}

#[tokio::test]
async fn a_push_cut_at_any_byte_is_a_lost_connection_and_never_a_wrong_reply() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let redis = connect(&server.url_through(&proxy)).await;
    let (tracked, log) = track(&redis).await;
    let push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nt:k\r\n".len();
    for at in 0..=push as u64 {
        until(async || command(&tracked, &["SET", "t:own", &at.to_string()]).await.ok()).await;
        let (lost, whole) = (log.count(&Heard::Disconnected), log.keys().len());
        proxy.cut_once(Toward::Client, at);
        server.cli(&["SET", "t:k", &at.to_string()]).await;
        if at < push as u64 {
            log.wait_for_count(Heard::Disconnected, lost + 1).await;
            assert_eq!(log.keys().len(), whole, "half a push is none");
        } else {
            log.wait_for(|log| log.keys().len() == whole + 1).await;
        }
        let value = until(async || command(&tracked, &["GET", "t:own"]).await.ok()).await;
        assert_eq!(value.as_int().unwrap() as u64, at);
    }
    assert_paired(&log);
}

#[tokio::test]
async fn stored_text_that_looks_like_a_push_is_none() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, log) = track(&redis).await;
    let looks = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nt:x\r\n";
    command(&tracked, &["SET", "t:text", looks]).await.unwrap();
    command(&tracked, &["HSET", "t:hash", "a", "invalidate", "b", looks]).await.unwrap();
    assert_eq!(command(&tracked, &["GET", "t:text"]).await.unwrap().as_str().unwrap(), looks);
    let fields = command(&tracked, &["HMGET", "t:hash", "a", "b"]).await.unwrap().into_array().unwrap();
    assert_eq!((fields[0].as_str().unwrap(), fields[1].as_str().unwrap()), ("invalidate", looks));
    let script = Script::new("push", "return {'invalidate', {'t:x'}}");
    assert_eq!(tracked.run(&script, &[], []).await.unwrap().into_array().unwrap().len(), 2);
    assert_eq!(log.all(), [Heard::Connected]);
}

#[tokio::test]
async fn while_redis_is_away_calls_fail_at_once_and_the_handle_finds_its_way() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    server.kill();
    let (tracked, log) =
        track_with(&redis, Tracking { command_timeout: Duration::from_millis(50), ..tracking(&["t:"]) }).await;
    for error in [
        command(&tracked, &["GET", "t:k"]).await.unwrap_err(),
        tracked.ping_all().await.unwrap_err(),
        tracked.run_ids().await.unwrap_err(),
        tracked.get_many(&["t:k".into()]).await.unwrap_err(),
    ] {
        assert_eq!((error.class(), error.code()), (Class::Transient, "DISCONNECTED"), "{error}");
    }
    assert_eq!(log.all(), []);
    assert!(!tracked.health().connected && tracked.health().last_error.is_some());
    server.restart().await;
    log.wait_for_count(Heard::Connected, 1).await;
    until(async || tracked.ping_all().await.ok()).await;
}

#[tokio::test]
async fn a_handle_ends_with_its_last_clone_or_its_parent_and_keeps_the_parent_open() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let named = async |name: &str| {
        let name = format!("name={name} ");
        server.cli(&["CLIENT", "LIST"]).await.lines().filter(|line| line.contains(&name)).count()
    };
    let (tracked, log) = track(&redis).await;
    assert_eq!((named("tidegate-tracked").await, named("tidegate").await), (1, 2), "one connection, for order");
    drop(redis);
    tracked.ping_all().await.unwrap();
    drop(tracked);
    until(async || (named("tidegate-tracked").await + named("tidegate").await == 0).then_some(())).await;
    log.wait_for_count(Heard::Disconnected, 1).await;

    let redis = connect(&server.url()).await;
    let (tracked, log) = track(&redis).await;
    tracked.close().await;
    assert_eq!(log.all(), [Heard::Connected, Heard::Disconnected]);
    assert_eq!(tracked.ping_all().await.unwrap_err().code(), "CLOSED");
    redis.ping_all().await.unwrap();

    let (tracked, log) = track(&redis).await;
    redis.close().await;
    assert_eq!(log.all(), [Heard::Connected, Heard::Disconnected], "it waited for that");
    assert_eq!(command(&tracked, &["GET", "t:k"]).await.unwrap_err().code(), "CLOSED");
    assert_eq!(redis.track(tracking(&["t:"]), log).await.unwrap_err().code(), "CLOSED");
}

#[tokio::test]
async fn a_server_that_does_not_let_us_track_is_told_and_the_general_link_is_not_concerned() {
    let line = acl_line("app", "t:", "t:").replace(">password", ">secret").replace(" +client|tracking", "");
    let server = Server::builder().acl(line.trim_start_matches("ACL SETUSER ")).start().await;
    let redis = connect(&server.url_as("app", "secret")).await;
    let (tracked, log) =
        track_with(&redis, Tracking { command_timeout: Duration::from_millis(50), ..tracking(&["t:"]) }).await;
    let why = until(async || tracked.health().last_error).await;
    assert!(why.contains("does not track keys") && why.contains("NOPERM"), "{why}");
    assert_eq!((log.all(), tracked.ping_all().await.unwrap_err().code()), (vec![], "DISCONNECTED"));
    let health = redis.health();
    assert!(health.connected && health.last_error.is_none());
}

#[tokio::test]
async fn general_connections_and_tracked_ones_are_counted_apart() {
    let server = Server::start().await;
    let registry = tidegate_metrics::Registry::new();
    let config = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    let redis = Redis::connect(config, &registry).await.unwrap();
    let (_tracked, log) = track(&redis).await;
    command(&redis, &["SET", "t:k", "1"]).await.unwrap();
    log.wait_for_key("t:k").await;
    let text = registry.render_prometheus();
    for line in [
        "tidegate_redis_connected 2",
        "tidegate_redis_tracked_connected 1",
        "tidegate_redis_pushes_total{kind=\"invalidate\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn nobody_can_turn_the_tracking_off() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, _log) = track(&redis).await;
    for words in [&["CLIENT", "TRACKING", "OFF"][..], &["CLIENT", "reply", "SKIP"], &["HELLO", "2"], &["RESET"]] {
        assert_eq!(command(&tracked, words).await.unwrap_err().class(), Class::Fatal, "{words:?}");
    }
    let overlapping = redis.track(tracking(&["a", "ab"]), Arc::new(Log::default())).await;
    assert_eq!(overlapping.unwrap_err().class(), Class::Fatal);
}
