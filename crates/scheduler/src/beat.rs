//! The beat: renews all leases of all queues of this process every fifth of the lease, and hears what was cancelled.
//!
//! It has a thread of its own with a runtime of its own, because a handler that blocks the runtime's threads must not
//! cost the leases of all others. While nothing runs the thread is parked without a timer.

use std::sync::Arc;
use std::time::Duration;

use tidegate_queue::{Clock, Lease, Worker};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::pump::Served;
use crate::run::Stop;
use crate::stats::BeatMetrics;

/// Leases per beat at most; the queue allows twice as many.
const LEASES_MAX: usize = 5000;

pub(crate) struct Heart {
    pub(crate) queues: Vec<Arc<Served>>,
    pub(crate) worker: Worker,
    pub(crate) lease: Duration,
    pub(crate) clock: Clock,
    /// Rung when the first run comes.
    pub(crate) first: Arc<Notify>,
    /// Rung when a beat is wanted at once.
    pub(crate) now: Arc<Notify>,
    pub(crate) quit: CancellationToken,
    pub(crate) metrics: BeatMetrics,
}

impl Heart {
    /// Starts the thread; it ends with `quit`, and `alive` is dropped with it.
    pub(crate) fn start(self, alive: impl Send + 'static) -> Result<(), Error> {
        let refused = |error: std::io::Error| Error::Thread { reason: error.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(refused)?;
        let body = move || {
            runtime.block_on(self.run());
            drop(alive);
        };
        std::thread::Builder::new().name("tidegate-beat".into()).spawn(body).map_err(refused)?;
        Ok(())
    }

    async fn run(self) {
        let quit = self.quit.clone();
        tokio::select! {
            biased;
            () = quit.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut wait = self.lease / 5;
        loop {
            if self.queues.iter().all(|served| served.runs.len() == 0) {
                self.first.notified().await;
            }
            self.wait(wait).await;
            let heard = self.beat_all().await;
            // Twice as often until the queue answers again.
            wait = if heard { self.lease / 5 } else { self.lease / 10 };
        }
    }

    /// Until the next beat is due, or is wanted at once; but never more than fifty in a lease.
    async fn wait(&self, wait: Duration) {
        let soonest = Instant::now() + self.lease / 50;
        tokio::select! {
            () = sleep(wait) => {}
            () = self.now.notified() => sleep_until(soonest).await,
        }
    }

    async fn beat_all(&self) -> bool {
        let mut heard = true;
        for served in &self.queues {
            for leases in served.runs.leases().chunks(LEASES_MAX) {
                heard &= self.beat(served, leases).await;
            }
        }
        heard
    }

    async fn beat(&self, served: &Served, leases: &[Lease]) -> bool {
        self.metrics.beats.inc();
        let beat = match served.queue.beat(&self.worker, leases).await {
            Ok(beat) => beat,
            Err(error) => {
                self.metrics.errors.inc();
                tracing::warn!(queue = %served.queue.name(), %error, "beat failed");
                return false;
            }
        };
        let now = self.clock.now();
        for lease in &beat.cancelled {
            let Some(run) = served.runs.get(*lease) else { continue };
            run.stop(if now >= run.deadline_at { Stop::Timeout } else { Stop::Cancel });
        }
        for lease in &beat.stale {
            let Some(run) = served.runs.get(*lease) else { continue };
            if !run.is_finishing() && run.stopped() != Stop::Lost {
                // Counted first: whoever sees the handler stop finds it in the numbers.
                served.metrics.stale.inc();
                run.stop(Stop::Lost);
                tracing::warn!(job = %run.id, attempt = run.attempt, "lease lost, the result will be thrown away");
            }
        }
        if !(beat.cancelled.is_empty() && beat.stale.is_empty()) {
            served.attention.notify_one();
        }
        true
    }
}
