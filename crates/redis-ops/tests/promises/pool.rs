//! Connections for blocking reads: bounded, fair, and whole again whatever their users do.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_redis_ops::{Blocking, BlockingPool, Class, Error, PoolConfig, PoolError, PoolStats, Redis, Value};
use tidegate_test_redis::{Cluster, Fault, Proxy, Server, Toward};
use tokio::task::JoinSet;

use crate::{FOREVER, command, connect, connect_with, until};

async fn pool_of(server: &Server, min: usize, max: usize) -> (Redis, BlockingPool) {
    let bounds = PoolConfig { min, max, acquire_timeout: FOREVER, ..PoolConfig::default() };
    let redis = connect_with(&server.url(), |config| config.blocking_pool = bounds).await;
    (redis.clone(), redis.blocking_pool())
}

fn words(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// Blocks until something is added to the stream.
async fn read(blocking: &mut Blocking, stream: &str) -> Result<Value, Error> {
    blocking.call("XREAD", words(&["BLOCK", "0", "STREAMS", stream, "$"]), FOREVER).await
}

async fn echo(blocking: &mut Blocking, text: &str) -> String {
    let reply = blocking.call("ECHO", words(&[text]), FOREVER).await.unwrap();
    reply.as_str().unwrap().to_owned()
}

/// The ids of our connections that Redis holds blocked.
async fn blocked(server: &Server) -> Vec<String> {
    let id = |line: &str| line.strip_prefix("id=").unwrap().split(' ').next().unwrap().to_owned();
    let list = server.cli(&["CLIENT", "LIST"]).await;
    list.lines().filter(|line| line.contains(" flags=b ") && line.contains("name=tidegate")).map(id).collect()
}

async fn until_blocked(server: &Server, count: usize) -> Vec<String> {
    until(async || Some(blocked(server).await).filter(|ids| ids.len() == count)).await
}

/// Our connections beside the general ones.
async fn open(server: &Server) -> usize {
    let list = server.cli(&["CLIENT", "LIST"]).await;
    list.lines().filter(|line| line.contains("name=tidegate")).count() - 2
}

/// A call that is running in Redis, then dropped.
async fn drop_while_blocked(server: &Server, blocking: &mut Blocking) {
    tokio::select! {
        answer = read(blocking, "nothing") => panic!("{answer:?}"),
        _ = until_blocked(server, 1) => {}
    }
}

#[tokio::test]
async fn no_connection_is_opened_before_somebody_asks() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 5, 10).await;
    assert_eq!((open(&server).await, pool.stats()), (0, PoolStats::default()));
    let blocking = pool.acquire(None).await.unwrap();
    assert_eq!((open(&server).await, pool.stats().in_use), (1, 1));
    drop(blocking);
    assert_eq!(pool.stats(), PoolStats { total: 1, in_use: 0, available: 1, waiting: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_never_open_more_than_the_maximum() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 2, 8).await;
    let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut users = JoinSet::new();
    for number in 0..1000 {
        let (pool, held, most) = (pool.clone(), held.clone(), most.clone());
        users.spawn(async move {
            let mut blocking = pool.acquire(None).await.unwrap();
            most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let stats = pool.stats();
            assert!(stats.total <= 8 && stats.total == stats.in_use + stats.available, "{stats:?}");
            assert_eq!(echo(&mut blocking, &number.to_string()).await, number.to_string());
            held.fetch_sub(1, Ordering::SeqCst);
        });
    }
    while let Some(user) = users.join_next().await {
        user.unwrap();
        assert!(open(&server).await <= 8);
    }
    assert_eq!(most.load(Ordering::SeqCst), 8, "all of them were used");
    assert_eq!(pool.stats(), PoolStats { total: 8, in_use: 0, available: 8, waiting: 0 });
}

