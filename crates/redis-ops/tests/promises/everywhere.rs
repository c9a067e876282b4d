//! One list of checks, passed in every way Redis can be reached.

use bytes::Bytes;
use tidegate_redis_ops::{Durability, Redis, ScanOptions, Script, Signal, Value, Warning, acl_line};
use tidegate_test_redis::{Cluster, Fsync, Persistence, Sentinel, Server};
use tokio_util::sync::CancellationToken;

use crate::{command, connect, until};

async fn everything_works(redis: &Redis, prefix: &str) {
    let key = |name: &str| format!("{prefix}{name}");

    assert!(command(redis, &["GET", &key("nothing")]).await.unwrap().is_nil());
    command(redis, &["SET", &key("a"), "1"]).await.unwrap();
    assert_eq!(command(redis, &["INCR", &key("a")]).await.unwrap().as_int().unwrap(), 2);
    let wrong = command(redis, &["HGET", &key("a"), "f"]).await.unwrap_err();
    assert_eq!(wrong.code(), "WRONGTYPE");

    // Unknown to the server, then known.
    let script = Script::new("pair", format!("--{prefix}\nreturn {{KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}}"));
    for _ in 0..2 {
        let reply = redis.run(&script, &[key("a").into()], vec!["x".into()]).await.unwrap().into_array().unwrap();
        assert_eq!(
            reply,
            [key("a").as_str(), "x", "2"].map(|text| Value::Bytes(Bytes::copy_from_slice(text.as_bytes())))
        );
    }

    // What users store is never taken for protocol.
    for text in ["message", "subscribe", "MOVED 1 127.0.0.1:1", "-ERR"] {
        command(redis, &["HSET", &key("hash"), "a", text, "b", "x"]).await.unwrap();
        let fields = command(redis, &["HMGET", &key("hash"), "a", "b", "b"]).await.unwrap().into_array().unwrap();
        assert_eq!((fields.len(), fields[0].as_str().unwrap()), (3, text));
        command(redis, &["SET", &key("text"), text]).await.unwrap();
        assert_eq!(command(redis, &["GET", &key("text")]).await.unwrap().as_str().unwrap(), text);
    }

    let big = Bytes::from(vec![b'x'; 3_000_000]);
    redis.command("SET", Some(key("big").into()), vec![key("big").into(), big.clone()]).await.unwrap();
    assert_eq!(command(redis, &["GET", &key("big")]).await.unwrap().into_bytes().unwrap(), big);

    wake_ups_arrive(redis, &key("channel")).await;
    many_keys_are_found_and_deleted(redis, prefix).await;
    redis.ping().await.unwrap();
}

async fn wake_ups_arrive(redis: &Redis, channel: &str) {
    let mut subscription = redis.subscribe(Bytes::copy_from_slice(channel.as_bytes()));
    assert_eq!(subscription.next().await, Signal::Subscribed);
    command(redis, &["PUBLISH", channel, "hello"]).await.unwrap();
    assert_eq!(subscription.next().await, Signal::Message("hello".into()));
}

async fn many_keys_are_found_and_deleted(redis: &Redis, prefix: &str) {
    for number in 0..250 {
        command(redis, &["SET", &format!("{prefix}many:{number}"), "x"]).await.unwrap();
    }
    let mut found = std::collections::HashSet::new();
    let mut scan =
        redis.scan(format!("{prefix}many:*"), ScanOptions { kind: Some("string"), ..ScanOptions::default() });
    while let Some(page) = scan.next_page().await {
        found.extend(page.unwrap());
    }
    assert_eq!(found.len(), 250);
    let mut heard = 0;
    let deleted = redis
        .delete_matching(format!("{prefix}many:*"), Default::default(), |sum| heard = sum, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((deleted, heard), (250, 250));
}

#[tokio::test]
async fn on_one_server() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    everything_works(&redis, "t:").await;
    let health = redis.health();
    assert!(health.connected && health.version.starts_with("redis ") || health.version.starts_with("valkey "));
    assert_eq!(health.topology, "standalone");
    redis.close().await;
    assert_eq!(redis.ping().await.unwrap_err().code(), "CLOSED");
}

#[tokio::test]
async fn the_last_handle_takes_its_connections_with_it() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let subscription = redis.clone().subscribe("c".into());
    let ours =
        async || server.cli(&["CLIENT", "LIST"]).await.lines().filter(|line| line.contains("name=tidegate")).count();
    drop(redis);
    until(async || (ours().await == 3).then_some(())).await;
    drop(subscription);
    until(async || (ours().await == 0).then_some(())).await;
}

#[tokio::test]
async fn in_another_database_with_a_password() {
    let server = Server::builder().requirepass("secret").start().await;
    let redis = connect(&format!("{}/3", server.url())).await;
    everything_works(&redis, "t:").await;
    assert!(server.cli(&["INFO", "keyspace"]).await.contains("db3"));
}

