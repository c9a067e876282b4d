//! Clearing many values: the total is exact, it can be cancelled, and nobody else notices much.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_cache::{Cache, Config, Keep, Raw};
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tidegate_test_redis::Server;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

async fn open(server: &Server) -> Cache<Bytes> {
    let registry = Registry::new();
    let url = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    let redis = Redis::connect(url, &registry).await.unwrap();
    let config = Config { redis_timeout: Duration::from_secs(5), ..Config::default() };
    Cache::connect(&redis, Raw, config, &registry).await.unwrap()
}

async fn fill(cache: &Cache<Bytes>, count: usize) {
    for from in (0..count).step_by(1000) {
        let entries = (from..count.min(from + 1000))
            .map(|n| (format!("item:{n}"), Bytes::from_static(b"some value of usual size"), Keep::new()))
            .collect();
        cache.set_many(entries).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_clear_says_how_far_it_came_and_nothing_old_is_given() {
    let server = Server::start().await;
    let [cache, other] = [open(&server).await, open(&server).await];
    fill(&cache, 20_000).await;
    assert!(other.get("item:7").await.unwrap().is_some());
    let cancel = CancellationToken::new();
    let mut told = Vec::new();
    let stop_early = |sum| {
        told.push(sum);
        if sum >= 3000 {
            cancel.cancel();
        }
    };
    let first = cache.clear(Some("item:"), stop_early, &cancel).await.unwrap();
    assert!((3000..20_000).contains(&first) && told.last() == Some(&first) && told.is_sorted(), "{first} {told:?}");
    let keys: Vec<String> = (0..20_000).map(|n| format!("item:{n}")).collect();
    assert_eq!(cache.get_many(&keys).await.unwrap().iter().flatten().count(), 0, "all is forgotten at once");
    let second = cache.clear(Some("item:"), |_| {}, &CancellationToken::new()).await.unwrap();
    assert_eq!(first + second, 20_000);
    assert_eq!(cache.clear(None, |_| {}, &CancellationToken::new()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_while_it_is_cleared_stays() {
    let server = Server::start().await;
    let cache = open(&server).await;
    fill(&cache, 5000).await;
    let (writer, cancel, begun) = (cache.clone(), CancellationToken::new(), Notify::new());
    let mut kept = Vec::new();
    let clearing = cache.clear(Some("item:"), |_| begun.notify_one(), &cancel);
    let writing = async {
        begun.notified().await;
        for n in 0..200 {
            let key = format!("item:new:{n}");
            writer.set(&key, Bytes::from_static(b"new"), Keep::new()).await.unwrap();
            kept.push(key);
        }
    };
    let (cleared, ()) = tokio::join!(clearing, writing);
    assert_eq!(cleared.unwrap(), 5000);
    assert_eq!(writer.get_many(&kept).await.unwrap().iter().flatten().count(), 200);
}

/// `cargo test --release -p tidegate-cache --test clearing -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn clearing_a_million_is_hardly_noticed() {
    const COUNT: usize = 1_000_000;
    let server = Server::start().await;
    let cache = open(&server).await;
    fill(&cache, COUNT).await;
    let done = CancellationToken::new();
    let pinging = tokio::spawn({
        let (mut client, done) = (server.connect().await.unwrap(), done.clone());
        async move {
            let mut worst = Duration::ZERO;
            while !done.is_cancelled() {
                let asked = Instant::now();
                client.command(&["PING"]).await.unwrap();
                worst = worst.max(asked.elapsed());
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            worst
        }
    });
    let (before, started) = (rss(), Instant::now());
    let mut most = 0;
    let cleared = cache.clear(None, |_| most = most.max(rss()), &CancellationToken::new()).await.unwrap();
    done.cancel();
    let (took, worst) = (started.elapsed(), pinging.await.unwrap());
    println!("{cleared} cleared in {took:?}; worst PING {worst:?}; memory grew by {} KiB", most.saturating_sub(before));
    assert_eq!(cleared, COUNT as u64);
    assert!(most < before + 32 * 1024, "{before} KiB before, {most} KiB while clearing");
}

/// Resident memory of this process, in KiB.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