#[tokio::test]
async fn who_asked_first_is_served_first() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 0, 1).await;
    let first = pool.acquire(None).await.unwrap();
    let served = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut users = JoinSet::new();
    for number in 0..50 {
        let (mine, served) = (pool.clone(), served.clone());
        users.spawn(async move {
            let _blocking = mine.acquire(None).await.unwrap();
            served.lock().push(number);
        });
        until(async || (pool.stats().waiting == number + 1).then_some(())).await;
    }
    drop(first);
    users.join_all().await;
    assert_eq!(*served.lock(), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_that_is_held_for_long_holds_up_nobody_else() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 4, 4).await;
    let _held = pool.acquire(None).await.unwrap();
    // All hundred are done while the one is still held.
    let users = (0..100).map(async |_| echo(&mut pool.acquire(None).await.unwrap(), "x").await);
    assert_eq!(join_all(users).await.len(), 100);
    assert_eq!(pool.stats(), PoolStats { total: 4, in_use: 1, available: 3, waiting: 0 });
}

#[tokio::test]
async fn who_waits_too_long_is_told_what_is_in_the_way() {
    let server = Server::start().await;
    let bounds = PoolConfig { max: 2, acquire_timeout: Duration::from_millis(20), ..PoolConfig::default() };
    let redis = connect_with(&server.url(), |config| config.blocking_pool = bounds).await;
    let pool = redis.blocking_pool();
    let held = [pool.acquire(None).await.unwrap(), pool.acquire(None).await.unwrap()];
    let error = pool.acquire(None).await.unwrap_err();
    assert_eq!(error, PoolError::Exhausted { max: 2, waited: Duration::from_millis(20) });
    assert!(error.is_retryable() && pool.stats().waiting == 0);
    drop(held);
    pool.acquire(None).await.unwrap();
}

#[tokio::test]
async fn panics_and_cancellations_give_their_connection_back() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 0, 1).await;
    for _ in 0..20 {
        let mine = pool.clone();
        let panicking = tokio::spawn(async move {
            let _blocking = mine.acquire(None).await.unwrap();
            panic!("on purpose");
        });
        assert!(panicking.await.unwrap_err().is_panic());

        // Cancelled while it blocks, and another while it waits in line.
        let mine = pool.clone();
        let blocked = tokio::spawn(async move { read(&mut mine.acquire(None).await.unwrap(), "nothing").await });
        until_blocked(&server, 1).await;
        let mine = pool.clone();
        let waiting = tokio::spawn(async move { mine.acquire(None).await.map(drop) });
        until(async || (pool.stats().waiting == 1).then_some(())).await;
        waiting.abort();
        blocked.abort();
        assert_eq!(echo(&mut pool.acquire(None).await.unwrap(), "whole").await, "whole");
    }
    assert_eq!(pool.stats(), PoolStats { total: 1, in_use: 0, available: 1, waiting: 0 });
    assert_eq!(open(&server).await, 1);
}

#[tokio::test]
async fn a_cancelled_dial_keeps_no_place() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let bounds = PoolConfig { min: 0, max: 1, acquire_timeout: FOREVER, ..PoolConfig::default() };
    let redis = connect_with(&server.url_through(&proxy), |config| config.blocking_pool = bounds).await;
    let pool = redis.blocking_pool();
    proxy.set(Toward::Client, Fault::Blackhole);
    tokio::select! {
        _ = pool.acquire(None) => panic!("nothing answers"),
        () = async { until(async || (pool.stats().in_use == 1).then_some(())).await } => {}
    }
    assert_eq!(pool.stats(), PoolStats::default());
    proxy.heal();
    until(async || pool.acquire(None).await.ok()).await;
}

#[tokio::test]
async fn a_dropped_read_leaves_a_connection_that_answers_the_next_call() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 1, 1).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    for round in 0..20 {
        drop_while_blocked(&server, &mut blocking).await;
        assert_eq!(echo(&mut blocking, &round.to_string()).await, round.to_string());
    }
    drop_while_blocked(&server, &mut blocking).await;
    drop(blocking);
    // The next user finds it whole; it is the same connection all along.
    assert_eq!(echo(&mut pool.acquire(None).await.unwrap(), "next").await, "next");
    let opened = server.commands_by_name().await["client|id"];
    assert_eq!((opened, blocked(&server).await.len()), (1, 0));
}

