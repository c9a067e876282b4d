//! A cluster and a Sentinel group come about, replace a dead primary, and take it back.

use tidegate_test_redis::{Cluster, Connection, Sentinel};

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
