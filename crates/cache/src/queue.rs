//! A bounded queue of invalidations, for whoever does not want to wait for Redis.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tidegate_metrics::{Counter, Gauge, Registry};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::error::Error;
use crate::invalidation::Invalidation;

/// Invalidations applied in one go.
const BATCH: usize = 1000;
/// After a failure the queue waits at least this long.
const RETRY: Duration = Duration::from_millis(200);

/// What is dropped when the queue is full. Whatever it is, it is not forgotten: see [`InvalidationQueue`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropPolicy {
    /// The one that waits longest.
    #[default]
    Oldest,
    /// The one that comes.
    Newest,
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Invalidations that may wait (10 000).
    pub queue_max: usize,
    /// What is dropped when there are more.
    pub drop_policy: DropPolicy,
    /// Whether they are applied as they come; otherwise when [`InvalidationQueue::apply`] is called.
    pub auto_invalidate: bool,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { queue_max: 10_000, drop_policy: DropPolicy::Oldest, auto_invalidate: true }
    }
}

/// A snapshot of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Invalidations put in.
    pub queued: u64,
    /// Invalidations that wait.
    pub waiting: u64,
    /// Invalidations applied one by one.
    pub applied: u64,
    /// Invalidations dropped because the queue was full, each covered by invalidating everything.
    pub dropped: u64,
    /// How often everything was invalidated for those.
    pub coarsened: u64,
}

/// Invalidations that wait to be applied.
///
/// Putting one in never waits. When the queue is full one is dropped, counted, and *covered*: with the next application everything is
/// invalidated, so a dropped invalidation never leaves a stale value. What cannot be applied because Redis is away stays
/// and is tried again.
///
/// Until an invalidation is applied others may be given the old value: the promise of [`Cache`] begins there.
#[derive(Clone, Debug)]
pub struct InvalidationQueue(Arc<Shared>);

struct Shared {
    config: QueueConfig,
    /// Held to add or take.
    state: Mutex<State>,
    /// Held by the one who applies.
    applying: tokio::sync::Mutex<()>,
    apply: Box<Apply>,
    filled: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
    counters: Counters,
}

/// The cache's part: its values have a type, a queue has none.
type Apply = dyn Fn(Vec<Invalidation>) -> BoxFuture<'static, Result<(), Error>> + Send + Sync;

#[derive(Default)]
struct State {
    waiting: VecDeque<Invalidation>,
    /// Something was dropped since everything was last invalidated.
    overflowed: bool,
}

struct Counters {
    queued: Counter,
    applied: Counter,
    dropped: Counter,
    coarsened: Counter,
    waiting: Gauge,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidationQueue").field("config", &self.config).finish_non_exhaustive()
    }
}