#[tokio::test]
async fn a_read_dropped_before_redis_saw_it_does_not_answer_the_next_call() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 1, 1).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    for round in 0..200 {
        // Polled once: written, perhaps not yet read by Redis, so that the wish to end it may overtake it.
        tokio::select! {
            biased;
            answer = read(&mut blocking, "nothing") => panic!("{answer:?}"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(echo(&mut blocking, &round.to_string()).await, round.to_string());
    }
}

#[tokio::test]
async fn what_came_just_before_the_drop_is_thrown_away_not_mistaken() {
    let server = Server::start().await;
    let (redis, pool) = pool_of(&server, 1, 1).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    let mut reading = Box::pin(read(&mut blocking, "s"));
    let pending = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending())).await;
    until_blocked(&server, 1).await;
    command(&redis, &["XADD", "s", "*", "a", "1"]).await.unwrap();
    assert!(pending && blocked(&server).await.is_empty(), "the reply is on its way");
    drop(reading);
    assert_eq!(echo(&mut blocking, "mine").await, "mine");
}

#[tokio::test]
async fn a_connection_that_cannot_be_freed_is_replaced() {
    let line = "app on >secret ~* &* +@all -client|unblock";
    let server = Server::builder().acl(line).start().await;
    let redis = connect_with(&server.url_as("app", "secret"), |config| {
        config.blocking_pool = PoolConfig { max: 1, ..PoolConfig::default() };
    })
    .await;
    let pool = redis.blocking_pool();
    let mut blocking = pool.acquire(None).await.unwrap();
    drop_while_blocked(&server, &mut blocking).await;
    assert_eq!(echo(&mut blocking, "new").await, "new");
    until_blocked(&server, 0).await;
    drop_while_blocked(&server, &mut blocking).await;
    drop(blocking);
    assert_eq!(echo(&mut pool.acquire(None).await.unwrap(), "newer").await, "newer");
    assert_eq!(pool.stats().total, 1);
}

#[tokio::test]
async fn a_killed_connection_is_told_and_replaced() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 2, 2).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    let kill = async {
        let ids = until_blocked(&server, 1).await;
        server.cli(&["CLIENT", "KILL", "ID", &ids[0]]).await;
    };
    let (answer, ()) = tokio::join!(read(&mut blocking, "nothing"), kill);
    assert_eq!(answer.unwrap_err().class(), Class::Ambiguous);
    assert_eq!(echo(&mut blocking, "again").await, "again");

    // Free ones that died meanwhile are not handed out.
    drop(blocking);
    server.client_kill_all().await;
    for _ in 0..3 {
        assert_eq!(echo(&mut pool.acquire(None).await.unwrap(), "alive").await, "alive");
    }
    assert!(pool.stats().total <= 2);
}

#[tokio::test]
async fn silence_beyond_patience_is_a_dead_link() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 1, 1).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    let args = words(&["BLOCK", "0", "STREAMS", "nothing", "$"]);
    let error = blocking.call("XREAD", args, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Ambiguous, "TIMEOUT"));
    assert_eq!(echo(&mut blocking, "new").await, "new");
    assert_eq!(pool.stats().total, 1);
    until_blocked(&server, 0).await;
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let server = Server::start().await;
    let (redis, pool) = pool_of(&server, 1, 1).await;
    let mut reconnects = redis.reconnects();
    let mut blocking = pool.acquire(None).await.unwrap();
    server.kill();
    assert_eq!(read(&mut blocking, "s").await.unwrap_err().class(), Class::Ambiguous);
    for _ in 0..3 {
        assert_eq!(read(&mut blocking, "s").await.unwrap_err().class(), Class::Transient);
    }
    server.restart().await;
    // Who held on to a guard goes on with it.
    assert_eq!(echo(&mut blocking, "held").await, "held");
    reconnects.changed().await.unwrap();
    drop(blocking);
    server.kill();
    let error = until(async || pool.acquire(None).await.err()).await;
    assert!(matches!(error, PoolError::Redis(_)) && error.is_retryable(), "{error}");
    server.restart().await;
    assert_eq!(echo(&mut pool.acquire(None).await.unwrap(), "back").await, "back");
    assert_eq!(pool.stats(), PoolStats { total: 1, in_use: 0, available: 1, waiting: 0 });
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_left() {
    let (server, other) = (Server::start().await, Server::start().await);
    let (redis, pool) = pool_of(&server, 1, 1).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    let demote = async {
        until_blocked(&server, 1).await;
        server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    };
    let (answer, ()) = tokio::join!(read(&mut blocking, "s"), demote);
    let error = answer.unwrap_err();
    assert_ne!(error.class(), Class::Fatal, "{error}");
    drop(blocking);

    // One that lay free while the general connections found out is not trusted either.
    drop(pool.acquire(None).await);
    let opened = server.commands_by_name().await["client|id"];
    let mut reconnects = redis.reconnects();
    assert_eq!(command(&redis, &["SET", "a", "1"]).await.unwrap_err().code(), "READONLY");
    reconnects.changed().await.unwrap();
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    drop(pool.acquire(None).await.unwrap());
    assert!(server.commands_by_name().await["client|id"] > opened);
}

