//! [`Scheduler`]: the handle to everything that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_queue::{Finish, Queues, Worker};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cron::Crons;
use crate::drain::drain;
use crate::handler::Kinds;
use crate::pump::Served;
use crate::run::Stop;
use crate::stats::BeatMetrics;
use crate::{Builder, Config, CpuPool, Cron, DrainReport, Error, KindStats, PoolStats, Stats};

/// Runs the jobs of its queues; clones are the same scheduler.
///
/// Stop it with [`drain`](Self::drain). When the last clone is dropped without, everything is told to stop at once;
/// what was running is rescued when its lease expires or the process starts again.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// What the parts share. Tokens first fire, in this order: `draining`, `abort`, `quit`.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) queues: Queues,
    pub(crate) worker: Worker,
    pub(crate) lease: Duration,
    /// How long a handler that was told to stop may take; within the lease, which is not renewed past the deadline.
    pub(crate) grace: Duration,
    pub(crate) kinds: Kinds,
    pub(crate) served: Vec<Arc<Served>>,
    pub(crate) crons: Arc<Crons>,
    pub(crate) cpu: CpuPool,
    /// Claim nothing more.
    pub(crate) draining: CancellationToken,
    /// Drop the handlers that were told to stop.
    pub(crate) abort: CancellationToken,
    /// End every task.
    pub(crate) quit: CancellationToken,
    /// The pumps: they end when drained.
    pub(crate) pumps: TaskTracker,
    /// Everything else, the beat's thread included.
    pub(crate) tasks: TaskTracker,
    pub(crate) drained: Drained,
    beat: BeatMetrics,
    report: OnceCell<DrainReport>,
}

/// What ended since the drain began.
#[derive(Default)]
pub(crate) struct Drained {
    pub(crate) finished: AtomicU64,
    pub(crate) handed_back: AtomicU64,
}

impl Scheduler {
    /// Starts to put one together.
    pub fn builder(queues: Queues, registry: Registry, config: Config) -> Builder {
        Builder::new(queues, registry, config)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let owner = Arc::new(Owner(Arc::clone(&shared)));
        Self { shared, _owner: owner }
    }

    /// The kinds that have a handler, by name.
    #[must_use]
    pub fn kinds(&self) -> Vec<Arc<str>> {
        let mut kinds: Vec<_> = self.shared.kinds.keys().cloned().collect();
        kinds.sort();
        kinds
    }

    /// Whether this kind has a handler.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.shared.kinds.contains_key(kind)
    }

    /// The pool for CPU-heavy work, shared with the handlers on it.
    #[must_use]
    pub fn cpu(&self) -> &CpuPool {
        &self.shared.cpu
    }

    /// Takes up a schedule; one of the same name is replaced. Schedules are not stored: register them at every start.
    ///
    /// # Errors
    /// [`Error::BadCron`], [`Error::BadTimezone`], [`Error::TooManySchedules`], [`Error::Queue`].
    pub async fn cron(&self, cron: Cron) -> Result<(), Error> {
        let queue = self.shared.queues.queue(&cron.queue).await?;
        self.shared.crons.add(cron, queue)
    }

    /// Drops a schedule; whether there was one.
    pub fn remove_cron(&self, name: &str) -> bool {
        self.shared.crons.remove(name)
    }

    /// A snapshot, read from the exported metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let mut kinds: Vec<_> = shared.kinds.values().map(|kind| KindStats::of(kind)).collect();
        kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
        Stats {
            worker: Arc::clone(&shared.worker.name),
            draining: shared.draining.is_cancelled(),
            beats: shared.beat.beats.get(),
            beat_errors: shared.beat.errors.get(),
            pools: shared.served.iter().map(|served| PoolStats::of(served)).collect(),
            kinds,
            schedules: shared.crons.stats(),
            cpu_running: shared.cpu.running(),
            cpu_waiting: shared.cpu.waiting(),
        }
    }

    /// Ends the scheduler: claims nothing more, hands back what has not started, lets handlers finish within
    /// `deadline`, then tells the rest to stop, drops what does not stop within `Config::drain_grace`, and hands those
    /// jobs back so that the next start resumes them. When it returns, every task has ended and every outcome is told,
    /// except for what the report calls stuck. Takes at most `deadline` and four graces.
    ///
    /// Further calls answer with the same report. Call it before `Queues::close`. **Cancellation**: a dropped drain
    /// leaves the scheduler draining; call it again.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        *self.shared.report.get_or_init(|| drain(&self.shared, deadline)).await
    }
}

impl Shared {
    pub(crate) fn new(
        queues: Queues,
        config: Config,
        worker: Worker,
        lease: Duration,
        (kinds, served, crons, cpu): (Kinds, Vec<Arc<Served>>, Crons, CpuPool),
        beat: BeatMetrics,
    ) -> Self {
        Self {
            grace: config.cancel_grace.min(lease / 2),
            config,
            queues,
            worker,
            lease,
            kinds,
            served,
            crons: Arc::new(crons),
            cpu,
            draining: CancellationToken::new(),
            abort: CancellationToken::new(),
            quit: CancellationToken::new(),
            pumps: TaskTracker::new(),
            tasks: TaskTracker::new(),
            drained: Drained::default(),
            beat,
            report: OnceCell::new(),
        }
    }

    /// A breaker moved: held jobs may have their turn.
    pub(crate) fn look_again(&self) {
        for served in &self.served {
            served.attention.notify_one();
        }
    }

    pub(crate) fn count_drained(&self, finish: Option<&Finish>) {
        match finish {
            Some(Finish::Release { .. }) => _ = self.drained.handed_back.fetch_add(1, Relaxed),
            Some(_) => _ = self.drained.finished.fetch_add(1, Relaxed),
            None => {}
        }
    }
}

/// Owned by the handles only, so its drop means that nobody is left to drain.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.draining.cancel();
        for served in &shared.served {
            served.runs.stop_all(Stop::Drain);
        }
        shared.abort.cancel();
        shared.quit.cancel();
    }
}
