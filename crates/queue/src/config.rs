//! Every bound of the queues, each with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::QueueName;
use crate::clock::Clock;

/// What happens to a push when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is refused with [`Rejected::Full`](crate::Rejected::Full): nothing accepted is ever dropped.
    #[default]
    Reject,
    /// The waiting job of the least urgent priority that waits longest is discarded (reason `shed`) to make room.
    DropOldest,
    /// The waiting job of the least urgent priority that came last is discarded (reason `shed`) to make room.
    DropNewest,
}

/// The bounds of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Live jobs at most. 1 M: about half a GB of index.
    pub jobs_max: u64,
    /// Bytes of live jobs at most (payload, key, kind; 1 GiB).
    pub bytes_max: u64,
    /// What a full queue does.
    pub overflow: Overflow,
    /// Running jobs per fairness key at most; unlimited by default.
    pub key_limit: Option<u32>,
    /// Running jobs at most, all keys together; unlimited by default.
    pub running_limit: Option<u32>,
    /// Finished records kept at most. 10 000: enough to look back, little enough to list.
    pub finished_max: u64,
    /// Bytes of finished records kept at most (1 GiB).
    pub finished_bytes_max: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            jobs_max: 1_000_000,
            bytes_max: 1 << 30,
            overflow: Overflow::Reject,
            key_limit: None,
            running_limit: None,
            finished_max: 10_000,
            finished_bytes_max: 1 << 30,
        }
    }
}

/// The bounds of all queues of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a lease lasts without a beat. 10 s: five missed beats, so one slow pause in a worker costs nothing.
    pub lease: Duration,
    /// Queues at most; each costs an index and a set of metric series.
    pub queues_max: usize,
    /// Live jobs of all queues together at most: a push beyond is refused as by a full queue. 4 M: about 2 GB of index.
    pub jobs_max: u64,
    /// Bytes of live jobs of all queues together at most (4 GiB).
    pub bytes_max: u64,
    /// The largest payload or result of one job (16 MiB).
    pub payload_max: usize,
    /// Transitions kept in the history of each queue at most.
    pub history_max: u64,
    /// Transitions are kept this long at most.
    pub history_age: Duration,
    /// Idempotency keys remembered per queue at most, and ten times as many jobs under them; beyond, the oldest key is
    /// forgotten and counted.
    pub idempotency_max: usize,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
    /// The bounds of queues that are not named in `queues`.
    pub default: QueueConfig,
    /// The bounds of single queues.
    pub queues: BTreeMap<QueueName, QueueConfig>,
    /// What the names of keys and channels on Redis begin with (`tidegate`); different ones keep applications apart.
    pub redis_prefix: Arc<str>,
    /// Where to read the time. On Redis a [`Clock::System`] is that of Redis, for all processes the same.
    pub clock: Clock,
    /// Seed of the jitter; `None` takes one from the system.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            queues_max: 1000,
            jobs_max: 4_000_000,
            bytes_max: 4 << 30,
            payload_max: 16 << 20,
            history_max: 100_000,
            history_age: Duration::from_secs(7 * 86_400),
            idempotency_max: 100_000,
            idempotency_window: Duration::from_secs(86_400),
            default: QueueConfig::default(),
            queues: BTreeMap::new(),
            redis_prefix: "tidegate".into(),
            clock: Clock::System,
            seed: None,
        }
    }
}

/// A bound that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct LimitsError {
    /// Which.
    pub field: &'static str,
    /// What is accepted.
    pub reason: &'static str,
}

impl Config {
    /// Checks what no queue could work with.
    ///
    /// # Errors
    /// The first bound that is out of its range.
    pub fn check(&self) -> Result<(), LimitsError> {
        let lease_ms = self.lease.as_millis();
        if !(100..=3_600_000).contains(&lease_ms) {
            return Err(LimitsError { field: "lease", reason: "100 ms to 1 h" });
        }
        if self.queues_max == 0 {
            return Err(LimitsError { field: "queues_max", reason: "at least 1" });
        }
        let prefix = self.redis_prefix.as_bytes();
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'.');
        if !(1..=64).contains(&prefix.len()) || !prefix.iter().all(legal) {
            return Err(LimitsError { field: "redis_prefix", reason: "1 to 64 characters of A-Z a-z 0-9 - _ : ." });
        }
        if self.payload_max == 0 || self.payload_max > 1 << 30 {
            return Err(LimitsError { field: "payload_max", reason: "1 byte to 1 GiB" });
        }
        Ok(())
    }

    pub(crate) fn queue(&self, name: &QueueName) -> &QueueConfig {
        self.queues.get(name).unwrap_or(&self.default)
    }
}
