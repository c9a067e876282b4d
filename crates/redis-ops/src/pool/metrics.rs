//! What is counted: `tidegate_redis_blocking_pool_*`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tidegate_metrics::{Counter, Gauge, Outcome, Registry, Timer};

#[derive(Debug)]
pub(super) struct Metrics {
    in_use: Gauge,
    available: Gauge,
    waiting: Gauge,
    waiting_now: AtomicUsize,
    wait: Timer,
    pub(super) timeouts: Counter,
    pub(super) dialled: Counter,
    pub(super) unblocked: Counter,
    pub(super) broken: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let connections = |state| {
            let help = "Blocking connections by what they do; being dialled counts as in use.";
            registry.gauge_with("tidegate_redis_blocking_pool_connections", help, &[("state", state)])
        };
        Self {
            in_use: connections("in_use"),
            available: connections("available"),
            waiting: registry.gauge("tidegate_redis_blocking_pool_waiting", "Callers that wait for one."),
            waiting_now: AtomicUsize::new(0),
            wait: registry.timer(
                "tidegate_redis_blocking_pool_wait_seconds",
                "Time callers waited in line; those who found a place at once are not in it.",
            ),
            timeouts: registry.counter("tidegate_redis_blocking_pool_timeouts_total", "Callers that waited in vain."),
            dialled: registry.counter("tidegate_redis_blocking_pool_dialled_total", "Connections opened."),
            unblocked: registry.counter(
                "tidegate_redis_blocking_pool_unblocked_total",
                "Connections freed from a call that nobody waited for any more.",
            ),
            broken: registry.counter("tidegate_redis_blocking_pool_broken_total", "Connections thrown away."),
        }
    }

    pub(super) fn show(&self, (in_use, available): (usize, usize)) {
        self.in_use.set(in_use as f64);
        self.available.set(available as f64);
    }

    /// A caller waits until this is dropped.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.waiting_now.fetch_add(1, Ordering::Relaxed);
        self.waiting.add(1.0);
        Waiting { metrics: self, since: Instant::now(), outcome: Outcome::Cancelled }
    }

    pub(super) fn waiting_now(&self) -> usize {
        self.waiting_now.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Waiting<'a> {
    metrics: &'a Metrics,
    since: Instant,
    outcome: Outcome,
}

impl Waiting<'_> {
    pub(super) fn served(mut self) {
        self.outcome = Outcome::Succeeded;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.waiting_now.fetch_sub(1, Ordering::Relaxed);
        self.metrics.waiting.sub(1.0);
        self.metrics.wait.record_outcome(self.since.elapsed(), self.outcome);
    }
}
