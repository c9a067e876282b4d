//! The cached list of streams: few walks, and one's own changes at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Listing, Redis, RegistryConfig, RegistryOptions, StreamRegistry};
use tidegate_test_redis::{Cluster, Fault, Proxy, Server, Toward};

use crate::{FOREVER, command, connect, connect_with, until};

const NOW: Duration = Duration::ZERO;

async fn registry(url: &str, refresh_interval: Duration, cache_expiry: Duration) -> (Redis, StreamRegistry) {
    let redis = connect_with(url, |config| config.registry = RegistryConfig { refresh_interval, cache_expiry }).await;
    let ours = |name: &[u8]| !name.starts_with(b"tidegate:");
    let options = RegistryOptions { keep: Box::new(ours), ..RegistryOptions::default() };
    (redis.clone(), StreamRegistry::new(redis, options, &Registry::new()))
}

async fn add(redis: &Redis, names: &[&str]) {
    for name in names {
        command(redis, &["XADD", name, "*", "a", "1"]).await.unwrap();
    }
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.names.iter().map(|name| std::str::from_utf8(name).unwrap()).collect()
}

async fn walks(server: &Server) -> u64 {
    server.commands_by_name().await.get("scan").copied().unwrap_or(0)
}

#[tokio::test]
async fn streams_are_listed_in_order_and_nothing_else_is() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), NOW, NOW).await;
    add(&redis, &["b", "a", "c", "tidegate:queue"]).await;
    command(&redis, &["SET", "text", "x"]).await.unwrap();
    let listing = registry.listing().await.unwrap();
    assert_eq!((names(&listing), listing.left_out), (vec!["a", "b", "c"], 0));
    assert!(listing.cached_at <= std::time::SystemTime::now());
}

#[tokio::test]
async fn a_prefix_is_taken_literally() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    add(&redis, &["s[1]:a", "s1:b", "s[1]:c", "t"]).await;
    let options = RegistryOptions { prefix: Bytes::from("s[1]:"), ..RegistryOptions::default() };
    let registry = StreamRegistry::new(redis, options, &Registry::new());
    assert_eq!(names(&registry.listing().await.unwrap()), ["s[1]:a", "s[1]:c"]);
}

#[tokio::test]
async fn a_list_that_is_doubted_is_walked_for_again() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), FOREVER, FOREVER).await;
    add(&redis, &["a"]).await;
    assert_eq!(names(&registry.listing().await.unwrap()), ["a"]);
    add(&redis, &["b"]).await;
    assert_eq!(names(&registry.listing().await.unwrap()), ["a"]);
    registry.doubt();
    until(async || (names(&registry.listing().await.unwrap()) == ["a", "b"]).then_some(())).await;
    assert_eq!(walks(&server).await, 2);
}

#[tokio::test]
async fn a_young_list_is_served_without_asking_redis() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), FOREVER, FOREVER).await;
    add(&redis, &["a"]).await;
    assert_eq!(walks(&server).await, 0, "nobody asked yet");
    for _ in 0..1000 {
        assert_eq!(names(&registry.listing().await.unwrap()), ["a"]);
    }
    assert_eq!(walks(&server).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_begin_one_walk() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), FOREVER, FOREVER).await;
    add(&redis, &["a", "b"]).await;
    let callers = (0..1000).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.listing().await.unwrap().names.len() })
    });
    for listed in join_all(callers).await {
        assert_eq!(listed.unwrap(), 2);
    }
    assert_eq!(walks(&server).await, 1);
}

#[tokio::test]
async fn an_expired_list_is_walked_for_once_by_all_who_wait() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), NOW, NOW).await;
    add(&redis, &["a"]).await;
    registry.listing().await.unwrap();
    add(&redis, &["b"]).await;
    for listing in join_all((0..100).map(|_| registry.listing())).await {
        assert_eq!(names(&listing.unwrap()), ["a", "b"]);
    }
    assert_eq!(walks(&server).await, 2);
}

#[tokio::test]
async fn an_older_list_is_served_and_renewed_behind_the_back() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let (_, registry) = registry(&server.url_through(&proxy), NOW, FOREVER).await;
    let other = connect(&server.url()).await;
    add(&other, &["a"]).await;
    registry.listing().await.unwrap();
    add(&other, &["b"]).await;
    proxy.set(Toward::Server, Fault::Blackhole);
    let before = walks(&server).await;
    for _ in 0..100 {
        assert_eq!(names(&registry.listing().await.unwrap()), ["a"], "nobody waits for the walk");
    }
    proxy.heal();
    until(async || (names(&registry.listing().await.unwrap()) == ["a", "b"]).then_some(())).await;
    assert!(walks(&server).await > before);
}

