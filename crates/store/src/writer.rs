//! Group commit: one thread takes everything that waits, writes it as one group and answers all who wait for it.
//!
//! There is no linger time: while one group is on its way to the disk the next one gathers. The thread sleeps without
//! a timer when there is nothing to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tidegate_metrics::{Counter, Gauge, Registry, Timer};
use tokio::sync::oneshot;
use tracing::error;

use crate::batch::{Batch, Write};
use crate::config::SYNC_INTERVAL;
use crate::disk::{Disk, Reach};
use crate::{Durability, Error};

/// How long the thread looks for more work before it sleeps, after a group that more than one caller waited for. 100 µs:
/// about the time those callers need to come back; waking a sleeping thread would cost them more. A lone caller is
/// quicker without: the thread that looks takes the core it runs on.
const LINGER: Duration = Duration::from_micros(100);

pub(crate) type Answer = oneshot::Sender<Result<(), Error>>;

/// What the writer thread and its callers share.
pub(crate) struct Shared {
    /// Held to add or take what waits; never during I/O.
    pending: Mutex<Pending>,
    arrived: Condvar,
    /// Set while `pending` holds work, so the thread can look without the lock.
    has_work: AtomicBool,
    pub(crate) pending_bytes: AtomicUsize,
    /// Bytes ever written, to look at the free space now and then.
    pub(crate) written_bytes: AtomicU64,
    /// The first failure; set once, for good.
    pub(crate) failure: OnceLock<Error>,
    metrics: Metrics,
}

#[derive(Default)]
struct Pending {
    writes: Vec<Write>,
    bytes: usize,
    answers: Vec<Answer>,
    asleep: bool,
    closing: bool,
}

struct Metrics {
    commits: Timer,
    syncs: Timer,
    writes: Counter,
    pending: Gauge,
}

impl Shared {
    pub(crate) fn new(registry: &Registry) -> Arc<Self> {
        let metrics = Metrics {
            commits: registry
                .timer("tidegate_store_commit_seconds", "Time to write one group of writes, sync included"),
            syncs: registry.timer("tidegate_store_sync_seconds", "Time of a sync outside a commit (everysec)"),
            writes: registry.counter("tidegate_store_writes_total", "Records written or deleted"),
            pending: registry.gauge("tidegate_store_pending_bytes", "Bytes waiting for the disk"),
        };
        Arc::new(Self {
            pending: Mutex::default(),
            arrived: Condvar::new(),
            has_work: AtomicBool::new(false),
            pending_bytes: AtomicUsize::new(0),
            written_bytes: AtomicU64::new(0),
            failure: OnceLock::new(),
            metrics,
        })
    }

    /// Adds a batch to the next group. An `answer` comes when the group is as durable as the mode promises.
    pub(crate) fn submit(&self, batch: Batch, answer: Option<Answer>) {
        let mut pending = self.lock();
        if let Some(failure) = self.failure.get().cloned().or_else(|| pending.closing.then_some(Error::Closed)) {
            drop(pending);
            if let Some(answer) = answer {
                let _ = answer.send(Err(failure));
            }
            return;
        }
        pending.bytes += batch.bytes;
        self.pending_bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        if pending.writes.is_empty() {
            pending.writes = batch.writes;
        } else {
            pending.writes.extend(batch.writes);
        }
        pending.answers.extend(answer);
        self.has_work.store(true, Ordering::Release);
        let asleep = pending.asleep;
        drop(pending);
        if asleep {
            self.arrived.notify_one();
        }
    }

    /// Takes nothing more; the thread writes what waits and ends.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.has_work.store(true, Ordering::Release);
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Nothing in here panics between two consistent states.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work, at most until `until`; `None` means that the time came first.
    fn next(&self, until: Option<Instant>) -> Option<Pending> {
        let mut pending = self.lock();
        loop {
            if !pending.writes.is_empty() || !pending.answers.is_empty() || pending.closing {
                self.has_work.store(false, Ordering::Release);
                let closing = pending.closing;
                return Some(Pending { closing, ..std::mem::take(&mut *pending) })
                    .inspect(|_| pending.closing = closing);
            }
            pending.asleep = true;
            pending = match until {
                None => self.arrived.wait(pending).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        pending.asleep = false;
                        return None;
                    }
                    self.arrived.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            pending.asleep = false;
        }
    }

    fn linger(&self) {
        let end = Instant::now() + LINGER;
        while !self.has_work.load(Ordering::Acquire) && Instant::now() < end {
            std::hint::spin_loop();
        }
    }
}

/// The writer thread's own state.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) durability: Durability,
    /// The number of the last group.
    pub(crate) last: u64,
}

impl Writer {
    /// Works until the store is closed and nothing waits.
    pub(crate) fn run(mut self) {
        let mut sync_at: Option<Instant> = None;
        loop {
            let Some(group) = self.shared.next(sync_at) else {
                sync_at = None;
                self.sync();
                continue;
            };
            let waiting = group.answers.len();
            let closing = group.closing;
            if !group.writes.is_empty() || waiting > 0 {
                self.write(group);
            }
            if self.durability == Durability::EverySecond {
                // Also when writes never pause.
                match sync_at {
                    None => sync_at = Some(Instant::now() + SYNC_INTERVAL),
                    Some(at) if at <= Instant::now() => {
                        sync_at = None;
                        self.sync();
                    }
                    Some(_) => {}
                }
            }
            if closing {
                self.sync();
                if self.shared.failure.get().is_none() {
                    self.disk.note_end(self.last);
                }
                return;
            }
            if waiting > 1 && self.durability == Durability::Sync {
                self.shared.linger();
            }
        }
    }

    fn write(&mut self, group: Pending) {
        let Pending { writes, bytes, answers, .. } = group;
        let result = match self.shared.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => self.commit(writes, !answers.is_empty()),
        };
        let left = self.shared.pending_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        self.shared.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared.metrics.pending.set(left as f64);
        if let Err(failure) = &result {
            self.fail(failure);
        }
        for answer in answers {
            // The caller may have gone.
            let _ = answer.send(result.clone());
        }
    }

    fn commit(&mut self, writes: Vec<Write>, awaited: bool) -> Result<(), Error> {
        let reach = if awaited && self.durability == Durability::Sync { Reach::Disk } else { Reach::System };
        self.shared.metrics.writes.add(writes.len() as u64);
        let timing = self.shared.metrics.commits.start();
        let result = guarded(|| self.disk.commit(self.last + 1, writes, reach));
        if result.is_ok() {
            self.last += 1;
            timing.succeed();
        } else {
            timing.fail();
        }
        result
    }

    fn sync(&self) {
        if self.durability == Durability::Memory || self.shared.failure.get().is_some() {
            return;
        }
        let timing = self.shared.metrics.syncs.start();
        match guarded(|| self.disk.sync(self.last)) {
            Ok(()) => timing.succeed(),
            Err(failure) => {
                timing.fail();
                self.fail(&failure);
            }
        }
    }

    fn fail(&self, failure: &Error) {
        if self.shared.failure.set(failure.clone()).is_ok() {
            self.disk.note_failure();
            error!(%failure, "the store stopped; nothing more is acknowledged until a restart");
        }
    }
}

/// A panic in the engine is a failed write: the thread lives on to say so.
fn guarded(write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(write))
        .unwrap_or_else(|_| Err(Error::Failed { cause: "the engine panicked, see the log".into() }))
}
