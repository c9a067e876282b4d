//! Thousands of listeners on a few threads: they connect, read, check, stall, leave and come back as told.
//!
//! One thread reads some hundred thousand events a second on half a core, so that it fits beside the server it loads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::event_id::EventId;
use super::histogram::Histogram;
use super::order::Heard;
use super::thread::Attendance;
use crate::load_test::pace::wait_until;

/// Who listens to what.
#[derive(Clone)]
pub(super) struct CrowdPlan {
    pub(super) target: SocketAddr,
    pub(super) token: Option<String>,
    pub(super) streams: Vec<Source>,
    /// Listener `i` listens to stream `i % streams.len()`.
    pub(super) listeners: usize,
    /// So many of them, the first ones, stop reading while the crowd stalls.
    pub(super) slow: usize,
    pub(super) threads: usize,
    /// Loopback addresses to come from.
    pub(super) sources: usize,
    /// Each leaves after so long and comes back, mostly at once.
    pub(super) leaves_after: Option<Duration>,
    /// Whether ids are `ms-seq` and checked.
    pub(super) has_ids: bool,
    /// What `at` in the events counts from.
    pub(super) epoch: Instant,
}

/// A stream to listen to.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Path and query.
    pub(super) path: String,
    /// The id to begin after, and the number of the event that comes next.
    pub(super) after: Option<EventId>,
    pub(super) next: u64,
}

/// Counts of what happened, of one thread or all.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: u64,
    /// Streams that ended although the listener wanted more.
    pub(super) cut: u64,
    /// What else went wrong, by its name: statuses, failed connects, broken answers.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) events: u64,
    pub(super) gaps: u64,
    pub(super) comments: u64,
    pub(super) retries: u64,
    pub(super) bytes: u64,
    pub(super) reads: u64,
}

/// What the crowd found.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) listeners: Vec<Record>,
    /// From the moment an event was due to its arrival, for those that never stall.
    pub(super) latency: Histogram,
    pub(super) counts: Counts,
    /// The id heard last for each number, of each stream; several where threads share streams.
    pub(super) ids: Vec<Vec<EventId>>,
    /// Stream and number of events heard under two ids.
    pub(super) renamed: Vec<(usize, u64)>,
    /// Time its threads spent on a core.
    pub(super) cpu: Duration,
}

/// What one listener heard.
pub(super) struct Record {
    pub(super) stream: usize,
    pub(super) is_slow: bool,
    pub(super) heard: Heard,
}

/// What the threads and their owner share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) open: AtomicUsize,
    pub(super) delivered: AtomicU64,
    /// Listeners that have heard everything.
    pub(super) complete: AtomicUsize,
    pub(super) is_stalling: AtomicBool,
    pub(super) is_over: AtomicBool,
    /// What listeners that have heard everything expect next, per stream.
    pub(super) ends: Mutex<Option<Vec<u64>>>,
}

/// A running crowd; dropping it ends it.
pub(super) struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Outcome>>>,
    listeners: usize,
}

impl Crowd {
    /// Opens all listeners; returns when each has the head of its answer.
    pub(super) fn open(plan: &CrowdPlan, patience: Duration) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let start = |number| {
            let attendance = Attendance::new(plan.clone(), number, Arc::clone(&shared))?;
            Ok(thread::Builder::new().name(format!("listeners-{number}")).spawn(move || attendance.run())?)
        };
        let threads = (0..plan.threads.max(1)).map(start).collect::<Result<_>>()?;
        let crowd = Self { shared, threads, listeners: plan.listeners };
        let is_open = || crowd.shared.open.load(Ordering::Acquire) >= plan.listeners;
        if until(patience, || is_open() || crowd.has_ended()) && is_open() {
            return Ok(crowd);
        }
        let open = crowd.shared.open.load(Ordering::Acquire);
        let counts = crowd.finish(&[], Duration::ZERO)?.counts;
        bail!("only {open} of {} listeners are open after {patience:?}; errors: {:?}", plan.listeners, counts.errors);
    }

    /// Events heard so far, by all together.
    pub(super) fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// The slow ones stop reading, or begin again.
    pub(super) fn stall(&self, is_stalling: bool) {
        self.shared.is_stalling.store(is_stalling, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until all have heard the events before `ends`, as long as patience lasts, and closes all.
    pub(super) fn finish(mut self, ends: &[u64], patience: Duration) -> Result<Outcome> {
        *self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends.to_vec());
        until(patience, || self.shared.complete.load(Ordering::Acquire) >= self.listeners || self.has_ended());
        self.shared.is_over.store(true, Ordering::Release);
        let mut all = Outcome::default();
        for thread in std::mem::take(&mut self.threads) {
            let part = thread.join().map_err(|_| anyhow!("a thread of listeners panicked"))?;
            all.add(part.context("a thread of listeners failed")?);
        }
        Ok(all)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.listeners.extend(other.listeners);
        self.ids.extend(other.ids);
        self.renamed.extend(other.renamed);
        self.latency.add(&other.latency);
        self.counts.add(other.counts);
        self.cpu += other.cpu;
    }
}

impl Counts {
    pub(super) fn error(&mut self, what: impl Into<String>) {
        *self.errors.entry(what.into()).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.cut += other.cut;
        self.events += other.events;
        self.gaps += other.gaps;
        self.comments += other.comments;
        self.retries += other.retries;
        self.bytes += other.bytes;
        self.reads += other.reads;
        other.errors.into_iter().for_each(|(what, count)| *self.errors.entry(what).or_default() += count);
    }
}

/// Looks every 5 ms, as long as patience lasts, whether it is so.
pub(super) fn until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        wait_until(Instant::now() + Duration::from_millis(5));
    }
    true
}