#[tokio::test]
async fn own_changes_show_at_once() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), FOREVER, FOREVER).await;
    add(&redis, &["b"]).await;
    let first = registry.listing().await.unwrap();
    registry.created(b"a");
    registry.created(b"b");
    registry.created(b"tidegate:own");
    assert_eq!(names(&registry.listing().await.unwrap()), ["a", "b"]);
    registry.deleted(b"b");
    registry.deleted(b"never");
    assert_eq!(names(&registry.listing().await.unwrap()), ["a"]);
    assert_eq!(names(&first), ["b"], "a list in somebody's hands does not change");
    assert_eq!(walks(&server).await, 1);
}

#[tokio::test]
async fn a_walk_that_began_before_a_change_does_not_undo_it() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let (_, registry) = registry(&server.url_through(&proxy), NOW, FOREVER).await;
    let other = connect(&server.url()).await;
    add(&other, &["old", "stays"]).await;
    registry.listing().await.unwrap();
    // The walk of this call has seen `old` and not `new`; its reply is held back.
    proxy.set(Toward::Client, Fault::Delay(Duration::from_millis(200)));
    let before = walks(&server).await;
    registry.listing().await.unwrap();
    until(async || (walks(&server).await > before).then_some(())).await;
    registry.created(b"new");
    registry.deleted(b"old");
    registry.created(b"brief");
    registry.deleted(b"brief");
    let begun = registry.listing().await.unwrap();
    assert_eq!(names(&begun), ["new", "stays"]);
    // Redis knows nothing of `new`, so only the walk that began earlier can end with it.
    let renewed = until(async || Some(registry.listing().await.unwrap()).filter(|now| now.cached_at > begun.cached_at));
    assert_eq!(names(&*renewed.await), ["new", "stays"]);
}

#[tokio::test]
async fn a_failing_redis_is_told_once_the_list_expired_and_not_before() {
    let server = Server::start().await;
    let (redis, good) = registry(&server.url(), NOW, FOREVER).await;
    let (_, expired) = registry(&server.url(), NOW, NOW).await;
    add(&redis, &["a"]).await;
    good.listing().await.unwrap();
    expired.listing().await.unwrap();
    server.kill();
    for _ in 0..20 {
        assert_eq!(names(&good.listing().await.unwrap()), ["a"]);
    }
    assert!(expired.listing().await.is_err());
    server.restart().await;
    until(async || expired.listing().await.ok()).await;
}

#[tokio::test]
async fn too_many_streams_are_cut_off_at_the_end_and_counted() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let all: Vec<String> = (0..50).map(|number| format!("s{number:02}")).collect();
    add(&redis, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let options = RegistryOptions { names_max: 20, ..RegistryOptions::default() };
    let registry = StreamRegistry::new(redis, options, &Registry::new());
    let listing = registry.listing().await.unwrap();
    assert_eq!((names(&listing), listing.left_out), (all[..20].iter().map(String::as_str).collect(), 30));
    registry.created(b"s99");
    let listing = registry.listing().await.unwrap();
    assert_eq!((listing.names.len(), listing.left_out), (20, 31));
    registry.deleted(b"s00");
    registry.created(b"s98");
    assert_eq!(registry.listing().await.unwrap().names.len(), 20);
}

#[tokio::test]
async fn a_caller_who_leaves_ends_no_walk() {
    let server = Server::start().await;
    let (redis, registry) = registry(&server.url(), FOREVER, FOREVER).await;
    add(&redis, &["a"]).await;
    tokio::select! {
        biased;
        _ = registry.listing() => panic!("polled once"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(names(&registry.listing().await.unwrap()), ["a"]);
    assert_eq!(walks(&server).await, 1);
    redis.close().await;
}

#[tokio::test]
async fn a_walk_that_died_is_made_again() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    add(&redis, &["a"]).await;
    let first = AtomicBool::new(true);
    let keep = move |_: &[u8]| !first.swap(false, Ordering::Relaxed) || panic!("on purpose");
    let options = RegistryOptions { keep: Box::new(keep), ..RegistryOptions::default() };
    let registry = StreamRegistry::new(redis, options, &Registry::new());
    assert!(registry.listing().await.is_err());
    assert_eq!(names(&registry.listing().await.unwrap()), ["a"]);
}

#[tokio::test]
async fn in_a_cluster_the_streams_of_all_nodes_are_listed() {
    let cluster = Cluster::start().await;
    let (redis, registry) = registry(&cluster.url(), NOW, NOW).await;
    let all: Vec<String> = (0..30).map(|number| format!("s{number:02}")).collect();
    add(&redis, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(names(&registry.listing().await.unwrap()), all);
}