#[tokio::test]
async fn idle_connections_are_closed_down_to_the_minimum() {
    let server = Server::start().await;
    let bounds = PoolConfig { min: 2, max: 6, acquire_timeout: FOREVER, idle_timeout: Duration::from_millis(30) };
    let redis = connect_with(&server.url(), |config| config.blocking_pool = bounds).await;
    let pool = redis.blocking_pool();
    let held = join_all((0..6).map(|_| pool.acquire(None))).await;
    assert_eq!(open(&server).await, 6);
    drop(held);
    until(async || (pool.stats().total == 2).then_some(())).await;
    until(async || (open(&server).await == 2).then_some(())).await;
    assert_eq!(pool.stats().available, 2);
    // Grown again, it shrinks again.
    drop(join_all((0..4).map(|_| pool.acquire(None))).await);
    until(async || (pool.stats().total == 2).then_some(())).await;
}

#[tokio::test]
async fn closing_refuses_who_waits_and_ends_what_runs() {
    let server = Server::start().await;
    let (redis, pool) = pool_of(&server, 2, 2).await;
    let (mut blocking, idle) = (pool.acquire(None).await.unwrap(), pool.acquire(None).await.unwrap());
    drop(idle);
    let _held = pool.acquire(None).await.unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..10 {
        let pool = pool.clone();
        waiters.spawn(async move { pool.acquire(None).await.map(drop) });
    }
    let close = async {
        until(async || (pool.stats().waiting == 10).then_some(())).await;
        until_blocked(&server, 1).await;
        pool.close();
    };
    let (answer, ()) = tokio::join!(read(&mut blocking, "nothing"), close);
    assert_eq!(answer.unwrap_err().class(), Class::Ambiguous);
    for refused in waiters.join_all().await {
        assert_eq!(refused.unwrap_err(), PoolError::Closed);
    }
    assert_eq!(pool.acquire(None).await.unwrap_err(), PoolError::Closed);
    assert_eq!(read(&mut blocking, "nothing").await.unwrap_err().code(), "CLOSED");
    drop((blocking, _held));
    assert_eq!(pool.stats(), PoolStats::default());
    until(async || (open(&server).await == 0).then_some(())).await;
    command(&redis, &["SET", "a", "1"]).await.expect("the general connections stay");
    redis.close().await;
}

#[tokio::test]
async fn closing_the_client_closes_its_pool() {
    let server = Server::start().await;
    let (redis, pool) = pool_of(&server, 2, 2).await;
    drop(pool.acquire(None).await.unwrap());
    redis.close().await;
    assert_eq!(pool.acquire(None).await.unwrap_err(), PoolError::Closed);
    let ours = async || server.cli(&["CLIENT", "LIST"]).await.contains("name=tidegate");
    until(async || (!ours().await).then_some(())).await;
}

#[tokio::test]
async fn a_guard_outlives_its_handles_and_takes_the_rest_with_it() {
    let server = Server::start().await;
    let mut blocking = {
        let (_redis, pool) = pool_of(&server, 5, 5).await;
        pool.acquire(None).await.unwrap()
    };
    assert_eq!(echo(&mut blocking, "here").await, "here");
    drop(blocking);
    let ours = async || server.cli(&["CLIENT", "LIST"]).await.contains("name=tidegate");
    until(async || (!ours().await).then_some(())).await;
}

