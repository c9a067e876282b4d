//! Where jobs and events are kept: opened at the start, asked for readiness, closed at the end.
//!
//! [`tidegate_queue`] and [`tidegate_events`] hide which of the two it is; what is here is what an operator must know
//! about it.

use std::time::Duration;

use tidegate_events::Bus;
use tidegate_metrics::Registry;
use tidegate_queue::Queues;
use tidegate_redis_ops as redis;
use tidegate_redis_ops::{BreakerState, PoolStats, Redis};
use tidegate_store::Store;
use tokio::time::timeout;

use crate::config::{Config, Durability};
use crate::error::{Code, Problem};
use crate::serve::StartError;

/// 1 s: what a restart of Redis takes at least; probes come again anyway.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Warnings of Redis, by the names they have in metrics.
const WARNINGS: [&str; 3] = ["evicting", "weak_durability", "unreadable"];

/// Where jobs and events are kept.
#[derive(Clone)]
pub(crate) enum Backend {
    /// In a folder of this process.
    Embedded(Store),
    /// On a Redis that other processes share.
    Redis(Redis),
}

/// What a probe is told about the backend when it works.
#[derive(Default)]
pub(crate) struct Standing {
    /// What an operator should change, or know.
    pub(crate) warnings: Vec<String>,
    /// `redis 7.0.15` and `standalone`.
    pub(crate) redis: Option<(String, &'static str)>,
}

impl Backend {
    /// Opens what the configuration names. With Redis no folder is touched.
    pub(crate) async fn open(config: &Config, registry: &Registry) -> Result<Self, StartError> {
        match config.redis_config() {
            Some(redis) => connect(config, redis, registry).await.map(Self::Redis),
            None => open_store(config, registry).await.map(Self::Embedded),
        }
    }

    /// The queues kept there.
    pub(crate) async fn queues(
        &self,
        config: tidegate_queue::Config,
        registry: &Registry,
    ) -> Result<Queues, tidegate_queue::Error> {
        match self {
            Self::Embedded(store) => Queues::open(store.clone(), config, registry).await,
            Self::Redis(redis) => Queues::connect(redis.clone(), config, registry).await,
        }
    }

    /// The event streams kept there.
    pub(crate) async fn bus(
        &self,
        config: tidegate_events::Config,
        registry: &Registry,
    ) -> Result<Bus, tidegate_events::Error> {
        match self {
            Self::Embedded(store) => Bus::open(store.clone(), FIRST_TABLE_OF_EVENTS, config, registry).await,
            Self::Redis(redis) => Bus::connect(redis.clone(), config, registry).await,
        }
    }

    /// The Redis that others share with this server, if there is one.
    pub(crate) fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(redis) => Some(redis),
        }
    }

    /// What the pool of connections for blocking reads holds; all zero on the embedded store.
    pub(crate) fn blocking_pool(&self) -> PoolStats {
        match self {
            Self::Embedded(_) => PoolStats::default(),
            Self::Redis(redis) => redis.blocking_pool().stats(),
        }
    }

    /// `embedded` or `redis`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Redis(_) => "redis",
        }
    }

    /// How it is, without asking anybody: a probe is answered at once, whatever state Redis is in.
    ///
    /// # Errors
    /// The problem that keeps it from working.
    pub(crate) fn check(&self) -> Result<Standing, Problem> {
        match self {
            Self::Embedded(store) => {
                store.check().map_err(tidegate_queue::Error::from)?;
                let warnings = store.check_growth().err().map(|error| error.to_string()).into_iter().collect();
                Ok(Standing { warnings, redis: None })
            }
            Self::Redis(redis) => {
                let health = check_redis(redis)?;
                let warnings = health.warnings.iter().map(ToString::to_string).collect();
                Ok(Standing { warnings, redis: Some((health.version, health.topology)) })
            }
        }
    }

    /// Brings the gauges of what an operator should change up to date.
    pub(crate) fn export_warnings(&self, registry: &Registry) {
        let Self::Redis(redis) = self else { return };
        let warnings = redis.health().warnings;
        for name in WARNINGS {
            let help = "1 while Redis is set up in this way, which an operator should change.";
            let gauge = registry.gauge_with("tidegate_redis_warning", help, &[("warning", name)]);
            gauge.set(if warnings.iter().any(|warning| warning.as_str() == name) { 1.0 } else { 0.0 });
        }
    }

    /// Makes everything durable and lets go. On Redis, calls that are still under way get `patience`: what they could
    /// still do, others do as well, when the leases run out.
    pub(crate) async fn close(&self, queues: &Queues, bus: &Bus, patience: Duration) {
        match self {
            Self::Embedded(_) => {
                // Before the queues: they close the store.
                if let Err(error) = bus.close().await {
                    tracing::error!(%error, "failed to write out events that were not durable yet");
                }
                if let Err(error) = queues.close().await {
                    tracing::error!(%error, "failed to write out what was not durable yet");
                }
            }
            Self::Redis(redis) => {
                if timeout(patience, bus.close()).await.is_err() {
                    tracing::warn!("Redis did not answer the last publishes; nobody knows whether they were done");
                }
                if timeout(patience, queues.close()).await.is_err() {
                    tracing::warn!(
                        "Redis did not answer the last calls; what they held is handed out again when its leases run out"
                    );
                }
                if timeout(patience, redis.close()).await.is_err() {
                    tracing::warn!("the connections to Redis did not close in time");
                }
            }
        }
    }
}

