//! In every way Redis can be reached, and when a server is followed by another one.

use bytes::Bytes;
use tidegate_redis_ops::{Class, Redis, acl_line};
use tidegate_test_redis::{Cluster, Sentinel, Server};

use super::{Heard, assert_paired, track};
use crate::{command, connect, connect_with, until};

/// Passed in every way Redis can be reached.
async fn others_are_heard(redis: &Redis) {
    let (tracked, log) = track(redis).await;
    until(async || tracked.ping_all().await.ok()).await;
    let keys: Vec<Bytes> = (0..50).map(|number| format!("t:{number}").into()).collect();
    for key in &keys {
        redis.command("SET", Some(key.clone()), vec![key.clone(), key.clone()]).await.unwrap();
        assert_eq!(
            tracked.command("GET", Some(key.clone()), vec![key.clone()]).await.unwrap().into_bytes().unwrap(),
            key
        );
        assert_eq!(log.keys().last(), Some(key), "heard before the reply");
    }
    let values: Vec<Bytes> = tracked.get_many(&keys).await.unwrap().into_iter().flatten().collect();
    assert_eq!(values, keys);
    assert_eq!(tracked.run_ids().await.unwrap(), redis.run_ids().await.unwrap());
    tracked.close().await;
}

#[tokio::test]
async fn on_one_server_also_with_a_tiny_tracking_table() {
    let server = Server::builder().config("tracking-table-max-keys 1").start().await;
    others_are_heard(&connect(&server.url()).await).await;
    others_are_heard(&connect(&format!("redis+unix://{}", server.socket().display())).await).await;
}

#[tokio::test]
async fn over_tls_with_a_password_in_another_database() {
    let server = Server::builder().tls().requirepass("secret").start().await;
    others_are_heard(&connect(&format!("{}/3?ca={}", server.url(), server.ca().display())).await).await;
}

#[tokio::test]
async fn as_a_user_who_may_do_no_more_than_needed() {
    let line = acl_line("app", "t:", "t:").replace(">password", ">secret");
    let user = line.trim_start_matches("ACL SETUSER ").to_owned();
    let server = Server::builder().acl(user.clone()).start().await;
    others_are_heard(&connect(&server.url_as("app", "secret")).await).await;
    let cluster = Cluster::start_with(|builder| builder.tls().acl(user.clone())).await;
    let url = format!("{}&ca={}", cluster.url_as("app", "secret"), cluster.nodes()[0].ca().display());
    others_are_heard(&connect(&url).await).await;
}

#[tokio::test]
async fn at_every_node_of_a_cluster_and_at_the_one_that_takes_over() {
    let cluster = Cluster::start().await;
    let redis = connect(&cluster.url()).await;
    others_are_heard(&redis).await;
    let (tracked, log) = track(&redis).await;
    log.wait_for_count(Heard::Connected, 3).await;
    let before = tracked.run_ids().await.unwrap();
    cluster.kill_primary_of("t:foo").await;
    log.wait_for_count(Heard::Disconnected, 1).await;
    assert_eq!(tracked.ping_all().await.unwrap_err().class(), Class::Transient);
    log.wait_for_count(Heard::Connected, 4).await;
    until(async || tracked.ping_all().await.ok()).await;
    let after = tracked.run_ids().await.unwrap();
    assert!(before.len() == 3 && after.len() == 3 && before != after);
    until(async || command(&redis, &["SET", "t:foo", "2"]).await.ok()).await;
    log.wait_for_key("t:foo").await;
    assert_eq!(log.count(&Heard::Disconnected), 1, "the other nodes were not concerned");
}