#[tokio::test]
async fn commands_that_would_change_the_connection_are_refused() {
    let server = Server::start().await;
    let (_redis, pool) = pool_of(&server, 1, 1).await;
    let mut blocking = pool.acquire(None).await.unwrap();
    for name in ["SUBSCRIBE", "MULTI", "SELECT", "CLIENT"] {
        assert_eq!(blocking.call(name, words(&["x"]), FOREVER).await.unwrap_err().class(), Class::Fatal);
    }
    assert_eq!(blocking.call("HGET", words(&["x"]), FOREVER).await.unwrap_err().class(), Class::Refused);
    assert_eq!(echo(&mut blocking, "whole").await, "whole");
}

#[tokio::test]
async fn large_replies_come_whole() {
    let server = Server::start().await;
    let (redis, pool) = pool_of(&server, 1, 1).await;
    let big = "x".repeat(1_000_000);
    for _ in 0..3 {
        command(&redis, &["XADD", "s", "*", "a", &big]).await.unwrap();
    }
    let mut blocking = pool.acquire(None).await.unwrap();
    let reply = blocking.call("XREAD", words(&["BLOCK", "0", "STREAMS", "s", "0"]), FOREVER).await.unwrap();
    let entries = tidegate_redis_ops::StreamEntry::by_stream(reply).unwrap().remove(0).1;
    assert!(entries.len() == 3 && entries.iter().all(|entry| entry.fields[0].1 == big));
}

#[tokio::test]
async fn over_tls_a_dropped_read_is_freed_too() {
    let server = Server::builder().tls().start().await;
    let redis = connect(&format!("{}?ca={}", server.url(), server.ca().display())).await;
    let pool = redis.blocking_pool();
    let mut blocking = pool.acquire(None).await.unwrap();
    for _ in 0..5 {
        drop_while_blocked(&server, &mut blocking).await;
        assert_eq!(echo(&mut blocking, "whole").await, "whole");
    }
    drop(blocking);
    for _ in 0..5 {
        assert_eq!(echo(&mut pool.acquire(None).await.unwrap(), "again").await, "again");
    }
    assert_eq!(server.commands_by_name().await["client|id"], 1, "one connection served all");
}

#[tokio::test]
async fn in_a_cluster_each_key_is_read_where_it_lives_and_never_above_the_maximum() {
    let cluster = Cluster::start().await;
    let bounds = PoolConfig { min: 0, max: 2, acquire_timeout: FOREVER, ..PoolConfig::default() };
    let redis = connect_with(&cluster.url(), |config| config.blocking_pool = bounds).await;
    let pool = redis.blocking_pool();
    let keys = ["a", "b", "c", "d", "e", "f"];
    for round in 0..3 {
        for key in keys {
            let mut blocking = pool.acquire(Some(key.as_bytes())).await.unwrap();
            command(&redis, &["XADD", key, "*", "a", "1"]).await.unwrap();
            let reply = blocking.call("XREAD", words(&["BLOCK", "0", "STREAMS", key, "0"]), FOREVER).await.unwrap();
            let read = tidegate_redis_ops::StreamEntry::by_stream(reply).unwrap();
            assert_eq!(read[0].1.len(), round + 1);
            assert!(pool.stats().total <= 2);
        }
    }
    // Interrupted at the node where it blocks.
    let mut blocking = pool.acquire(Some(b"a")).await.unwrap();
    let node = cluster.primary_of("a").await;
    tokio::select! {
        answer = read(&mut blocking, "a") => panic!("{answer:?}"),
        _ = until_blocked(node, 1) => {}
    }
    drop(blocking);
    drop(pool.acquire(Some(b"a")).await.unwrap());
    until_blocked(node, 0).await;

    // A key that is asked for at the wrong place says where it went.
    let mut blocking = pool.acquire(Some(b"a")).await.unwrap();
    let mut elsewhere = None;
    for key in keys {
        if cluster.primary_of(key).await.port() != node.port() {
            elsewhere = Some(key);
        }
    }
    assert_eq!(read(&mut blocking, elsewhere.unwrap()).await.unwrap_err().code(), "MOVED");
}
