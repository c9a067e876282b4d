//! What callers learn when something breaks, and that the link finds its way back.

use std::time::Duration;

use tidegate_redis_ops::{BreakerState, Class, Config, Redis, Script};
use tidegate_test_redis::{Cluster, Fault, Proxy, Server, Toward};

use crate::{FOREVER, command, connect, connect_with, until};

#[tokio::test]
async fn a_wrong_password_or_address_is_told_at_once_and_without_the_password() {
    let server = Server::builder().requirepass("right").start().await;
    let refused = async |url: &str| {
        let config = Config::parse(url).unwrap();
        Redis::connect(config, &tidegate_metrics::Registry::new()).await.unwrap_err()
    };
    let error = refused(&format!("redis://:wr0ng@{}", server.addr())).await;
    assert_eq!((error.code(), error.class()), ("WRONGPASS", Class::Fatal));
    assert!(!error.to_string().contains("wr0ng"));
    assert_eq!(refused(&format!("redis://{}", server.addr())).await.code(), "NOAUTH");
    server.kill();
    let error = refused(&server.url()).await;
    assert_eq!((error.code(), error.class()), ("DISCONNECTED", Class::Transient));
}

#[tokio::test]
async fn a_killed_server_fails_calls_at_once_and_is_used_again_when_it_is_back() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let mut reconnects = redis.reconnects();
    server.kill();
    let error =
        until(async || command(&redis, &["INCR", "n"]).await.err().filter(|error| error.class() == Class::Transient))
            .await;
    assert!(error.is_retryable() && !error.retry_after().is_zero());
    until(async || (!redis.is_ready()).then_some(())).await;
    assert!(!redis.health().connected && redis.health().last_error.is_some());

    server.restart().await;
    reconnects.changed().await.unwrap();
    until(async || command(&redis, &["INCR", "n"]).await.ok()).await;
    assert!(redis.health().connected && redis.is_ready());
}

#[tokio::test]
async fn a_reply_cut_off_is_ambiguous_and_an_unsent_request_is_not() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let redis = connect_with(&server.url_through(&proxy), |config| config.connections = 2).await;
    command(&redis, &["INCR", "n"]).await.unwrap();

    proxy.cut_once(Toward::Client, 1);
    let error = command(&redis, &["INCR", "n"]).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Ambiguous, "DISCONNECTED"));
    assert!(!error.is_retryable());
    assert_eq!(server.cli(&["GET", "n"]).await, "2", "it was executed");

    proxy.refuse();
    proxy.kill_all();
    let error =
        until(async || command(&redis, &["INCR", "n"]).await.err().filter(|error| error.class() == Class::Transient))
            .await;
    assert_eq!(error.code(), "DISCONNECTED");
    proxy.heal();
    until(async || command(&redis, &["GET", "n"]).await.ok()).await;
}

#[tokio::test]
async fn a_reply_that_does_not_come_is_a_timeout_and_the_dead_link_is_replaced() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let redis = connect_with(&server.url_through(&proxy), |config| {
        config.command_timeout = Duration::from_millis(300);
        config.connect_timeout = Duration::from_millis(300);
    })
    .await;
    proxy.set(Toward::Client, Fault::Blackhole);
    let error = command(&redis, &["INCR", "n"]).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Ambiguous, "TIMEOUT"));
    // Nobody has told us that the link is dead: silence must be enough.
    until(async || redis.health().last_error.filter(|why| why.contains("not said anything"))).await;
    proxy.heal();
    until(async || command(&redis, &["INCR", "n"]).await.ok()).await;
}

#[tokio::test]
async fn a_late_reply_never_answers_another_call() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| {
        (config.pool_min, config.connections) = (1, 1);
        config.command_timeout = Duration::from_millis(100);
    })
    .await;
    command(&redis, &["SET", "a", "late"]).await.unwrap();
    command(&redis, &["SET", "b", "right"]).await.unwrap();
    server.pause();
    assert_eq!(command(&redis, &["GET", "a"]).await.unwrap_err().code(), "TIMEOUT");
    server.resume();
    let value = until(async || command(&redis, &["GET", "b"]).await.ok()).await;
    assert_eq!(value.as_str().unwrap(), "right");
}

#[tokio::test]
async fn a_call_dropped_half_way_does_not_shift_replies() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| (config.pool_min, config.connections) = (1, 1)).await;
    command(&redis, &["SET", "a", "dropped"]).await.unwrap();
    command(&redis, &["SET", "b", "right"]).await.unwrap();
    for _ in 0..100 {
        let dropped = command(&redis, &["GET", "a"]);
        tokio::select! { biased; _ = dropped => {}, () = std::future::ready(()) => {} }
        assert_eq!(command(&redis, &["GET", "b"]).await.unwrap().as_str().unwrap(), "right");
    }
}

