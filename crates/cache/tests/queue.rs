//! The bounded queue of invalidations: what it drops it covers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use tidegate_cache::{Cache, Config, DropPolicy, Invalidation, InvalidationQueue, Keep, QueueConfig, Raw};
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tidegate_test_redis::Server;

const QUEUE: usize = 100;

fn config(drop_policy: DropPolicy, auto_invalidate: bool) -> QueueConfig {
    QueueConfig { queue_max: QUEUE, drop_policy, auto_invalidate }
}

fn key(n: usize) -> String {
    format!("k{n}")
}

/// A cache on a server of its own, and another process with the same one.
async fn two(server: &Server, redis_timeout: Duration) -> [Cache<Bytes>; 2] {
    let open = async || {
        let registry = Registry::new();
        let url = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
        let redis = Redis::connect(url, &registry).await.unwrap();
        Cache::connect(&redis, Raw, Config { redis_timeout, ..Config::default() }, &registry).await.unwrap()
    };
    [open().await, open().await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overflowing_it_a_hundred_times_leaves_no_stale_entry_and_exact_counts() {
    let server = Server::start().await;
    let caches = two(&server, Duration::from_secs(5)).await;
    for policy in [DropPolicy::Oldest, DropPolicy::Newest] {
        let keys: Vec<String> = (0..QUEUE * 100).map(key).collect();
        let entries = keys.iter().map(|key| (key.clone(), Bytes::from("old"), Keep::new())).collect();
        caches[0].set_many(entries).await.unwrap();
        for cache in &caches {
            assert_eq!(cache.get_many(&keys).await.unwrap().iter().flatten().count(), keys.len());
        }
        let queue = InvalidationQueue::new(&caches[0], config(policy, false), &Registry::new());
        let kept = keys.iter().filter(|key| queue.push(Invalidation::key(key.as_str()))).count();
        assert_eq!(kept, if policy == DropPolicy::Newest { QUEUE } else { QUEUE * 100 });
        let stats = queue.stats();
        assert_eq!((stats.queued, stats.waiting, stats.dropped), (10_000, 100, 9_900));
        assert_eq!(queue.apply().await.unwrap(), QUEUE);
        let stats = queue.stats();
        assert_eq!((stats.applied, stats.waiting, stats.dropped, stats.coarsened), (100, 0, 9_900, 1));
        assert_eq!(caches[0].get_many(&keys).await.unwrap().iter().flatten().count(), 0, "here at once");
        let forgotten = async || caches[1].get_many(&keys).await.unwrap().iter().flatten().count() == 0;
        let asking = async {
            while !forgotten().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(caches[1].config().staleness_max, asking).await.expect("elsewhere within H");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_applied_stays_and_is_tried_again() {
    let server = Server::start().await;
    let caches = two(&server, Duration::from_millis(250)).await;
    let queue = InvalidationQueue::new(&caches[0], config(DropPolicy::Oldest, true), &Registry::new());
    caches[0].set("a", Bytes::from("old"), Keep::new()).await.unwrap();
    server.pause();
    assert!(queue.push(Invalidation::key("a")));
    while queue.apply().await.is_ok() {}
    assert_eq!((queue.stats().applied, queue.stats().waiting), (0, 1));
    server.resume();
    tokio::time::timeout(Duration::from_secs(20), async {
        while queue.stats().applied == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("it is applied by itself");
    let found = async { caches[1].get("a").await };
    assert_eq!(found.await.unwrap(), None);
    queue.close().await.unwrap();
}

#[tokio::test]
async fn those_applied_as_they_come_need_nobody() {
    let cache = Cache::memory(Raw, Config::default(), &Registry::new()).unwrap();
    let queue = InvalidationQueue::new(&cache, config(DropPolicy::Newest, true), &Registry::new());
    for n in 0..1000 {
        cache.set(&key(n), Bytes::from("v"), Keep::new()).await.unwrap();
        queue.push(Invalidation::key(key(n)));
    }
    queue.close().await.unwrap();
    let stats = queue.stats();
    assert_eq!((stats.queued, stats.waiting, stats.applied + stats.dropped), (1000, 0, 1000));
    assert_eq!(cache.get_many(&(0..1000).map(key).collect::<Vec<_>>()).await.unwrap().iter().flatten().count(), 0);
}