impl InvalidationQueue {
    /// A queue in front of a cache. With [`QueueConfig::auto_invalidate`] it needs a tokio runtime.
    pub fn new<V: Clone + Send + Sync + 'static>(cache: &Cache<V>, config: QueueConfig, registry: &Registry) -> Self {
        let labels: &[(&'static str, &str)] = &[("cache", &cache.config().name)];
        let counter = |name, help| registry.counter_with(name, help, labels);
        let counters = Counters {
            queued: counter("tidegate_cache_queue_queued_total", "Invalidations put into the queue."),
            applied: counter("tidegate_cache_queue_applied_total", "Queued invalidations applied one by one."),
            dropped: counter("tidegate_cache_queue_dropped_total", "Invalidations dropped because the queue was full."),
            coarsened: counter(
                "tidegate_cache_queue_coarsened_total",
                "Times everything was invalidated for those dropped.",
            ),
            waiting: registry.gauge_with("tidegate_cache_queue_waiting", "Invalidations that wait.", labels),
        };
        let cache = cache.clone();
        let apply = Box::new(move |batch: Vec<Invalidation>| {
            let cache = cache.clone();
            async move {
                // What nothing can be kept under is forgotten already.
                let batch: Vec<_> = batch.into_iter().filter(|what| cache.0.can_cover(what)).collect();
                cache.invalidate_all(&batch).await
            }
            .boxed()
        });
        let queue = Self(Arc::new(Shared {
            config: QueueConfig { queue_max: config.queue_max.max(1), ..config },
            state: Mutex::default(),
            applying: tokio::sync::Mutex::new(()),
            apply,
            filled: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            counters,
        }));
        if config.auto_invalidate {
            queue.0.tasks.spawn(keep_applied(queue.clone()));
        }
        queue
    }

    /// Puts one in; whether it waits now. `false`: it was dropped and will be covered by invalidating everything, or the queue is
    /// closed and takes nothing.
    pub fn push(&self, invalidation: Invalidation) -> bool {
        let shared = &self.0;
        if shared.stop.is_cancelled() {
            return false;
        }
        let mut state = shared.state.lock();
        shared.counters.queued.inc();
        let mut kept = true;
        if state.waiting.len() >= shared.config.queue_max {
            shared.counters.dropped.inc();
            state.overflowed = true;
            match shared.config.drop_policy {
                DropPolicy::Oldest => drop(state.waiting.pop_front()),
                DropPolicy::Newest => kept = false,
            }
        }
        if kept {
            state.waiting.push_back(invalidation);
        }
        shared.counters.waiting.set(state.waiting.len() as f64);
        drop(state);
        shared.filled.notify_one();
        kept
    }

    /// Applies all that waits now and says how many those were.
    ///
    /// # Errors
    /// Those of [`Cache::invalidate`]; what was not applied stays in the queue. Dropping the future leaves what was not applied there
    /// as well.
    pub async fn apply(&self) -> Result<usize, Error> {
        let shared = &self.0;
        let _one = shared.applying.lock().await;
        let mut applied = 0;
        let mut left = shared.state.lock().waiting.len();
        loop {
            let (batch, is_coarse) = {
                let mut state = shared.state.lock();
                if std::mem::take(&mut state.overflowed) {
                    (vec![Invalidation::All], true)
                } else {
                    let size = state.waiting.len().min(BATCH).min(left);
                    (state.waiting.drain(..size).collect::<Vec<_>>(), false)
                }
            };
            if batch.is_empty() {
                return Ok(applied);
            }
            let mut taken = Taken { shared, batch, is_coarse };
            (shared.apply)(taken.batch.clone()).await?;
            let done = std::mem::take(&mut taken.batch).len();
            if is_coarse {
                shared.counters.coarsened.inc();
            } else {
                shared.counters.applied.add(done as u64);
                applied += done;
                left = left.saturating_sub(done);
            }
            shared.counters.waiting.set(shared.state.lock().waiting.len() as f64);
        }
    }

    /// A snapshot.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let counters = &self.0.counters;
        QueueStats {
            queued: counters.queued.get(),
            waiting: self.0.state.lock().waiting.len() as u64,
            applied: counters.applied.get(),
            dropped: counters.dropped.get(),
            coarsened: counters.coarsened.get(),
        }
    }

    /// Takes nothing more, applies what waits, and ends the task that applies. While Redis is away it tries again: dropping the
    /// future gives up what waits.
    ///
    /// # Errors
    /// What would not change by trying again.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        loop {
            match self.apply().await {
                Err(error) if error.is_retryable() => tokio::time::sleep(error.retry_after().max(RETRY)).await,
                done => return done.map(|_| ()),
            }
        }
    }
}

/// A batch on its way; what was not applied goes back to the front.
struct Taken<'a> {
    shared: &'a Shared,
    batch: Vec<Invalidation>,
    is_coarse: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        if self.is_coarse {
            state.overflowed = true;
            return;
        }
        // Others may have come meanwhile: what does not fit is covered, as any other.
        for invalidation in self.batch.drain(..).rev() {
            if state.waiting.len() < self.shared.config.queue_max {
                state.waiting.push_front(invalidation);
            } else {
                self.shared.counters.dropped.inc();
                state.overflowed = true;
            }
        }
    }
}

async fn keep_applied(queue: InvalidationQueue) {
    let shared = queue.0.clone();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.filled.notified() => {}
        }
        while let Err(error) = queue.apply().await {
            if !error.is_retryable() {
                tracing::warn!(%error, "queued invalidations");
            }
            let pause = error.retry_after().max(RETRY);
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
