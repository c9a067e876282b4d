//! [`CpuPool`]: threads for work that would hold up the runtime, with a bounded queue by priority in front.
//!
//! As many tasks run at once as there are threads; a task may use all of rayon inside (`par_iter`, `join`), which then
//! runs on the same threads. No lock is held while a task computes.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tidegate_metrics::{Counter, Gauge, Outcome, Registry, Timer};
use tokio::sync::{Notify, oneshot};

use crate::Error;

/// Bounds of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// Threads; as many as cores by default.
    pub threads: Option<usize>,
    /// Tasks that may wait in front of the pool, jobs of a queue not counted (permits bound those). 1024: at 10 ms a
    /// task that is 5 s on two cores, longer than a caller should wait.
    pub waiting_max: usize,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self { threads: None, waiting_max: 1024 }
    }
}

/// Why a task has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// As many tasks wait as may.
    #[error("CPU pool is full: {waiting} of {capacity} tasks wait")]
    Full {
        /// Tasks waiting.
        waiting: usize,
        /// The bound.
        capacity: usize,
    },
    /// It did not end in time; it was told to stop and its result will be thrown away.
    #[error("timed out after {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// It panicked.
    #[error("panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The pool closed before it started.
    #[error("CPU pool is closed")]
    Closed,
}

impl CpuError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::TimedOut { .. } | Self::Closed)
    }
}

/// Tells a task that nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Whether to stop. One atomic load.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// The flag itself, for code that takes one.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// Threads for CPU-heavy work; clones share them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tidegate_scheduler::{CpuConfig, CpuPool};
///
/// let pool = CpuPool::new(&CpuConfig::default(), &tidegate_metrics::Registry::new())?;
/// let sum = pool.run(100, Duration::from_secs(10), |_| (1..=1000u64).sum::<u64>()).await?;
/// assert_eq!(sum, 500_500);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct CpuPool(Arc<Shared>);

struct Shared {
    threads: ThreadPool,
    slots: usize,
    waiting_max: usize,
    metrics: Metrics,
    /// Locked to put in and take out; never while a task runs.
    line: Mutex<Line>,
    /// Rung when a task ends and none runs.
    idle: Notify,
}

struct Metrics {
    waiting: Gauge,
    running: Gauge,
    tasks: Timer,
    rejected: Counter,
}

#[derive(Default)]
struct Line {
    /// Most urgent first, then first come.
    waiting: BTreeMap<(u8, u64), Task>,
    sequence: u64,
    running: usize,
    closed: bool,
}

type Task = Box<dyn FnOnce() + Send>;

