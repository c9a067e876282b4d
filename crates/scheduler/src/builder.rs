//! Puts a scheduler together: which queues it serves, who handles what.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_metrics::Registry;
use tidegate_queue::{Clock, QueueName, Queues, Worker};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::beat::Heart;
use crate::breaker::Breaker;
use crate::cron::Crons;
use crate::handler::{Handler, Kind, Kinds};
use crate::progress::Reports;
use crate::pump::{Pump, Served};
use crate::run::Runs;
use crate::scheduler::{Scheduler, Shared};
use crate::stats::{BeatMetrics, KindMetrics, PoolMetrics};
use crate::watch::watch;
use crate::{Config, Context, CpuContext, CpuPool, Error, HandlerError};

/// A scheduler to be; made by [`Scheduler::builder`].
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    queues: Queues,
    registry: Registry,
    config: Config,
    served: Vec<QueueName>,
    handlers: Vec<(Arc<str>, Handler)>,
    cpu: Option<CpuPool>,
}

impl Builder {
    pub(crate) fn new(queues: Queues, registry: Registry, config: Config) -> Self {
        Self { queues, registry, config, served: Vec::new(), handlers: Vec::new(), cpu: None }
    }

    /// Runs the jobs of this queue, too. All of them: a job of a kind without handler goes to the dead letter set.
    pub fn serve(mut self, queue: QueueName) -> Self {
        if !self.served.contains(&queue) {
            self.served.push(queue);
        }
        self
    }

    /// Handles jobs of this kind: `args` is read from the job's JSON, the reply is kept as JSON.
    ///
    /// Arguments that cannot be read fail the job for good. Any `std::error::Error` from the handler means "try again";
    /// return a [`HandlerError`] to say more. A panic is caught and counted, and the job is tried again. The handler
    /// must not block its thread: work that computes for more than a millisecond belongs to
    /// [`handle_cpu`](Self::handle_cpu).
    pub fn handle<A, R, E, F, Fut>(mut self, kind: impl Into<Arc<str>>, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.handlers.push((kind.into(), Handler::typed(handler)));
        self
    }

    /// [`handle`](Self::handle) for bytes that are nobody's business.
    pub fn handle_raw<E, F, Fut>(mut self, kind: impl Into<Arc<str>>, handler: F) -> Self
    where
        E: Into<HandlerError>,
        F: Fn(Context, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Bytes>, E>> + Send + 'static,
    {
        self.handlers.push((kind.into(), Handler::raw(handler)));
        self
    }

    /// Handles jobs of this kind on the [`CpuPool`], by the job's priority. The handler should look at
    /// [`CpuContext::is_cancelled`] every few milliseconds: one that does not computes on after its timeout, its
    /// result thrown away, and keeps its thread.
    pub fn handle_cpu<E, F>(mut self, kind: impl Into<Arc<str>>, handler: F) -> Self
    where
        E: Into<HandlerError>,
        F: Fn(CpuContext, Bytes) -> Result<Option<Bytes>, E> + Send + Sync + 'static,
    {
        self.handlers.push((kind.into(), Handler::cpu(handler)));
        self
    }

    /// Uses this pool instead of one of its own.
    pub fn cpu_pool(mut self, pool: CpuPool) -> Self {
        self.cpu = Some(pool);
        self
    }

    /// Opens the queues and starts claiming. Must be called within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound that cannot work, [`Error::DuplicateKind`], [`Error::Thread`], [`Error::Queue`].
    pub async fn start(self) -> Result<Scheduler, Error> {
        self.config.check()?;
        let kinds = self.kinds()?;
        let cpu = match self.cpu {
            Some(pool) => pool,
            None => CpuPool::new(&self.config.cpu, &self.registry)?,
        };
        let first = Arc::new(Notify::new());
        let mut served = Vec::with_capacity(self.served.len());
        for name in &self.served {
            served.push(Arc::new(Served {
                queue: self.queues.queue(name).await?,
                runs: Arc::new(Runs::new(Arc::clone(&first))),
                reports: Arc::default(),
                metrics: PoolMetrics::new(&self.registry, name),
                attention: Notify::new(),
            }));
        }
        let lease = self.queues.lease();
        let worker = Worker::local(unique(&self.config.worker));
        let crons = Crons::new(self.registry.clone(), self.config.clock.clone(), self.config.schedules_max);
        let beat_metrics = BeatMetrics::new(&self.registry);
        let parts = (kinds, served, crons, cpu);
        let shared = Arc::new(Shared::new(self.queues, self.config, worker, lease, parts, beat_metrics.clone()));
        start_parts(&shared, first, beat_metrics)?;
        Ok(Scheduler::new(shared))
    }

    fn kinds(&self) -> Result<Kinds, Error> {
        let mut kinds: Kinds = HashMap::new();
        let now = Instant::now();
        for (name, handler) in &self.handlers {
            let breaker = Breaker::new(self.config.breaker.clone(), now);
            let metrics = KindMetrics::new(&self.registry, name);
            let kind = Arc::new(Kind::new(Arc::clone(name), handler.clone(), metrics, breaker));
            if kinds.insert(Arc::clone(name), kind).is_some() {
                return Err(Error::DuplicateKind { kind: Arc::clone(name) });
            }
        }
        Ok(kinds)
    }
}

fn start_parts(shared: &Arc<Shared>, first: Arc<Notify>, metrics: BeatMetrics) -> Result<(), Error> {
    let beat_now = Arc::new(Notify::new());
    let heart = Heart {
        queues: shared.served.clone(),
        worker: shared.worker.clone(),
        lease: shared.lease,
        clock: shared.config.clock.clone(),
        first,
        now: Arc::clone(&beat_now),
        quit: shared.quit.clone(),
        metrics,
    };
    heart.start(shared.tasks.token())?;
    for served in &shared.served {
        // Listens before the first claim, so that no cancel falls between.
        let cancels = served.queue.cancels();
        let quit = shared.quit.clone();
        shared.tasks.spawn(watch(Arc::clone(served), cancels, Arc::clone(&beat_now), quit));
        let (every, quit) = (shared.config.progress_every, shared.quit.clone());
        shared.tasks.spawn(Arc::<Reports>::clone(&served.reports).forward(served.queue.clone(), every, quit));
        shared.pumps.spawn(Pump::new(Arc::clone(shared), Arc::clone(served)).run());
    }
    // Fires would only pile up behind a draining process.
    shared.tasks.spawn(Arc::clone(&shared.crons).run(shared.draining.clone()));
    Ok(())
}

/// A name no other start has: process, time, and a count within the process.
fn unique(name: &str) -> Arc<str> {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    let (process, start) = (std::process::id(), STARTS.fetch_add(1, Relaxed));
    format!("{name}-{process}-{:x}-{start}", Clock::System.now().0).into()
}
