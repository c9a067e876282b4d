//! The exported counters of a queue; its `stats` read the same ones.

use std::time::Duration;

use tidegate_metrics::{Counter, Gauge, Registry, Timer};

use crate::record::change_code;
use crate::{Change, QueueStats, State};

const CHANGES: [&str; 12] = [
    "enqueued",
    "promoted",
    "claimed",
    "completed",
    "retrying",
    "rescued",
    "released",
    "cancel_requested",
    "cancelled",
    "discarded",
    "retried",
    "pruned",
];

const STATES: [&str; 7] = ["scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded"];

/// The series of one queue.
pub(crate) struct Meters {
    changes: [Counter; 12],
    states: [Gauge; 7],
    bytes: Gauge,
    oldest: Gauge,
    waiting: Gauge,
    pub(crate) rejected: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) stale: Counter,
    pub(crate) idempotency_forgotten: Gauge,
    pub(crate) wait: Timer,
}

impl Meters {
    pub(crate) fn new(registry: &Registry, queue: &str) -> Self {
        let label = [("queue", queue)];
        let counter = |name, help| registry.counter_with(name, help, &label);
        let gauge = |name, help| registry.gauge_with(name, help, &label);
        Self {
            changes: CHANGES.map(|change| {
                let labels = [("queue", queue), ("change", change)];
                registry.counter_with("tidegate_queue_changes_total", "What happened to jobs", &labels)
            }),
            states: STATES.map(|state| {
                let labels = [("queue", queue), ("state", state)];
                registry.gauge_with("tidegate_queue_jobs", "Jobs by state", &labels)
            }),
            bytes: gauge("tidegate_queue_bytes", "Bytes of live jobs"),
            oldest: gauge("tidegate_queue_oldest_wait_seconds", "How long the first job in line has been available"),
            waiting: gauge("tidegate_queue_waiting_claims", "Callers waiting in a claim"),
            rejected: counter("tidegate_queue_rejected_total", "Jobs refused"),
            duplicates: counter("tidegate_queue_duplicates_total", "Pushes answered with a live duplicate"),
            stale: counter("tidegate_queue_stale_total", "Calls refused because of a stale lease"),
            idempotency_forgotten: gauge(
                "tidegate_queue_idempotency_forgotten",
                "Idempotency keys forgotten early because there were too many",
            ),
            wait: registry.timer_with("tidegate_queue_wait_seconds", "From available to claimed", &label),
        }
    }

    pub(crate) fn count(&self, change: &Change, times: u64) {
        if let Some(code) = change_code(change) {
            self.changes[usize::from(code)].add(times);
        }
    }

    pub(crate) fn show(&self, stats: &QueueStats) {
        for (state, gauge) in State::ALL.iter().zip(&self.states) {
            gauge.set(stats.counts.of(*state) as f64);
        }
        self.bytes.set(stats.bytes as f64);
        self.oldest.set(stats.oldest_wait.unwrap_or(Duration::ZERO).as_secs_f64());
        self.waiting.set(stats.waiting_claims as f64);
    }
}
