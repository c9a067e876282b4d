//! Every bound of the scheduler, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use tidegate_queue::Clock;

use crate::{BreakerConfig, CpuConfig, Error};

/// The bounds of one scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Jobs that may run at once in each served queue when nothing waits. 1: a permit costs nothing, but a claim for
    /// many jobs takes them away from other processes.
    pub permits_min: usize,
    /// Jobs that run at once in each served queue at most. 10.
    pub permits_max: usize,
    /// The pool grows until what waits can be started within this long. 100 ms: below what a person notices, far
    /// above the cost of looking.
    pub target_wait: Duration,
    /// How long a handler whose token was cancelled may take to return before it is dropped. 5 s: time to close a
    /// transaction, short against any timeout.
    pub cancel_grace: Duration,
    /// How long handlers may take to return at the end of a drain before they are dropped. 2 s.
    pub drain_grace: Duration,
    /// Progress of one job reaches the queue at most this often. 100 ms: ten a second look smooth.
    pub progress_every: Duration,
    /// Jobs held back by open breakers in each served queue at most; see [`BreakerConfig`]. 256: their payloads are in
    /// memory.
    pub held_max: usize,
    /// Schedules at most; each costs a metric series.
    pub schedules_max: usize,
    /// Circuit breaker of each kind.
    pub breaker: BreakerConfig,
    /// Pool for CPU-heavy work.
    pub cpu: CpuConfig,
    /// Name of this worker, for people; a suffix makes it unique per start. `scheduler` by default.
    pub worker: Arc<str>,
    /// Where to read the time; the same as the queue's.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            permits_min: 1,
            permits_max: 10,
            target_wait: Duration::from_millis(100),
            cancel_grace: Duration::from_secs(5),
            drain_grace: Duration::from_secs(2),
            progress_every: Duration::from_millis(100),
            held_max: 256,
            schedules_max: 1000,
            breaker: BreakerConfig::default(),
            cpu: CpuConfig::default(),
            worker: "scheduler".into(),
            clock: Clock::System,
        }
    }
}

impl Config {
    /// Checks what no scheduler could work with.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first bound that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let rules = [
            (self.permits_min == 0, "permits_min", "at least 1"),
            (self.permits_max < self.permits_min, "permits_max", "at least permits_min"),
            (self.permits_max > 5000, "permits_max", "at most 5000"),
            (self.target_wait < Duration::from_millis(1), "target_wait", "at least 1 ms"),
            (self.progress_every < Duration::from_millis(1), "progress_every", "at least 1 ms"),
            (self.worker.is_empty() || self.worker.len() > 150, "worker", "1 to 150 bytes"),
            (self.cpu.threads == Some(0), "cpu.threads", "at least 1"),
            (!(1..=64).contains(&self.breaker.ratio_window), "breaker.ratio_window", "1 to 64"),
            (self.breaker.consecutive == 0, "breaker.consecutive", "at least 1"),
            (self.breaker.open.is_zero(), "breaker.open", "longer than zero"),
            (self.breaker.open_max < self.breaker.open, "breaker.open_max", "at least breaker.open"),
        ];
        match rules.into_iter().find(|(broken, ..)| *broken) {
            Some((_, field, reason)) => Err(Error::Invalid { field, reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_nonsense_is_named() {
        assert!(Config::default().check().is_ok());
        let config = Config { permits_min: 20, ..Config::default() };
        assert_eq!(config.check().unwrap_err().to_string(), "permits_max: at least permits_min");
    }
}
