//! Wake-ups: one connection, the truth about gaps, bounds.

use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::Signal;
use tidegate_test_redis::{Fault, Proxy, Server, Toward};

use crate::{FOREVER, command, connect, connect_with, until};

async fn subscriber_connections(server: &Server) -> usize {
    server.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.lines().filter(|line| line.contains("addr=")).count()
}

#[tokio::test]
async fn all_subscriptions_share_one_connection_which_ends_with_the_last() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    assert_eq!(subscriber_connections(&server).await, 0);
    let mut subscriptions: Vec<_> = (0..50).map(|number| redis.subscribe(format!("c{}", number % 10).into())).collect();
    for subscription in &mut subscriptions {
        assert_eq!(subscription.next().await, Signal::Subscribed);
    }
    assert_eq!(subscriber_connections(&server).await, 1);
    command(&redis, &["PUBLISH", "c3", "x"]).await.unwrap();
    for subscription in subscriptions.iter_mut().filter(|subscription| subscription.channel() == "c3") {
        assert_eq!(subscription.next().await, Signal::Message("x".into()));
    }

    subscriptions.retain(|subscription| subscription.channel() == "c3");
    until(async || (server.cli(&["PUBSUB", "CHANNELS"]).await == "c3").then_some(())).await;
    drop(subscriptions);
    until(async || (subscriber_connections(&server).await == 0).then_some(())).await;
}

#[tokio::test]
async fn one_who_joins_later_is_subscribed_at_once_and_one_who_returns_again() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let mut first = redis.subscribe("c".into());
    assert_eq!(first.next().await, Signal::Subscribed);
    let mut second = redis.subscribe("c".into());
    assert_eq!(second.next().await, Signal::Subscribed);
    for round in 0..50 {
        drop(std::mem::replace(&mut second, redis.subscribe("d".into())));
        assert_eq!(second.next().await, Signal::Subscribed);
        let text = Bytes::from(round.to_string());
        redis.command("PUBLISH", None, vec!["d".into(), text.clone()]).await.unwrap();
        assert_eq!(second.next().await, Signal::Message(text), "subscribed means that the next message is heard");
    }
}

#[tokio::test]
async fn nobody_is_called_subscribed_before_redis_says_so() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let mut other = redis.subscribe("c".into());
    assert_eq!(other.next().await, Signal::Subscribed);
    server.pause();
    let mut early = redis.subscribe("d".into());
    let short = Duration::from_millis(100);
    assert!(tokio::time::timeout(short, early.next()).await.is_err());
    let mut late = redis.subscribe("d".into());
    assert!(tokio::time::timeout(short, late.next()).await.is_err());
    // Gone and back while the first word is still under way.
    drop((early, late));
    tokio::task::yield_now().await;
    let mut again = redis.subscribe("d".into());
    assert!(tokio::time::timeout(short, again.next()).await.is_err());
    server.resume();
    assert_eq!(again.next().await, Signal::Subscribed);
    command(&redis, &["PUBLISH", "d", "x"]).await.unwrap();
    assert_eq!(again.next().await, Signal::Message("x".into()));
}

#[tokio::test]
async fn a_lost_link_is_told_and_messages_arrive_again_after_subscribed() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let mut subscription = redis.subscribe("c".into());
    assert_eq!(subscription.next().await, Signal::Subscribed);
    for round in 0..10 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(subscription.next().await, Signal::Lost);
        assert_eq!(subscription.next().await, Signal::Subscribed);
        let text = Bytes::from(round.to_string());
        redis.command("PUBLISH", None, vec!["c".into(), text.clone()]).await.unwrap();
        assert_eq!(subscription.next().await, Signal::Message(text));
    }
}

#[tokio::test]
async fn silence_is_noticed_as_a_lost_link() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let redis = connect_with(&server.url_through(&proxy), |config| {
        config.subscriber_keep_alive = Duration::from_millis(300);
        config.connect_timeout = Duration::from_millis(200);
    })
    .await;
    let mut subscription = redis.subscribe("c".into());
    assert_eq!(subscription.next().await, Signal::Subscribed);
    // An idle link is kept by its keep-alives.
    assert!(tokio::time::timeout(Duration::from_secs(1), subscription.next()).await.is_err());
    proxy.set(Toward::Client, Fault::Blackhole);
    assert_eq!(tokio::time::timeout(FOREVER, subscription.next()).await.unwrap(), Signal::Lost);
    proxy.heal();
    assert_eq!(tokio::time::timeout(FOREVER, subscription.next()).await.unwrap(), Signal::Subscribed);
}

#[tokio::test]
async fn a_slow_reader_misses_messages_and_is_told() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| config.messages_max = 4).await;
    let mut slow = redis.subscribe("c".into());
    let mut witness = redis.subscribe("end".into());
    assert_eq!(slow.next().await, Signal::Subscribed);
    assert_eq!(witness.next().await, Signal::Subscribed);
    for number in 0..20 {
        command(&redis, &["PUBLISH", "c", &number.to_string()]).await.unwrap();
    }
    command(&redis, &["PUBLISH", "end", ""]).await.unwrap();
    witness.next().await;
    for number in 0..4 {
        assert_eq!(slow.next().await, Signal::Message(number.to_string().into()));
    }
    assert_eq!(slow.next().await, Signal::Missed);
    command(&redis, &["PUBLISH", "c", "again"]).await.unwrap();
    assert_eq!(slow.next().await, Signal::Message("again".into()));
}

#[tokio::test]
async fn an_idle_process_sends_nothing_but_keep_alives() {
    let server = Server::start().await;
    let redis = connect_with(&server.url(), |config| config.subscriber_keep_alive = Duration::from_millis(300)).await;
    let mut subscription = redis.subscribe("c".into());
    assert_eq!(subscription.next().await, Signal::Subscribed);
    let before = server.commands_by_name().await;
    assert!(tokio::time::timeout(Duration::from_secs(1), subscription.next()).await.is_err());
    let after = server.commands_by_name().await;
    let sent: Vec<_> =
        after.iter().filter(|(name, count)| before.get(*name) != Some(count)).map(|(name, _)| name).collect();
    assert_eq!(sent, ["ping"]);
}
