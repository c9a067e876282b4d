//! [`Run`]: one claimed attempt while it is ours, and [`Runs`], all of them in one queue.
//!
//! The cancellation token lives in the run, the run in the table, and a [`RunGuard`] takes it out when the attempt
//! is over, however it ended. So tokens cannot leak and no sweep is needed: there is nothing a sweep could find.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_metrics::Gauge;
use tidegate_queue::{Claimed, Clock, JobId, Lease, UnixMillis};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::progress::Report;

/// Longer deadlines are cut to this: timers cannot hold more, and no process lives longer.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// Why a run was told to stop; the first reason stays, except that a lost lease overrides all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stop {
    /// It was not.
    No = 0,
    /// Somebody cancelled the job.
    Cancel = 1,
    /// The attempt took too long.
    Timeout = 2,
    /// The scheduler drains.
    Drain = 3,
    /// The lease is not ours any more; whatever comes out is thrown away.
    Lost = 4,
}

impl Stop {
    fn from_code(code: u8) -> Self {
        [Self::No, Self::Cancel, Self::Timeout, Self::Drain, Self::Lost][usize::from(code.min(4))]
    }
}

/// One claimed attempt.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) lease: Lease,
    pub(crate) id: JobId,
    pub(crate) kind: Arc<str>,
    pub(crate) attempt: u16,
    pub(crate) max_attempts: u16,
    pub(crate) priority: u8,
    pub(crate) deadline_at: UnixMillis,
    pub(crate) claimed: Instant,
    pub(crate) deadline: Instant,
    pub(crate) token: CancellationToken,
    /// The same as the token, cheap enough to look at in a loop.
    pub(crate) flag: Arc<AtomicBool>,
    pub(crate) report: Report,
    stop: AtomicU8,
    /// The handler is done and the outcome on its way: the beat still renews, but a stale lease is no news.
    finishing: AtomicBool,
}

impl Run {
    pub(crate) fn new(claimed: &Claimed, clock: &Clock, report: Report) -> Self {
        let now = Instant::now();
        Self {
            lease: claimed.lease,
            id: claimed.id.clone(),
            kind: Arc::clone(&claimed.kind),
            attempt: claimed.attempt,
            max_attempts: claimed.max_attempts,
            priority: claimed.priority,
            deadline_at: claimed.deadline_at,
            claimed: now,
            deadline: now + claimed.deadline_at.since(clock.now()).min(FAR),
            token: CancellationToken::new(),
            flag: Arc::default(),
            report,
            stop: AtomicU8::new(0),
            finishing: AtomicBool::new(false),
        }
    }

    /// Tells the handler to stop; the first reason wins, `Lost` always.
    pub(crate) fn stop(&self, reason: Stop) {
        let code = reason as u8;
        if reason == Stop::Lost {
            self.stop.store(code, SeqCst);
        } else {
            let _ = self.stop.compare_exchange(0, code, SeqCst, SeqCst);
        }
        self.flag.store(true, SeqCst);
        self.token.cancel();
    }

    pub(crate) fn stopped(&self) -> Stop {
        Stop::from_code(self.stop.load(SeqCst))
    }

    pub(crate) fn set_finishing(&self) {
        self.finishing.store(true, SeqCst);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.load(SeqCst)
    }
}

/// The runs of one queue.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Locked to add, remove and list; never across an await.
    table: Mutex<HashMap<Lease, Arc<Run>>>,
    /// Rung when the first run comes, so that the beat starts.
    first: Arc<Notify>,
}

impl Runs {
    pub(crate) fn new(first: Arc<Notify>) -> Self {
        Self { table: Mutex::default(), first }
    }

    pub(crate) fn insert(self: &Arc<Self>, run: Run, active: Gauge) -> RunGuard {
        let run = Arc::new(run);
        let mut table = self.table();
        table.insert(run.lease, Arc::clone(&run));
        let is_first = table.len() == 1;
        drop(table);
        if is_first {
            self.first.notify_one();
        }
        active.add(1.0);
        RunGuard { run, runs: Arc::clone(self), active: Some(active) }
    }

    pub(crate) fn len(&self) -> usize {
        self.table().len()
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.table().keys().copied().collect()
    }

    pub(crate) fn get(&self, lease: Lease) -> Option<Arc<Run>> {
        self.table().get(&lease).cloned()
    }

    /// Stops the attempt of this job. Linear in the runs, of which there are as many as permits.
    pub(crate) fn cancel(&self, id: &JobId) {
        let found: Vec<_> = self.table().values().filter(|run| run.id == *id).cloned().collect();
        for run in found {
            run.stop(Stop::Cancel);
        }
    }

    /// Stops all whose handlers have not ended; how many.
    pub(crate) fn stop_all(&self, reason: Stop) -> usize {
        let running: Vec<_> = self.table().values().filter(|run| !run.is_finishing()).cloned().collect();
        for run in &running {
            run.stop(reason);
        }
        running.len()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Lease, Arc<Run>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a run in the table, and its token in the count of active ones, until dropped.
#[derive(Debug)]
pub(crate) struct RunGuard {
    pub(crate) run: Arc<Run>,
    runs: Arc<Runs>,
    active: Option<Gauge>,
}

impl RunGuard {
    /// The handler is over; only the lease is still kept alive.
    pub(crate) fn handler_ended(&mut self) {
        self.run.set_finishing();
        if let Some(active) = self.active.take() {
            active.sub(1.0);
        }
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.handler_ended();
        self.runs.table().remove(&self.run.lease);
    }
}