impl CpuPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::Thread`] when the system refuses.
    pub fn new(config: &CpuConfig, registry: &Registry) -> Result<Self, Error> {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let slots = config.threads.unwrap_or_else(cores);
        let threads = ThreadPoolBuilder::new()
            .num_threads(slots)
            .thread_name(|index| format!("tidegate-cpu-{index}"))
            .build()
            .map_err(|error| Error::Thread { reason: error.to_string() })?;
        let metrics = Metrics {
            waiting: registry.gauge("tidegate_cpu_tasks_waiting", "CPU tasks that wait for a thread."),
            running: registry.gauge("tidegate_cpu_tasks_running", "CPU tasks that run now."),
            tasks: registry.timer("tidegate_cpu_task_seconds", "Time a CPU task ran, without its wait."),
            rejected: registry.counter("tidegate_cpu_tasks_rejected_total", "CPU tasks refused at the bound."),
        };
        let line = Mutex::default();
        let waiting_max = config.waiting_max;
        Ok(Self(Arc::new(Shared { threads, slots, waiting_max, metrics, line, idle: Notify::new() })))
    }

    /// Runs `task` on the pool, most urgent (lowest) priority first; `timeout` covers the wait and the work.
    ///
    /// **Cancellation.** Dropping the future takes a waiting task out of the line and raises a running one's
    /// [`Interrupt`]; a task that does not look at it runs on, and its result is thrown away.
    ///
    /// # Errors
    /// [`CpuError::Full`], [`CpuError::TimedOut`], [`CpuError::Panicked`], [`CpuError::Closed`].
    pub async fn run<T: Send + 'static>(
        &self,
        priority: u8,
        timeout: Duration,
        task: impl FnOnce(&Interrupt) -> T + Send + 'static,
    ) -> Result<T, CpuError> {
        let run = self.submit(priority, Interrupt::default(), self.0.waiting_max, task);
        match tokio::time::timeout(timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CpuError::TimedOut { after: timeout }),
        }
    }

    /// For jobs of a queue: no bound on the wait (their permits bound them) and the flag of the attempt.
    pub(crate) async fn run_job<T: Send + 'static>(
        &self,
        priority: u8,
        flag: Arc<AtomicBool>,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CpuError> {
        self.submit(priority, Interrupt(flag), usize::MAX, move |_| task()).await
    }

    async fn submit<T: Send + 'static>(
        &self,
        priority: u8,
        interrupt: Interrupt,
        waiting_max: usize,
        task: impl FnOnce(&Interrupt) -> T + Send + 'static,
    ) -> Result<T, CpuError> {
        let (answer, result) = oneshot::channel();
        let timer = self.0.metrics.tasks.clone();
        let seen = interrupt.clone();
        let boxed: Task = Box::new(move || {
            if answer.is_closed() {
                return;
            }
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| task(&seen)));
            timer.record_outcome(started.elapsed(), outcome_of(result.is_ok(), answer.is_closed()));
            let _ = answer.send(result.map_err(|panic| CpuError::Panicked { message: panic_text(&*panic) }));
        });
        let _ticket = self.0.enter(priority, interrupt, waiting_max, boxed)?;
        result.await.unwrap_or(Err(CpuError::Closed))
    }

    /// Takes nothing more and forgets what waits; what runs goes on.
    pub fn close(&self) {
        let mut line = self.0.line();
        line.closed = true;
        let forgotten = std::mem::take(&mut line.waiting);
        self.0.metrics.waiting.set(0.0);
        drop(line);
        drop(forgotten);
    }

    /// Tasks running now, those nobody waits for included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.line().running
    }

    /// Tasks waiting now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.line().waiting.len()
    }

    /// Returns when no task runs.
    pub async fn idle(&self) {
        loop {
            let rung = self.0.idle.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            rung.await;
        }
    }
}

impl Shared {
    fn enter(
        self: &Arc<Self>,
        priority: u8,
        interrupt: Interrupt,
        waiting_max: usize,
        task: Task,
    ) -> Result<Ticket, CpuError> {
        let mut line = self.line();
        if line.closed {
            return Err(CpuError::Closed);
        }
        let waiting = line.waiting.len();
        if waiting >= waiting_max && line.running >= self.slots {
            self.metrics.rejected.inc();
            return Err(CpuError::Full { waiting, capacity: waiting_max });
        }
        line.sequence += 1;
        let place = (priority, line.sequence);
        line.waiting.insert(place, task);
        let next = self.next(&mut line, false);
        drop(line);
        self.start(next);
        Ok(Ticket { shared: Arc::clone(self), place, interrupt })
    }

    /// The task to start now, if a thread is free; `freed` when the caller's own just ended.
    fn next(&self, line: &mut Line, freed: bool) -> Option<Task> {
        line.running -= usize::from(freed);
        let next = if line.running < self.slots { line.waiting.pop_first() } else { None };
        line.running += usize::from(next.is_some());
        self.metrics.waiting.set(line.waiting.len() as f64);
        self.metrics.running.set(line.running as f64);
        next.map(|(_, task)| task)
    }

    fn start(self: &Arc<Self>, task: Option<Task>) {
        let Some(task) = task else { return };
        let shared = Arc::clone(self);
        self.threads.spawn(move || {
            // The task catches the panics of its work; what is left is a panic in a destructor.
            if catch_unwind(AssertUnwindSafe(task)).is_err() {
                tracing::error!("a CPU task panicked while it was being dropped");
            }
            let mut line = shared.line();
            let next = shared.next(&mut line, true);
            let idle = line.running == 0;
            drop(line);
            if idle {
                shared.idle.notify_waiters();
            }
            shared.start(next);
        });
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line; leaving it takes the task out, or tells it to stop.
struct Ticket {
    shared: Arc<Shared>,
    place: (u8, u64),
    interrupt: Interrupt,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.interrupt.0.store(true, Relaxed);
        let mut line = self.shared.line();
        let unstarted = line.waiting.remove(&self.place);
        self.shared.metrics.waiting.set(line.waiting.len() as f64);
        drop(line);
        // Its captures may be large; they go after the lock.
        drop(unstarted);
    }
}

fn outcome_of(returned: bool, abandoned: bool) -> Outcome {
    match (returned, abandoned) {
        (_, true) => Outcome::Cancelled,
        (true, false) => Outcome::Succeeded,
        (false, false) => Outcome::Failed,
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)").to_owned()
}
