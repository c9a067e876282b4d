//! Durations of a named operation, with its failures and cancellations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::snapshot::Snapshot;
use crate::stats::OperationStats;

/// Measures how long an operation takes and how it ends. Cheap to clone; clones are the same series.
///
/// Durations have a resolution of 1 ns; anything longer than 2^50 ns (13 days) is recorded as that long.
#[derive(Clone)]
pub struct Timer(Arc<Core>);

pub(crate) struct Core {
    name: &'static str,
    labels: Labels,
    histogram: Histogram,
    /// Set by the first guard: from then on failures and cancellations are exported, also while they are zero.
    has_outcomes: AtomicBool,
}

/// How a timed operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should.
    Succeeded,
    /// It returned an error or panicked.
    Failed,
    /// It was dropped before it had an outcome.
    Cancelled,
}

impl Timer {
    pub(crate) fn new(name: &'static str, labels: Labels) -> Self {
        let core = Core { name, labels, histogram: Histogram::default(), has_outcomes: AtomicBool::new(false) };
        Self(Arc::new(core))
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.0.labels
    }

    pub(crate) fn histogram(&self) -> &Histogram {
        &self.0.histogram
    }

    pub(crate) fn has_outcomes(&self) -> bool {
        self.0.has_outcomes.load(Relaxed)
    }

    /// Records a success that took `d`.
    #[inline]
    pub fn record(&self, d: Duration) {
        self.0.histogram.record(nanos(d), Outcome::Succeeded);
    }

    /// Records an operation that took `d` and ended as told.
    #[inline]
    pub fn record_outcome(&self, d: Duration, outcome: Outcome) {
        self.0.expect_outcomes();
        self.0.histogram.record(nanos(d), outcome);
    }

    /// Starts a measurement that ends with the guard: [`Running::succeed`], [`Running::fail`], or its drop.
    pub fn start(&self) -> Running {
        self.0.expect_outcomes();
        Running { timer: self.clone(), started: Instant::now(), ended: false }
    }

    /// Awaits `future` and records how long it took and how it ended; dropped on the way, it counts as cancelled.
    /// The clock starts at the first poll.
    pub async fn time<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut guard = Scoped::start(&self.0);
        let result = future.await;
        guard.outcome = Some(if result.is_ok() { Outcome::Succeeded } else { Outcome::Failed });
        result
    }

    /// Runs `work` and records how long it took and how it ended.
    pub fn time_sync<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut guard = Scoped::start(&self.0);
        let result = work();
        guard.outcome = Some(if result.is_ok() { Outcome::Succeeded } else { Outcome::Failed });
        result
    }

    /// Everything recorded so far, merged over all threads.
    pub fn snapshot(&self) -> Snapshot {
        self.0.histogram.snapshot()
    }

    /// Bytes this series holds: about 600, and per recording thread about 900 and 256 for each power of two of
    /// nanoseconds it has seen. At most 32 threads have buckets of their own.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Core>() + self.0.histogram.heap_bytes()
    }

    /// The figures of everything recorded so far.
    pub fn stats(&self) -> OperationStats {
        OperationStats::new(self.0.name, self.0.labels.pairs.to_vec(), &self.snapshot())
    }
}

impl Core {
    #[inline]
    fn expect_outcomes(&self) {
        if !self.has_outcomes.load(Relaxed) {
            self.has_outcomes.store(true, Relaxed);
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("name", &self.0.name).field("labels", &self.0.labels.text).finish_non_exhaustive()
    }
}

/// A measurement under way. Dropped without a word it is recorded as cancelled, or as failed when a panic drops it.
#[derive(Debug)]
#[must_use = "dropping it at once records a cancellation"]
pub struct Running {
    timer: Timer,
    started: Instant,
    ended: bool,
}

impl Running {
    /// Ends the measurement as a success.
    pub fn succeed(mut self) {
        self.end(Outcome::Succeeded);
    }

    /// Ends the measurement as a failure.
    pub fn fail(mut self) {
        self.end(Outcome::Failed);
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        self.timer.0.histogram.record(nanos(self.started.elapsed()), outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.end(unfinished());
        }
    }
}

/// [`Running`] for a scope that outlives it: borrows, so two threads do not meet at a reference count.
struct Scoped<'a> {
    core: &'a Core,
    started: Instant,
    outcome: Option<Outcome>,
}

impl<'a> Scoped<'a> {
    fn start(core: &'a Core) -> Self {
        core.expect_outcomes();
        Self { core, started: Instant::now(), outcome: None }
    }
}

impl Drop for Scoped<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or_else(unfinished);
        self.core.histogram.record(nanos(self.started.elapsed()), outcome);
    }
}

/// What an operation without outcome was: broken by a panic, or given up.
fn unfinished() -> Outcome {
    if std::thread::panicking() { Outcome::Failed } else { Outcome::Cancelled }
}

#[inline]
fn nanos(d: Duration) -> u64 {
    d.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(d.subsec_nanos()))
}