#[tokio::test]
async fn over_a_unix_socket() {
    let server = Server::start().await;
    let redis = connect(&format!("redis+unix://{}", server.socket().display())).await;
    everything_works(&redis, "t:").await;
    assert_eq!(redis.health().topology, "unix");
}

#[tokio::test]
async fn over_tls_and_only_with_a_certificate_we_trust() {
    let server = Server::builder().tls().start().await;
    let redis = connect(&format!("{}?ca={}", server.url(), server.ca().display())).await;
    everything_works(&redis, "t:").await;

    let config = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    let error = tidegate_redis_ops::Redis::connect(config, &tidegate_metrics::Registry::new()).await.unwrap_err();
    assert!(error.to_string().contains("certificate") || error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn as_a_user_who_may_do_no_more_than_needed() {
    let line = acl_line("app", "t:", "t:").replace(">password", ">secret");
    let server = Server::builder().acl(line.trim_start_matches("ACL SETUSER ")).start().await;
    let redis = connect(&server.url_as("app", "secret")).await;
    everything_works(&redis, "t:").await;
    assert_eq!(command(&redis, &["GET", "other"]).await.unwrap_err().code(), "NOPERM");
    assert_eq!(command(&redis, &["FLUSHALL"]).await.unwrap_err().code(), "NOPERM");
    assert_eq!(redis.durability(), Durability::None);
}

#[tokio::test]
async fn in_a_cluster_also_when_the_url_does_not_say_so() {
    let cluster = Cluster::start().await;
    for url in [cluster.url(), cluster.nodes()[0].url()] {
        let redis = connect(&url).await;
        everything_works(&redis, "t:").await;
        assert_eq!(redis.health().topology, "cluster");
        let tagged = Script::new("two", "return redis.call('MSET', KEYS[1], '1', KEYS[2], '2')");
        redis.run(&tagged, &["{t}1".into(), "{t}2".into()], Vec::new()).await.unwrap();
        redis.close().await;
    }
}

#[tokio::test]
async fn in_a_cluster_over_tls_as_a_user_who_may_do_no_more_than_needed() {
    let line = acl_line("app", "t:", "t:").replace(">password", ">secret");
    let user = line.trim_start_matches("ACL SETUSER ").to_owned();
    let cluster = Cluster::start_with(|builder| builder.tls().acl(user.clone())).await;
    let redis = connect(&format!("{}&ca={}", cluster.url_as("app", "secret"), cluster.nodes()[0].ca().display())).await;
    everything_works(&redis, "t:").await;
    assert_eq!(redis.health().topology, "cluster");
}

#[tokio::test]
async fn with_sentinels_through_a_failover() {
    let group = Sentinel::start().await;
    let redis = connect(&group.url()).await;
    everything_works(&redis, "t:").await;
    assert_eq!(redis.health().topology, "sentinel");
    let mut subscription = redis.subscribe("t:wake".into());
    assert_eq!(subscription.next().await, Signal::Subscribed);

    let former = group.kill_primary().await;
    assert_eq!(subscription.next().await, Signal::Lost);
    group.wait_for_promotion(former).await;
    until(async || command(&redis, &["SET", "t:after", "1"]).await.ok()).await;
    assert_eq!(subscription.next().await, Signal::Subscribed);
}

#[tokio::test]
async fn durability_and_eviction_are_told_as_they_are() {
    for (persistence, durability) in [
        (Persistence::None, Durability::None),
        (Persistence::Aof(Fsync::Always), Durability::Always),
        (Persistence::Aof(Fsync::EverySecond), Durability::EverySecond),
    ] {
        let server = Server::builder().persistence(persistence).start().await;
        let redis = connect(&server.url()).await;
        assert_eq!(redis.durability(), durability);
        assert_eq!(redis.health().warnings.is_empty(), durability != Durability::None);
    }
    let server = Server::builder().config("maxmemory-policy allkeys-lru").config("save 60 1").start().await;
    let redis = connect(&server.url()).await;
    assert_eq!(redis.durability(), Durability::Snapshots);
    let warnings = redis.health().warnings;
    assert!(warnings.contains(&Warning::Evicting { policy: "allkeys-lru".into() }), "{warnings:?}");
    assert!(warnings.contains(&Warning::WeakDurability(Durability::Snapshots)), "{warnings:?}");

    // Read again after a reconnect.
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    server.client_kill_all().await;
    until(async || redis.health().warnings.iter().all(|warning| warning.as_str() != "evicting").then_some(())).await;
}

#[tokio::test]
async fn settings_that_are_hidden_from_us_are_called_unknown() {
    let line = acl_line("app", "t:", "t:").replace(">password", ">secret").replace(" +config|get", "");
    let server = Server::builder().acl(line.trim_start_matches("ACL SETUSER ")).start().await;
    let redis = connect(&server.url_as("app", "secret")).await;
    assert_eq!(redis.durability(), Durability::Unknown);
    assert!(redis.health().warnings.contains(&Warning::Unreadable { code: "NOPERM".into() }));
}
