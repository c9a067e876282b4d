//! Numbers about a queue: the same counters that are exported, never a second set.

use std::time::Duration;

use crate::{QueueName, State};

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; 7]);

impl Counts {
    /// Jobs in this state.
    #[must_use]
    pub fn of(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    pub(crate) fn set(&mut self, state: State, count: u64) {
        self.0[state as usize] = count;
    }

    /// Jobs that are not finished.
    #[must_use]
    pub fn live(&self) -> u64 {
        State::ALL.iter().filter(|s| !s.is_finished()).map(|s| self.of(*s)).sum()
    }
}

/// A snapshot of one queue.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueStats {
    /// Which queue.
    pub name: QueueName,
    /// Jobs by state.
    pub counts: Counts,
    /// Whether claims are held off.
    pub paused: bool,
    /// How long the job at the head has been available.
    pub oldest_wait: Option<Duration>,
    /// Bytes of live jobs.
    pub bytes: u64,
    /// The bound on live jobs.
    pub jobs_max: u64,
    /// The bound on bytes.
    pub bytes_max: u64,
    /// Running jobs per key at most.
    pub key_limit: Option<u32>,
    /// Running jobs at most.
    pub running_limit: Option<u32>,
    /// Jobs enqueued per second over the last minute.
    pub enqueued_per_second: f64,
    /// Jobs finished per second over the last minute.
    pub finished_per_second: f64,
    /// Callers waiting in a claim.
    pub waiting_claims: u64,
}

/// When a full queue will have room again, from the jobs finished per second: 1 s to 60 s.
pub(crate) fn retry_after(per_second: f64) -> Duration {
    Duration::from_secs_f64((1.0 / per_second.max(1.0 / 60.0)).max(1.0))
}

/// Events of the last minute, in a ring of 60 one-second slots: no timer, constant memory.
#[derive(Debug)]
pub(crate) struct Rate {
    slots: [(i64, u32); 60],
}

impl Default for Rate {
    fn default() -> Self {
        Self { slots: [(i64::MIN, 0); 60] }
    }
}

impl Rate {
    pub(crate) fn add(&mut self, now_ms: i64, count: u32) {
        let second = now_ms.div_euclid(1000);
        let slot = &mut self.slots[usize::try_from(second.rem_euclid(60)).unwrap_or(0)];
        *slot = if slot.0 == second { (second, slot.1.saturating_add(count)) } else { (second, count) };
    }

    pub(crate) fn per_second(&self, now_ms: i64) -> f64 {
        let second = now_ms.div_euclid(1000);
        let total: u64 =
            self.slots.iter().filter(|(at, _)| *at > second - 60 && *at <= second).map(|(_, n)| u64::from(*n)).sum();
        total as f64 / 60.0
    }
}
