//! What kinds of values there are, how long they live, and what memory they may take.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_cache::{
    Cache, Clock, Codec, Config, Error, Invalidation, Json, Keep, ManualClock, Metadata, Postcard, Raw,
};
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tokio_util::sync::CancellationToken;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    visits: u64,
    tags: Vec<String>,
}

fn ada() -> Arc<User> {
    Arc::new(User { name: "ada".into(), visits: u64::MAX, tags: vec!["x".repeat(3000), String::new()] })
}

async fn connect<V: Clone + Send + Sync + 'static>(name: &str, codec: impl Codec<V>) -> Cache<V> {
    let registry = Registry::new();
    let url = tidegate_redis_ops::Config::parse(&tidegate_test_redis::shared().await.url()).unwrap();
    let redis = Redis::connect(url, &registry).await.unwrap();
    let redis_timeout = Duration::from_secs(5);
    let config = Config { name: name.into(), redis_timeout, ..Config::default() };
    Cache::connect(&redis, codec, config, &registry).await.unwrap()
}

async fn typed<T, C>(name: &str, codec: C, value: Arc<T>)
where
    T: Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static,
    C: Codec<Arc<T>> + Copy,
{
    let [one, other] = [connect(name, codec).await, connect(name, codec).await];
    let loaded = value.clone();
    let found = one.get_or_load("a", Keep::new(), || async { Ok::<_, Infallible>(Some(loaded)) }).await.unwrap();
    assert_eq!(found.as_ref(), Some(&value));
    assert_eq!(other.get("a").await.unwrap(), Some(value), "as another process reads it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_serde_come_back_through_redis() {
    typed("json", Json, ada()).await;
    typed("postcard", Postcard, ada()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_loaded_anew() {
    let text = connect("shape", Raw).await;
    let users = connect("shape", Json).await;
    for garbage in ["", "{", "7", r#"{"name":"ada","visits":-1,"tags":[]}"#] {
        text.set("a", Bytes::from(garbage), Keep::new()).await.unwrap();
        // As soon as it is told of.
        let asking = async { while users.get("a").await.unwrap().is_some() {} };
        tokio::time::timeout(Duration::from_secs(20), asking).await.expect("it is told of");
        let found = users.get_or_load("a", Keep::new(), || async { Ok::<_, Infallible>(Some(ada())) }).await.unwrap();
        assert_eq!(found, Some(ada()));
        assert_eq!(users.get("a").await.unwrap(), Some(ada()));
    }
    assert!(users.stats().unreadable >= 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_at_our_keys_is_never_taken_for_a_value() {
    let server = tidegate_test_redis::Server::start().await;
    let registry = Registry::new();
    let url = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    let redis = Redis::connect(url, &registry).await.unwrap();
    let cache = Cache::connect(&redis, Raw, Config::default(), &registry).await.unwrap();
    let key = "tidegate:cache:default:v:{a}";
    cache.set("a", Bytes::from("v"), Keep::new()).await.unwrap();
    let tidegate_test_redis::Reply::Text(record) = server.command(&["GET", key]).await else { panic!() };
    let huge = vec![7; 1 << 20];
    let mut bomb = record.to_vec();
    bomb.truncate(30);
    bomb.extend([0xff; 64]);
    for garbage in [&b""[..], b"x", &[1], &record[..9], &record[..24], &record[..record.len().min(30)], &huge, &bomb] {
        server.command(&[b"SET".as_slice(), key.as_bytes(), garbage]).await;
        let found = cache.get_many(&["a", "b"]).await;
        assert_eq!(found.unwrap(), [None, None], "{} bytes", garbage.len());
    }
    server.command(&["DEL", key]).await;
    server.command(&["HSET", key, "field", "value"]).await;
    assert_eq!(cache.get("a").await.unwrap(), None);
    // Nothing lies there that could be compared: the load goes on without.
    let load = || async { Ok::<_, Infallible>(Some(Bytes::from("loaded"))) };
    assert_eq!(cache.get_or_load("a", Keep::new(), load).await.unwrap(), Some(Bytes::from("loaded")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_values_are_read_at_once() {
    let cache = connect("large", Raw).await;
    let keys: Vec<String> = (0..96).map(|n| format!("k{n}")).collect();
    let value = Bytes::from((0..1 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761) as u8).collect::<Vec<_>>());
    for key in &keys {
        cache.set(key, value.clone(), Keep::new()).await.unwrap();
    }
    let reader = connect("large", Raw).await;
    let reads = keys.iter().map(|key| {
        let (reader, key) = (reader.clone(), key.clone());
        tokio::spawn(async move { reader.get(&key).await })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap().unwrap(), Some(value.clone()));
    }
    assert_eq!(reader.stats().flushes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_can_be_told_to_forget() {
    let server = tidegate_test_redis::Server::start().await;
    let registry = Registry::new();
    let url = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    let redis = Redis::connect(url, &registry).await.unwrap();
    let cache = Cache::connect(&redis, Raw, Config::default(), &registry).await.unwrap();
    for key in ["p:1", "t", "z"] {
        cache.set(key, Bytes::from("v"), Keep::new().tag("tag")).await.unwrap();
    }
    cache.set("other", Bytes::from("v"), Keep::new()).await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    assert!(cache.set("new", Bytes::from("v"), Keep::new()).await.is_err());
    cache.invalidate(Invalidation::prefix("p:")).await.unwrap();
    assert_eq!(cache.get("p:1").await.unwrap(), None);
    cache.invalidate(Invalidation::tag("tag")).await.unwrap();
    assert_eq!(cache.get("t").await.unwrap(), None);
    assert_eq!(cache.get("other").await.unwrap(), Some(Bytes::from("v")));
    let cleared = cache.clear(None, |_| {}, &CancellationToken::new()).await.unwrap();
    assert_eq!((cleared, cache.get("other").await.unwrap()), (4, None));
}

fn timed(tune: impl FnOnce(&mut Config)) -> (Cache<Bytes>, ManualClock) {
    let clock = ManualClock::default();
    let mut config = Config { clock: Clock::Manual(clock.clone()), ..Config::default() };
    tune(&mut config);
    (Cache::memory(Raw, config, &Registry::new()).unwrap(), clock)
}

#[tokio::test]
async fn a_value_lives_for_its_time_and_no_longer() {
    let (cache, clock) = timed(|config| config.ttl_jitter = 0.0);
    cache.set("default", Bytes::from("v"), Keep::new()).await.unwrap();
    cache.set("short", Bytes::from("v"), Keep::new().ttl(Duration::from_millis(100))).await.unwrap();
    cache.set("forever", Bytes::from("v"), Keep::new().ttl(Duration::MAX)).await.unwrap();
    clock.advance(Duration::from_millis(99));
    assert!(cache.peek("short").is_some());
    clock.advance(Duration::from_millis(1));
    assert!(cache.peek("short").is_none());
    cache.sweep().await;
    assert_eq!((cache.stats().size, cache.stats().expirations), (2, 1));
    clock.advance(Duration::from_secs(3600));
    assert!(cache.peek("default").is_none() && cache.peek("forever").is_some());
    clock.advance(cache.config().ttl_max);
    assert!(cache.peek("forever").is_none(), "nothing is forever");
    cache.sweep().await;
    assert_eq!((cache.stats().size, cache.stats().bytes), (0, 0));
}

#[tokio::test]
async fn what_has_expired_is_removed_by_itself() {
    let cache = Cache::memory(Raw, Config::default(), &Registry::new()).unwrap();
    cache.set("a", Bytes::from("v"), Keep::new().ttl(Duration::from_millis(20))).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while cache.stats().size > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the sweep comes");
    assert_eq!(cache.stats().expirations, 1);
}

#[tokio::test]
async fn chance_spreads_what_was_kept_together() {
    let (cache, clock) = timed(|config| config.ttl_jitter = 0.2);
    let ttl = Duration::from_secs(100);
    for n in 0..1000 {
        cache.set(&n.to_string(), Bytes::from("v"), Keep::new().ttl(ttl)).await.unwrap();
    }
    clock.advance(Duration::from_secs(79));
    // The sweep that comes by itself may have been first.
    let expired = async || {
        cache.sweep().await;
        cache.stats().expirations
    };
    assert_eq!(expired().await, 0);
    clock.advance(Duration::from_secs(11));
    let half = expired().await;
    assert!((350..650).contains(&half), "{half}");
    clock.advance(Duration::from_secs(11));
    assert_eq!(expired().await, 1000);
}

#[tokio::test]
async fn entries_and_bytes_are_both_bounded() {
    let (few, _) = timed(|config| config.entries_max = 300);
    for n in 0..5000 {
        few.set(&n.to_string(), Bytes::from("v"), Keep::new()).await.unwrap();
    }
    let stats = few.stats();
    assert!((250..=300).contains(&stats.size) && stats.evictions == 5000 - stats.size, "{stats:?}");
    let (small, _) = timed(|config| config.bytes_max = 1 << 20);
    for n in 0..500 {
        small.set(&n.to_string(), Bytes::from(vec![0; n * 100]), Keep::new()).await.unwrap();
    }
    let stats = small.stats();
    assert!(((512 << 10)..=(1 << 20)).contains(&stats.bytes), "{stats:?}");
    let large = small.set("large", Bytes::from(vec![0; 200_000]), Keep::new()).await;
    assert!(matches!(large, Err(Error::TooLarge { bytes_max: 131_072, .. })), "{large:?}");
}

#[tokio::test]
async fn metadata_lives_five_minutes_and_tells_its_hit_rate() {
    let clock = ManualClock::default();
    let ttl = Metadata::<User>::new("defaults", &Registry::new()).unwrap().config().ttl;
    assert_eq!(ttl, Duration::from_secs(300));
    let config = Config { clock: Clock::Manual(clock.clone()), ttl, ttl_jitter: 0.0, ..Config::default() };
    let users = Metadata::with_config(config, &Registry::new()).unwrap();
    let load = || async { Ok::<_, Infallible>(Arc::into_inner(ada())) };
    for _ in 0..4 {
        assert_eq!(users.get_or_load("ada", load).await.unwrap(), Some(ada()));
    }
    assert_eq!((users.stats().hit_rate(), users.stats().loads), (0.75, 1));
    clock.advance(ttl);
    assert!(users.get("ada").is_none());
}

#[tokio::test]
async fn loads_are_bounded_those_that_run_and_those_that_wait() {
    let (cache, _) = timed(|config| (config.loads_max, config.loads_waiting_max) = (2, 4));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let load = |n: usize| {
        let (cache, gate) = (cache.clone(), gate.clone());
        tokio::spawn(async move {
            let load = move || async move {
                gate.acquire().await.map(tokio::sync::SemaphorePermit::forget).map(|()| Some(Bytes::from("v")))
            };
            cache.get_or_load(&n.to_string(), Keep::new(), load).await
        })
    };
    let running: Vec<_> = (0..4).map(load).collect();
    while cache.stats().loading < 4 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.stats().loads, 2, "the others wait");
    let refused = load(4).await.unwrap();
    assert!(matches!(refused, Err(Error::Overloaded { waiting: 4, .. })), "{refused:?}");
    gate.add_permits(4);
    for load in running {
        assert_eq!(load.await.unwrap().unwrap(), Some(Bytes::from("v")));
    }
}
