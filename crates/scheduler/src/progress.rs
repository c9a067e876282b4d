//! Progress on its way to the queue: each run keeps only its latest report, and a flush takes all of them at once.
//!
//! A flush is followed by a pause, so no job reaches the queue more often than once per pause, the first report goes
//! out at once, and without reports no timer runs.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tidegate_queue::{Lease, Progress, Queue};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Where the runs of one queue leave their reports.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Runs with a new report, each once. Locked to push and to take.
    fresh: Mutex<Vec<(Lease, Weak<Mutex<Slot>>)>>,
    bell: Notify,
}

/// The latest report of a run; `None` when it was sent.
#[derive(Debug, Default)]
struct Slot(Option<(f64, Option<Arc<str>>)>);

/// The reporting end of one run. Works on any thread and never waits.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    lease: Lease,
    slot: Arc<Mutex<Slot>>,
    reports: Arc<Reports>,
}

impl Report {
    pub(crate) fn new(lease: Lease, reports: Arc<Reports>) -> Self {
        Self { lease, slot: Arc::default(), reports }
    }

    /// Replaces what was not sent yet.
    pub(crate) fn progress(&self, progress: f64, note: Option<Arc<str>>) {
        let progress = if progress.is_finite() { progress.clamp(0.0, 1.0) } else { 0.0 };
        let unsent = lock(&self.slot).0.replace((progress, note)).is_some();
        if !unsent {
            lock(&self.reports.fresh).push((self.lease, Arc::downgrade(&self.slot)));
            self.reports.bell.notify_one();
        }
    }
}

impl Reports {
    /// Sends what the runs report until told to stop.
    pub(crate) async fn forward(self: Arc<Self>, queue: Queue, every: Duration, quit: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = quit.cancelled() => return,
                () = self.bell.notified() => {}
            }
            let updates = self.take();
            if updates.is_empty() {
                continue;
            }
            // A report is a courtesy: a lost lease is the beat's to notice, and a failed store the finish's.
            if let Err(error) = queue.progress(updates).await {
                tracing::debug!(queue = %queue.name(), %error, "progress not reported");
            }
            tokio::select! {
                biased;
                () = quit.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    fn take(&self) -> Vec<Progress> {
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        let latest = |(lease, slot): (Lease, Weak<Mutex<Slot>>)| {
            let (progress, note) = lock(&*slot.upgrade()?).0.take()?;
            Some(Progress { lease, progress, note })
        };
        fresh.into_iter().filter_map(latest).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
