//! Workloads on tier 2: values on a private Redis, and caches that do not have them in memory yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::interfaces::KeysInterface;
use tidegate_cache::{Cache, Config, Keep, Raw};
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tokio::task::JoinSet;

use crate::cache::value;

/// Keys that are on Redis.
pub const KEYS: usize = 200_000;
/// Keys per call.
pub const BATCH: usize = 100;
/// Callers of single keys.
pub const CALLERS: usize = 64;

/// A cache of ours as a process has it that comes new, with nothing in memory.
///
/// # Panics
/// When there is no Redis.
pub async fn open(redis: &Redis) -> Cache<Bytes> {
    // On a machine that others use a reply may come late; by default the cache would go on without it.
    let redis_timeout = Duration::from_secs(5);
    let config = Config { entries_max: 2 * KEYS, bytes_max: 1 << 40, redis_timeout, ..Config::default() };
    Cache::connect(redis, Raw, config, &Registry::new()).await.expect("a cache")
}

/// Puts all keys on Redis: as a cache of ours keeps them, and as bare strings of the same bytes.
///
/// # Panics
/// When Redis does not take them.
pub async fn fill(redis: &Redis, names: &[String]) {
    let cache = open(redis).await;
    for (at, names) in names.chunks(1000).enumerate() {
        let numbered = || names.iter().enumerate().map(|(number, name)| (name, value(at * 1000 + number)));
        let entries = numbered().map(|(name, value)| (name.clone(), value, Keep::new())).collect();
        cache.set_many(entries).await.expect("kept");
        let pairs = numbered().flat_map(|(name, value)| [bare(name), value]).collect();
        redis.command("MSET", None, pairs).await.expect("OK");
    }
    cache.close().await;
}

/// The key of a bare string.
#[must_use]
pub fn bare(name: &str) -> Bytes {
    format!("bare:{name}").into()
}

fn rate(keys: usize, started: Instant) -> f64 {
    keys as f64 / started.elapsed().as_secs_f64()
}

/// Keys per second of one caller that asks a new cache for a hundred at a time.
///
/// # Panics
/// When one is missing.
pub async fn get_many(redis: &Redis, names: &[String]) -> f64 {
    let cache = open(redis).await;
    // The link is made and verified by the first read.
    cache.get("absent").await.expect("an answer");
    let started = Instant::now();
    for names in names.chunks(BATCH) {
        let values = cache.get_many(names).await.expect("values");
        assert!(values.iter().all(Option::is_some), "all are there");
    }
    let rate = rate(names.len(), started);
    cache.close().await;
    rate
}

/// Keys per second of one caller of bare `MGET`s of a hundred.
///
/// # Panics
/// When one is missing.
pub async fn mget(redis: &Redis, names: &[Bytes]) -> f64 {
    let started = Instant::now();
    for names in names.chunks(BATCH) {
        let values = redis.get_many(names).await.expect("values");
        assert!(values.iter().all(Option::is_some), "all are there");
    }
    rate(names.len(), started)
}

/// Keys per second of 64 callers that each ask a new cache for one key after the other.
///
/// # Panics
/// When one is missing.
pub async fn get_each(redis: &Redis, names: &Arc<Vec<String>>) -> f64 {
    let cache = open(redis).await;
    cache.get("absent").await.expect("an answer");
    let (asked, values) = (cache.clone(), names.clone());
    let rate = each(names.len(), move |number| {
        let (cache, names) = (asked.clone(), values.clone());
        async move { cache.get(&names[number]).await.expect("an answer").is_some() }
    })
    .await;
    cache.close().await;
    rate
}

/// The same of fred, which has one connection as ours has.
///
/// # Panics
/// When one is missing.
pub async fn fred_each(client: &fred::clients::Client, names: &Arc<Vec<String>>) -> f64 {
    let (asked, values) = (client.clone(), names.clone());
    each(names.len(), move |number| {
        let (client, names) = (asked.clone(), values.clone());
        async move {
            let value: Option<Bytes> = client.get(bare(&names[number])).await.expect("an answer");
            value.is_some()
        }
    })
    .await
}

async fn each<Got>(count: usize, get: impl Fn(usize) -> Got + Clone + Send + Sync + 'static) -> f64
where
    Got: Future<Output = bool> + Send,
{
    let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (get, next) = (get.clone(), next.clone());
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                assert!(get(number).await, "it is there");
            }
        });
    }
    callers.join_all().await;
    rate(count, started)
}