#[tokio::test]
async fn scripts_are_known_again_after_they_were_forgotten() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let script = Script::new("count", "return redis.call('INCR', KEYS[1])");
    for round in 1..=3 {
        assert_eq!(redis.run(&script, &["n".into()], Vec::new()).await.unwrap().as_int().unwrap(), round, "ran once");
        server.command(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn no_memory_is_a_refusal_with_its_name_also_inside_a_script() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let script = Script::new("write", "return redis.call('SET', KEYS[1], ARGV[1])");
    redis.run(&script, &["k".into()], vec!["x".into()]).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for error in [
        command(&redis, &["SET", "k", "y"]).await.unwrap_err(),
        redis.run(&script, &["k".into()], vec!["y".into()]).await.unwrap_err(),
    ] {
        assert_eq!((error.code(), error.class()), ("OOM", Class::Refused), "{error}");
        assert!(error.is_retryable() && !error.retry_after().is_zero());
    }
    assert_eq!(redis.health().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_replica_is_no_place_to_write_and_the_link_looks_for_the_primary() {
    let server = Server::start().await;
    let other = Server::start().await;
    let redis = connect(&server.url()).await;
    let mut reconnects = redis.reconnects();
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    let script = Script::new("write", "return redis.call('SET', KEYS[1], ARGV[1])");
    let error = redis.run(&script, &["k".into()], vec!["x".into()]).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("READONLY", Class::Transient), "{error}");
    reconnects.changed().await.unwrap();
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    until(async || command(&redis, &["SET", "k", "x"]).await.ok()).await;
}

#[tokio::test]
async fn a_busy_server_is_transient() {
    let server = Server::builder().config("busy-reply-threshold 10").start().await;
    let redis = connect(&server.url()).await;
    let endless = Script::new("endless", "while true do end");
    let running = tokio::spawn({
        let redis = redis.clone();
        async move { redis.run(&endless, &[], Vec::new()).await }
    });
    let error = until(async || command(&redis, &["GET", "k"]).await.err()).await;
    assert_eq!((error.code(), error.class()), ("BUSY", Class::Transient));
    server.command(&["SCRIPT", "KILL"]).await;
    assert_eq!(running.await.unwrap().unwrap_err().class(), Class::Refused);
    command(&redis, &["GET", "k"]).await.unwrap();
}

#[tokio::test]
async fn the_breaker_opens_when_redis_keeps_failing_and_closes_by_itself() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| {
        config.breaker.consecutive = 5;
        config.grace = Duration::from_millis(1);
    })
    .await;
    server.kill();
    let error =
        until(async || command(&redis, &["GET", "k"]).await.err().filter(|error| error.code() == "BREAKER_OPEN")).await;
    assert_eq!(error.class(), Class::Transient);
    assert!(redis.health().breaker != BreakerState::Closed && !redis.is_ready());
    server.restart().await;
    until(async || command(&redis, &["GET", "k"]).await.ok()).await;
    assert_eq!(redis.health().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_redis_that_forgot_every_script_closes_the_breaker() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| config.breaker.consecutive = 2).await;
    let script = Script::new("count", "return redis.call('INCR', KEYS[1])");
    let run = async || redis.run(&script, &["n".into()], Vec::new()).await;
    run().await.unwrap();
    server.pause();
    until(async || run().await.err().filter(|error| error.code() == "BREAKER_OPEN")).await;
    server.kill();
    server.restart().await;
    // From here on there is no probe but this script.
    until(async || run().await.ok()).await;
    assert_eq!(redis.health().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn too_many_requests_in_flight_are_refused_not_queued() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| {
        (config.pool_min, config.connections, config.commands_max) = (1, 1, 10);
        config.command_timeout = FOREVER;
    })
    .await;
    server.pause();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let redis = redis.clone();
        calls.spawn(async move { command(&redis, &["ECHO", "x"]).await });
    }
    // Those beyond the bound are refused while the server still sleeps; the others wait for it.
    for _ in 0..10 {
        let refused = calls.join_next().await.unwrap().unwrap();
        assert_eq!(refused.unwrap_err().code(), "BACKPRESSURE");
    }
    server.resume();
    while let Some(answered) = calls.join_next().await {
        answered.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_command_that_would_block_everybody_is_refused_at_once() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    for words in [&["BLPOP", "k", "0"][..], &["XREAD", "BLOCK", "0", "STREAMS", "s", "$"], &["SUBSCRIBE", "c"]] {
        assert_eq!(command(&redis, words).await.unwrap_err().class(), Class::Fatal);
    }
}

#[tokio::test]
async fn keys_that_move_to_another_node_are_followed() {
    let cluster = Cluster::start().await;
    let redis = connect(&cluster.url()).await;
    command(&redis, &["SET", "foo", "1"]).await.unwrap();
    let slot = cluster.slot_of("foo").await.to_string();
    let source = cluster.primary_of("foo").await;
    let bar = cluster.primary_of("bar").await;
    assert_ne!(source.port(), bar.port(), "the keys were chosen to live apart");
    let id = async |server: &Server| server.cli(&["CLUSTER", "MYID"]).await;
    let (source_id, target_id) = (id(source).await, id(bar).await);
    bar.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).await;
    source.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).await;

    // The key has gone ahead, the slot has not: ASK.
    source.cli(&["MIGRATE", "127.0.0.1", &bar.port().to_string(), "foo", "0", "1000"]).await;
    assert_eq!(command(&redis, &["INCR", "foo"]).await.unwrap().as_int().unwrap(), 2);
    let script = Script::new("asked", "return redis.call('INCR', KEYS[1])");
    assert_eq!(redis.run(&script, &["foo".into()], Vec::new()).await.unwrap().as_int().unwrap(), 3);

    // Now the slot follows: MOVED.
    for server in [bar, source] {
        server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).await;
    }
    assert_eq!(command(&redis, &["INCR", "foo"]).await.unwrap().as_int().unwrap(), 4);
}

#[tokio::test]
async fn when_a_primary_dies_the_others_serve_on_and_its_keys_return_with_the_replica() {
    let cluster = Cluster::start().await;
    let redis = connect(&cluster.url()).await;
    command(&redis, &["SET", "foo", "1"]).await.unwrap();
    cluster.kill_primary_of("foo").await;
    assert_ne!(cluster.slot_of("bar").await, cluster.slot_of("foo").await);
    command(&redis, &["SET", "bar", "1"]).await.unwrap();
    until(async || command(&redis, &["SET", "foo", "2"]).await.ok()).await;
}
