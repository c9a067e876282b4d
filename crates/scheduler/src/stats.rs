//! Numbers: the exported handles, and a snapshot that reads the same ones.

use std::sync::Arc;

use tidegate_metrics::{Counter, Gauge, OperationStats, Registry, Timer};
use tidegate_queue::QueueName;

use crate::handler::Kind;
use crate::pump::Served;
use crate::{BreakerState, ScheduleStats};

/// A snapshot of a scheduler.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Its name as a worker.
    pub worker: Arc<str>,
    /// Whether it takes no more jobs.
    pub draining: bool,
    /// Beats sent.
    pub beats: u64,
    /// Beats that failed.
    pub beat_errors: u64,
    /// Served queues, in the order of the builder.
    pub pools: Vec<PoolStats>,
    /// Kinds, by name.
    pub kinds: Vec<KindStats>,
    /// Schedules, by name.
    pub schedules: Vec<ScheduleStats>,
    /// Tasks running on the CPU pool.
    pub cpu_running: usize,
    /// Tasks waiting for it.
    pub cpu_waiting: usize,
}

impl Stats {
    /// Cancellation tokens alive, one per running attempt.
    #[must_use]
    pub fn active_tokens(&self) -> u64 {
        self.pools.iter().map(|pool| pool.active).sum()
    }
}

/// The pool of one served queue.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStats {
    /// The queue.
    pub queue: QueueName,
    /// Attempts with a living token: running, or held by a breaker.
    pub active: u64,
    /// Jobs that may run at once now.
    pub permits: u64,
    /// Jobs held back by open breakers.
    pub held: u64,
    /// Leases kept alive: active ones, and those whose outcome is on its way.
    pub leases: u64,
    /// Results thrown away because the lease was lost.
    pub stale: u64,
    /// Outcomes of which it is unknown whether the queue has them.
    pub unknown: u64,
    /// Jobs handed back unstarted.
    pub released: u64,
    /// Jobs of a kind nobody handles.
    pub unknown_kinds: u64,
    /// Failed claims.
    pub claim_errors: u64,
}

/// One kind.
#[derive(Clone, Debug)]
pub struct KindStats {
    /// Its name.
    pub kind: Arc<str>,
    /// Its breaker.
    pub breaker: BreakerState,
    /// Attempts: how many, how they ended, how long they took.
    pub runs: OperationStats,
    /// Handlers that panicked.
    pub panics: u64,
    /// Attempts that timed out.
    pub timeouts: u64,
    /// Handlers dropped because they did not stop when told.
    pub dropped: u64,
    /// Jobs failed with a delay because the breaker was open and no more could be held.
    pub deferred: u64,
}

pub(crate) struct PoolMetrics {
    pub(crate) active: Gauge,
    pub(crate) permits: Gauge,
    pub(crate) held: Gauge,
    pub(crate) stale: Counter,
    pub(crate) unknown: Counter,
    pub(crate) released: Counter,
    pub(crate) unknown_kinds: Counter,
    pub(crate) claim_errors: Counter,
}

impl PoolMetrics {
    pub(crate) fn new(registry: &Registry, queue: &QueueName) -> Self {
        let labels = [("queue", queue.as_str())];
        let gauge = |name, help| registry.gauge_with(name, help, &labels);
        let counter = |name, help| registry.counter_with(name, help, &labels);
        Self {
            active: gauge("tidegate_scheduler_active_runs", "Attempts with a living cancellation token."),
            permits: gauge("tidegate_scheduler_permits", "Jobs that may run at once now."),
            held: gauge("tidegate_scheduler_held_jobs", "Jobs held back by open breakers."),
            stale: counter("tidegate_scheduler_stale_total", "Results thrown away because the lease was lost."),
            unknown: counter(
                "tidegate_scheduler_unknown_outcomes_total",
                "Outcomes that may or may not be known to the queue.",
            ),
            released: counter("tidegate_scheduler_released_total", "Jobs handed back unstarted."),
            unknown_kinds: counter("tidegate_scheduler_unknown_kinds_total", "Jobs of a kind without handler."),
            claim_errors: counter("tidegate_scheduler_claim_errors_total", "Claims that failed."),
        }
    }
}

pub(crate) struct KindMetrics {
    pub(crate) runs: Timer,
    pub(crate) breaker: Gauge,
    pub(crate) panics: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) dropped: Counter,
    pub(crate) deferred: Counter,
}

impl KindMetrics {
    pub(crate) fn new(registry: &Registry, kind: &str) -> Self {
        let labels = [("kind", kind)];
        let counter = |name, help| registry.counter_with(name, help, &labels);
        Self {
            runs: registry.timer_with("tidegate_scheduler_run_seconds", "Time an attempt took.", &labels),
            breaker: registry.gauge_with(
                "tidegate_scheduler_breaker_state",
                "Circuit breaker: 0 closed, 1 half-open, 2 open.",
                &labels,
            ),
            panics: counter("tidegate_scheduler_panics_total", "Handlers that panicked."),
            timeouts: counter("tidegate_scheduler_timeouts_total", "Attempts that timed out."),
            dropped: counter("tidegate_scheduler_dropped_total", "Handlers that did not stop when told."),
            deferred: counter("tidegate_scheduler_deferred_total", "Jobs put off by an open breaker beyond its bound."),
        }
    }
}

#[derive(Clone)]
pub(crate) struct BeatMetrics {
    pub(crate) beats: Counter,
    pub(crate) errors: Counter,
}

impl BeatMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            beats: registry.counter("tidegate_scheduler_beats_total", "Beats sent, one per queue with leases."),
            errors: registry.counter("tidegate_scheduler_beat_errors_total", "Beats that failed."),
        }
    }
}

impl PoolStats {
    pub(crate) fn of(served: &Served) -> Self {
        let metrics = &served.metrics;
        // Gauges of counts are whole and never negative.
        let whole = |gauge: &Gauge| gauge.get().max(0.0) as u64;
        Self {
            queue: served.queue.name().clone(),
            active: whole(&metrics.active),
            permits: whole(&metrics.permits),
            held: whole(&metrics.held),
            leases: served.runs.len() as u64,
            stale: metrics.stale.get(),
            unknown: metrics.unknown.get(),
            released: metrics.released.get(),
            unknown_kinds: metrics.unknown_kinds.get(),
            claim_errors: metrics.claim_errors.get(),
        }
    }
}

impl KindStats {
    pub(crate) fn of(kind: &Kind) -> Self {
        Self {
            kind: Arc::clone(&kind.name),
            breaker: kind.breaker_state(),
            runs: kind.metrics.runs.stats(),
            panics: kind.metrics.panics.get(),
            timeouts: kind.metrics.timeouts.get(),
            dropped: kind.metrics.dropped.get(),
            deferred: kind.metrics.deferred.get(),
        }
    }
}
