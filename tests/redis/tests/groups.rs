//! A cluster and a Sentinel group come about, replace a dead primary, and take it back.

use tidegate_test_redis::{Builder, Cluster, Connection, Fsync, Persistence, Sentinel};

#[tokio::test]
async fn a_cluster_fails_over_and_takes_the_dead_node_back() {
    let cluster = Cluster::start().await;
    let ports: Vec<String> = cluster.nodes().iter().map(|node| node.addr().to_string()).collect();
    assert_eq!(cluster.url(), format!("redis-cluster://{}?node={}", ports[0], ports[1..].join("&node=")));
    assert_eq!(cluster.slot_of("{user1000}.following").await, cluster.slot_of("user1000").await);
    assert_eq!(cluster.slot_of("foo").await, 12_182);

    let before = cluster.primary_of("foo").await;
    assert_eq!(before.port(), cluster.nodes()[2].port(), "slot 12182 belongs to the last third");
    before.cli(&["SET", "foo", "bar"]).await;
    assert_eq!(before.command(&["WAIT", "1", "5000"]).await.int(), 1);
    let killed = cluster.kill_primary_of("foo").await;
    let after = cluster.wait_for_failover("foo").await;
    assert_eq!(after.port(), cluster.nodes()[5].port(), "its replica takes over");
    assert_eq!(after.cli(&["GET", "foo"]).await, "bar");

    killed.restart().await;
    cluster.wait_until_healthy().await;
    assert_eq!(cluster.primary_of("foo").await.port(), after.port());
    assert!(killed.command(&["GET", "foo"]).await.is_error("MOVED"));
    cluster.flush_all().await;
    assert_eq!(after.command(&["DBSIZE"]).await.int(), 0);
}

#[tokio::test]
async fn sentinels_promote_the_replica_and_take_the_dead_primary_back() {
    let group = Sentinel::start().await;
    let sentinels: Vec<String> = group.sentinels().iter().map(|each| each.addr().to_string()).collect();
    let [first, second, third] = sentinels.as_slice() else { panic!("{sentinels:?}") };
    assert_eq!(
        group.url(),
        format!("redis-sentinel://{first}?node={second}&node={third}&sentinelServiceName=mymaster")
    );
    let mut client = Connection::tcp(first).await.unwrap();
    let answer = client.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]).await.unwrap();
    assert_eq!(answer.items()[1].int(), i64::from(group.servers()[0].port()));

    let primary = group.primary().await;
    primary.cli(&["SET", "foo", "bar"]).await;
    assert_eq!(primary.command(&["WAIT", "1", "5000"]).await.int(), 1);
    let killed = group.kill_primary().await;
    let promoted = group.primary().await;
    assert_eq!((killed.port(), promoted.port()), (group.servers()[0].port(), group.servers()[1].port()));
    assert_eq!(promoted.cli(&["GET", "foo"]).await, "bar");
    promoted.cli(&["SET", "foo", "baz"]).await;

    killed.restart().await;
    group.wait_until_healthy().await;
    assert_eq!(killed.cli(&["GET", "foo"]).await, "baz", "the former primary follows");
}

/// Nobody may do anything but `app`, and that for keys of its own.
fn locked(builder: Builder) -> Builder {
    builder.acl("default off").acl("app on >word ~app:* &* +@all").persistence(Persistence::Aof(Fsync::EverySecond))
}

#[tokio::test]
async fn a_cluster_comes_about_behind_tls_and_a_closed_default_user() {
    let cluster = Cluster::start_with(|builder| locked(builder).tls()).await;
    let url = cluster.url_as("app", "word");
    assert!(url.starts_with("rediss-cluster://app:word@127.0.0.1:") && url.matches("node=").count() == 5, "{url}");
    let primary = cluster.primary_of("app:1").await;
    primary.cli(&["SET", "app:1", "value"]).await;
    assert_eq!(primary.command(&["WAIT", "1", "5000"]).await.int(), 1);
}

#[tokio::test]
async fn sentinels_watch_servers_with_a_closed_default_user() {
    let group = Sentinel::start_with(locked).await;
    group.primary().await.cli(&["SET", "app:1", "value"]).await;
    let mut client = Connection::tcp(group.primary().await.addr()).await.unwrap();
    assert!(client.command(&["GET", "app:1"]).await.unwrap().is_error("NOAUTH"));
    client.command(&["AUTH", "app", "word"]).await.unwrap();
    assert_eq!(client.command(&["GET", "app:1"]).await.unwrap().to_string(), "value");
    assert!(client.command(&["GET", "other"]).await.unwrap().is_error("NOPERM"));
}
