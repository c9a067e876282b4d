//! What this crate promises, kept against real servers.

#![allow(clippy::unwrap_used)]

mod coalescing;
mod duplicates;
mod everywhere;
mod faults;
mod keys;
mod pool;
mod registry;
mod streams;
mod subscriptions;
mod tracking;

use std::time::Duration;

use bytes::Bytes;
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Config, Error, Redis, Value};

/// Longer than anything here takes; a test that gets there has failed.
const FOREVER: Duration = Duration::from_secs(30);

async fn connect(url: &str) -> Redis {
    connect_with(url, |_| {}).await
}

async fn connect_with(url: &str, change: impl FnOnce(&mut Config)) -> Redis {
    let mut config = Config::parse(url).unwrap();
    change(&mut config);
    Redis::connect(config, &Registry::new()).await.unwrap()
}

async fn command(redis: &Redis, words: &[&str]) -> Result<Value, Error> {
    let mut words = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes()));
    let name: &'static str = String::from_utf8(words.next().unwrap().to_vec()).unwrap().leak();
    let args: Vec<Bytes> = words.collect();
    redis.command(name, args.first().cloned(), args).await
}

/// Repeats until it succeeds.
async fn until<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let trying = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(FOREVER, trying).await.expect("it never came to be")
}