/// How a Redis is, without asking it.
///
/// # Errors
/// The problem that keeps it from working.
pub(crate) fn check_redis(redis: &Redis) -> Result<redis::Health, Problem> {
    let health = redis.health();
    match unwell(&health) {
        Some(reason) => Err(Problem::new(Code::RedisUnavailable, reason).retry_after(RETRY_AFTER)),
        None => Ok(health),
    }
}

/// Why no call can work at the moment, if so.
fn unwell(health: &redis::Health) -> Option<String> {
    let last = health.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    match (health.connected, health.breaker) {
        (false, _) => Some(format!("There is no connection to Redis{last}.")),
        (true, BreakerState::Open) => Some(format!("Redis failed too often just now{last}.")),
        (true, _) => None,
    }
}

async fn connect(config: &Config, redis: redis::Config, registry: &Registry) -> Result<Redis, StartError> {
    Redis::connect(redis, registry).await.map_err(|source| StartError::redis(config, &source))
}

/// Opens the store on a thread where it may block: it reads its journal.
async fn open_store(config: &Config, registry: &Registry) -> Result<Store, StartError> {
    let durability = match config.durability {
        Durability::Memory => return Ok(Store::memory(&tables())),
        Durability::Sync => tidegate_store::Durability::Sync,
        Durability::Everysec => tidegate_store::Durability::EverySecond,
    };
    let folder = tidegate_store::Config {
        durability,
        reserve_bytes: config.disk_reserve.0,
        repair: config.repair,
        ..tidegate_store::Config::new(&config.data)
    };
    let registry = registry.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(folder, &tables(), &registry)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The tables of the embedded store: those of the queues, then those of the events.
pub(crate) fn tables() -> Vec<&'static str> {
    [tidegate_queue::TABLES, tidegate_events::TABLES].concat()
}

const FIRST_TABLE_OF_EVENTS: u8 = tidegate_queue::TABLES.len() as u8;

/// The least that Redis must allow a user of this server, as the line that grants it. Without a prefix for streams, that
/// is every key.
pub fn redis_acl(user: &str, prefix: &str, stream_prefix: &str) -> String {
    redis::acl_line(user, &format!("{prefix}:"), stream_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(connected: bool, breaker: BreakerState) -> redis::Health {
        redis::Health {
            connected,
            breaker,
            last_error: Some("connection refused".into()),
            warnings: Vec::new(),
            version: "redis 7.0.15".into(),
            topology: "standalone",
            durability: redis::Durability::EverySecond,
        }
    }

    #[test]
    fn a_lost_link_and_an_open_breaker_are_not_ready_and_say_why() {
        assert_eq!(unwell(&health(true, BreakerState::Closed)), None);
        assert_eq!(unwell(&health(true, BreakerState::HalfOpen)), None, "one command at a time tries");
        let reason = unwell(&health(false, BreakerState::Closed)).unwrap();
        assert_eq!(reason, "There is no connection to Redis: connection refused.");
        assert!(unwell(&health(true, BreakerState::Open)).unwrap().contains("connection refused"));
    }
}
