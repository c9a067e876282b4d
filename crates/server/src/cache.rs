//! The cache behind `/api/performance/cache`: JSON texts by key, and the queue of invalidations in front of it.
//!
//! [`tidegate_cache`] decides what is kept and given; here it is opened, warmed at the start, and closed in the drain.

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tidegate_cache::{Cache, Codec, CodecError, DropPolicy, Error, InvalidationQueue, QueueConfig};
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::app::Shown;
use crate::backend::{Backend, check_redis};
use crate::config::{self, Config};
use crate::error::Problem;

/// What the cache of the interface is called, in its keys on Redis and as a label of its metrics.
const NAME: &str = "api";

/// 2 reads of many values at once: each may hold what all its values take, and the line to Redis is shared by all.
const BATCH_READS: usize = 2;

/// The values of the interface.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) values: Cache<Bytes>,
    pub(crate) invalidations: InvalidationQueue,
    /// Taken by reads of many values, for as long as they hold them.
    pub(crate) batch_reads: Semaphore,
    /// Where its second tier is, and whether that is the cache's alone.
    redis: Option<Shown<Redis>>,
    has_own_redis: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Values {
    /// Opens the cache where the backend is, and begins to fetch what was asked for most before the last end.
    pub(crate) async fn open(backend: &Backend, config: &Config, registry: &Registry) -> Result<Self, Error> {
        let own_redis = own_redis(config).await?;
        let has_own_redis = own_redis.is_some();
        let redis = own_redis.or_else(|| backend.redis().cloned());
        let values = match &redis {
            Some(redis) => Cache::connect(redis, JsonText, cache_config(config), registry).await?,
            None => Cache::memory(JsonText, cache_config(config), registry)?,
        };
        let invalidations = InvalidationQueue::new(&values, queue_config(config), registry);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        if config.cache_hottest_saved > 0 && redis.is_some() {
            let warming = warm_hottest(values.clone(), config.cache_hottest_saved);
            tasks.spawn(stop.clone().run_until_cancelled_owned(warming));
        }
        let batch_reads = Semaphore::new(BATCH_READS);
        let redis = redis.map(Shown);
        Ok(Self { values, invalidations, batch_reads, redis, has_own_redis, tasks, stop })
    }

    /// Whether its Redis can be asked, if it has one.
    ///
    /// # Errors
    /// The problem that keeps it from that.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.redis.as_ref().map_or(Ok(()), |redis| check_redis(redis).map(|_| ()))
    }

    /// Brings the gauges up to date.
    pub(crate) fn export(&self, registry: &Registry) {
        // Asking for the figures sets their gauges.
        let _ = self.values.stats();
        if let Some(redis) = self.redis.as_ref().filter(|_| self.has_own_redis) {
            let help = "1 while there is a connection to the Redis that is the cache's alone.";
            let connected = if redis.health().connected { 1.0 } else { 0.0 };
            registry.gauge("tidegate_cache_redis_connected", help).set(connected);
        }
    }

    /// Applies what waits in the queue, writes the hottest keys down and lets go; each gets so much time.
    pub(crate) async fn close(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        match timeout(patience, self.invalidations.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, waiting = self.waiting(), "queued invalidations were not applied"),
            Err(_) => tracing::warn!(waiting = self.waiting(), "queued invalidations were not applied in time"),
        }
        if timeout(patience, self.values.close()).await.is_err() {
            tracing::warn!("the cache did not close in time");
        }
        if let Some(redis) = self.redis.as_ref().filter(|_| self.has_own_redis)
            && timeout(patience, redis.close()).await.is_err()
        {
            tracing::warn!("the connections to the Redis of the cache did not close in time");
        }
    }

    fn waiting(&self) -> u64 {
        self.invalidations.stats().waiting
    }
}

/// Connects to the Redis that is the cache's alone, where one is configured. Its figures are not exported: they would be mixed up with
/// those of the Redis that keeps the jobs.
async fn own_redis(config: &Config) -> Result<Option<Redis>, Error> {
    let Some(redis) = config.cache_redis_config() else { return Ok(None) };
    let unexported = Registry::new();
    let connecting = Redis::connect(redis, &unexported);
    // What it says about evictions and persistence is meant for jobs: the span tells which Redis it is.
    Ok(Some(connecting.instrument(tracing::info_span!("cache_redis")).await?))
}

/// Fetches the keys that were written down at the end of the last run.
async fn warm_hottest(values: Cache<Bytes>, most: usize) {
    let mut keys = match values.saved_hottest().await {
        Ok(keys) => keys,
        Err(error) => return tracing::warn!(%error, "the cache was not warmed: no list of the hottest keys"),
    };
    keys.truncate(most);
    if keys.is_empty() {
        return;
    }
    let warmed = values.fetch(&keys, |_| {}).await;
    tracing::info!(warmed = warmed.warmed, missing = warmed.missing, failed = warmed.failed, "the cache was warmed");
}

/// JSON texts as they were sent. What comes from Redis is checked once, when it enters memory: whatever others may have put
/// there, an answer is never broken by it.
#[derive(Clone, Copy, Debug)]
struct JsonText;

impl Codec<Bytes> for JsonText {
    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, CodecError> {
        serde_json::from_slice::<&RawValue>(&bytes).map_err(CodecError::new)?;
        Ok(bytes)
    }

    fn weight(&self, value: &Bytes) -> usize {
        value.len()
    }
}

fn cache_config(config: &Config) -> tidegate_cache::Config {
    let compress_from = config.cache_compress_from.as_usize();
    tidegate_cache::Config {
        name: NAME.into(),
        entries_max: config.cache_entries_max,
        bytes_max: config.cache_bytes_max.0,
        value_bytes_max: config.cache_value_bytes_max.as_usize(),
        ttl: config.cache_ttl,
        ttl_max: config.cache_ttl_max,
        ttl_jitter: config.cache_ttl_jitter.fraction(),
        staleness_max: config.cache_staleness_max,
        redis_timeout: config.cache_redis_timeout,
        compress_from: if compress_from == 0 { usize::MAX } else { compress_from },
        hottest_saved: config.cache_hottest_saved,
        redis_prefix: config.redis_prefix.0.as_str().into(),
        ..tidegate_cache::Config::default()
    }
}

fn queue_config(config: &Config) -> QueueConfig {
    QueueConfig {
        queue_max: config.cache_queue_max,
        drop_policy: match config.cache_queue_drop {
            config::DropPolicy::Oldest => DropPolicy::Oldest,
            config::DropPolicy::Newest => DropPolicy::Newest,
        },
        auto_invalidate: config.cache_auto_invalidate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_on_redis_counts_as_absent() {
        for text in ["", "{", "1 2", "\u{0}", "{\"a\":01}"] {
            assert!(JsonText.decode(Bytes::copy_from_slice(text.as_bytes())).is_err(), "{text:?}");
        }
        assert!(JsonText.decode(Bytes::from_static(b"\"\xff\"")).is_err());
        let text = Bytes::from_static(b"{\"a\": 1.0e+2, \"a\" : 12345678901234567890123}");
        assert_eq!(JsonText.decode(text.clone()).unwrap(), text);
    }
}