#[tokio::test]
async fn with_sentinels_through_a_failover() {
    let group = Sentinel::start().await;
    let redis = connect(&group.url()).await;
    others_are_heard(&redis).await;
    let (tracked, log) = track(&redis).await;
    let before = tracked.run_ids().await.unwrap();
    let former = group.kill_primary().await;
    log.wait_for_count(Heard::Disconnected, 1).await;
    group.wait_for_promotion(former).await;
    log.wait_for_count(Heard::Connected, 2).await;
    assert_ne!(until(async || tracked.run_ids().await.ok()).await, before);
    until(async || command(&redis, &["SET", "t:after", "1"]).await.ok()).await;
    log.wait_for_key("t:after").await;
    assert_paired(&log);
}

#[tokio::test]
async fn a_server_that_became_a_replica_or_was_restarted_is_noticed() {
    let (server, other) = (Server::start().await, Server::start().await);
    let redis = connect_with(&server.url(), |config| config.connections = 2).await;
    let (tracked, log) = track(&redis).await;
    tracked.ping_all().await.unwrap();
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    let error = tracked.ping_all().await.unwrap_err();
    assert!(error.to_string().contains("replica"), "{error}");
    log.wait_for_count(Heard::Disconnected, 1).await;
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    until(async || tracked.ping_all().await.ok()).await;

    let before = tracked.run_ids().await.unwrap();
    assert_eq!(tracked.run_ids().await.unwrap(), before);
    server.kill();
    server.restart().await;
    assert_ne!(until(async || tracked.run_ids().await.ok()).await, before);
}

#[tokio::test]
async fn a_node_that_joined_the_cluster_is_noticed() {
    let cluster = Cluster::start().await;
    let redis = connect(&cluster.url()).await;
    let (tracked, log) = track(&redis).await;
    log.wait_for_count(Heard::Connected, 3).await;
    until(async || tracked.ping_all().await.ok()).await;
    let newcomer = Server::builder().cluster_enabled().start().await;
    let first = &cluster.nodes()[0];
    first.cli(&["CLUSTER", "MEET", "127.0.0.1", &newcomer.port().to_string()]).await;
    let id = newcomer.cli(&["CLUSTER", "MYID"]).await;
    until(async || {
        let nodes = newcomer.cli(&["CLUSTER", "NODES"]).await;
        (nodes.lines().filter(|line| line.contains(" connected")).count() == 7).then_some(())
    })
    .await;
    // A slot without keys moves: no push, no redirection tells.
    let slot = cluster.slot_of("t:moved").await.to_string();
    for server in std::iter::once(&newcomer).chain(cluster.nodes()) {
        // Replicas are told by their primaries.
        if server.cli(&["ROLE"]).await.starts_with("master") {
            // It may not have heard of the newcomer yet.
            let told = async || server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await.is_error("");
            until(async || (!told().await).then_some(())).await;
        }
    }
    // By nothing but asking; which node is asked, and whether it has heard already, is by chance.
    until(async || {
        let _ = tracked.ping_all().await;
        (log.count(&Heard::Connected) == 4).then_some(())
    })
    .await;
    until(async || tracked.ping_all().await.ok()).await;
    until(async || (!newcomer.command(&["SET", "t:moved", "1"]).await.is_error("")).then_some(())).await;
    log.wait_for_key("t:moved").await;
}

#[tokio::test]
async fn many_values_come_in_order_and_what_is_no_string_is_none() {
    let server = Server::start().await;
    let cluster = Cluster::start().await;
    for redis in [connect(&server.url()).await, connect(&cluster.url()).await] {
        let keys: Vec<Bytes> = (0..2500).map(|number| format!("t:{number}").into()).collect();
        for key in keys.iter().step_by(3) {
            redis.command("SET", Some(key.clone()), vec![key.clone(), key.clone()]).await.unwrap();
        }
        command(&redis, &["RPUSH", "t:1", "x"]).await.unwrap();
        let values = redis.get_many(&keys).await.unwrap();
        assert_eq!(values.len(), keys.len());
        for (place, (key, value)) in keys.iter().zip(values).enumerate() {
            assert_eq!(value.as_ref(), (place % 3 == 0).then_some(key));
        }
        assert_eq!(redis.get_many(&[]).await.unwrap(), []);
    }
}
