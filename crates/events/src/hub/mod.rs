//! One to many: listeners are cursors over one shared, bounded, framed log per live stream.
//!
//! A stream is live while somebody listens to it or waits for it. Its backend appends every durable event once
//! ([`Hub::appended`], or the reader of Redis through [`Live::append`]); listeners are woken and take shared pieces of it at
//! their own pace. Who is behind the log reads the backend's, in the same order, with the same ids: there is no seam between
//! live and replay. What is no longer there is told as a gap.

mod discovery;
mod listen;
mod listener;
mod live;
mod log;
mod seat;
mod watch;
mod wheel;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch as changes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use discovery::Discovery;
pub use listen::{Gap, GapReason, Heard, Listen, Slow, Source};
pub use listener::Listener;
pub(crate) use live::Live;
pub(crate) use seat::SOURCES_MAX;
pub(crate) use watch::Watch;

use crate::backend::Backend;
use crate::stats::Metrics;
use crate::{Clock, Config, Error, Event, EventId, Pattern, StreamName};
use seat::Seat;
use wheel::Wheel;

/// Listeners that read the log at once: more would only wait for each other's disk or Redis.
const CATCH_UPS_MAX: usize = 8;
/// Restarts of Redis remembered.
const RESTARTS_MAX: usize = 1000;

/// All live streams. A cheap clone.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Shared>);

pub(crate) struct Shared {
    config: Arc<Config>,
    metrics: Metrics,
    /// Held to come and to go, never across an await.
    streams: Mutex<HashMap<StreamName, Arc<Live>, foldhash::fast::RandomState>>,
    /// Listeners of patterns; held to come, to go, and when a stream is made.
    patterns: Mutex<Vec<(Arc<Seat>, Vec<Pattern>)>>,
    watches: AtomicUsize,
    /// Counts changes of what is live.
    changes: changes::Sender<u64>,
    ring_total: AtomicUsize,
    catch_ups: Semaphore,
    /// When Redis was restarted: from, to, in milliseconds since 1970; the newest so many.
    restarts: RwLock<VecDeque<(u64, u64)>>,
    restart_count: AtomicUsize,
    /// When the reader of Redis last proved that it hears everything, in milliseconds since 1970.
    proven_ms: AtomicU64,
    wheel: Wheel,
    /// Rung when the first listener comes.
    first: Arc<Notify>,
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl Hub {
    pub(crate) fn new(config: Arc<Config>, metrics: Metrics) -> Self {
        let hub = Self(Arc::new(Shared {
            config,
            metrics,
            streams: Mutex::default(),
            patterns: Mutex::default(),
            watches: AtomicUsize::new(0),
            changes: changes::Sender::new(0),
            ring_total: AtomicUsize::new(0),
            catch_ups: Semaphore::new(CATCH_UPS_MAX),
            restarts: RwLock::default(),
            restart_count: AtomicUsize::new(0),
            proven_ms: AtomicU64::new(0),
            wheel: Wheel::default(),
            first: Arc::default(),
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        let shared = &hub.0;
        let (first, draining) = (Arc::clone(&shared.first), shared.draining.clone());
        shared.tasks.spawn(turn_wheel(Arc::downgrade(shared), first, draining, shared.config.heartbeat));
        hub
    }

    pub(crate) async fn listen(&self, backend: &Backend, listen: Listen) -> Result<Listener, Error> {
        Listener::open(&self.0, backend, listen).await
    }

    /// Makes the stream live, so that its backend tells of new events, until the watch is dropped.
    pub(crate) async fn watch(&self, backend: &Backend, stream: &StreamName) -> Result<Watch, Error> {
        Watch::open(&self.0, backend, stream).await
    }

    /// Names streams that match, now and later.
    pub(crate) async fn discover(&self, backend: &Backend, patterns: Vec<Pattern>) -> Result<Discovery, Error> {
        Discovery::open(&self.0, backend, patterns).await
    }

    pub(crate) fn drain(&self) {
        self.0.draining.cancel();
        for live in self.0.streams.lock().values() {
            live.wake();
        }
        // Those of patterns may sit in no stream.
        for (seat, _) in self.0.patterns.lock().iter() {
            seat.wake_bare();
        }
        self.0.first.notify_one();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    pub(crate) async fn drained(&self) {
        self.0.draining.cancelled().await;
    }

    /// Ends its tasks.
    pub(crate) async fn close(&self) {
        self.drain();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// What a backend calls.
impl Hub {
    /// Durable events of a stream, in ascending order; nothing happens when nobody listens.
    pub(crate) fn appended(&self, stream: &StreamName, events: impl FnOnce() -> Vec<Event>) {
        if let Some(live) = self.find(stream) {
            live.append(events());
        }
    }

    /// There is a new stream, whoever made it: listeners of patterns may follow it.
    pub(crate) fn created(&self, stream: &StreamName) {
        for (seat, patterns) in self.0.patterns.lock().iter() {
            if patterns.iter().any(|pattern| pattern.matches(stream.as_str())) && !seat.made(stream) {
                tracing::warn!(%stream, "a listener of patterns cannot follow so many new streams");
            }
        }
    }

    /// A stream that ended at `end` was deleted: its listeners hear a gap. What was appended after `end` is of the next stream
    /// of that name.
    pub(crate) fn deleted(&self, stream: &StreamName, end: EventId) {
        if let Some(live) = self.find(stream) {
            live.deleted(end);
        }
    }

    /// Everything published up to now has been heard of, whatever the stream: the reader works.
    pub(crate) fn is_proven(&self) {
        self.0.proven_ms.store(Clock::System.now_ms(), Ordering::Relaxed);
    }

    /// Wakes those who watch a stream: something can be claimed again.
    pub(crate) fn poke(&self, stream: &StreamName) {
        if let Some(live) = self.find(stream) {
            live.wake();
        }
    }

    /// The stream if it is live.
    pub(crate) fn find(&self, stream: &StreamName) -> Option<Arc<Live>> {
        self.0.streams.lock().get(stream).cloned()
    }

    /// All live streams whose tail is known.
    pub(crate) fn live(&self) -> Vec<Arc<Live>> {
        let all: Vec<_> = self.0.streams.lock().values().cloned().collect();
        all.into_iter().filter(|live| live.tail().is_some()).collect()
    }

    /// Counts changes of what is live.
    pub(crate) fn changes(&self) -> changes::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether somebody follows a pattern or watches: news of streams that are not read are wanted, too.
    pub(crate) fn wants_news(&self) -> bool {
        self.0.watches.load(Ordering::Relaxed) > 0 || self.follows_patterns()
    }

    /// Whether somebody follows a pattern: streams made by whomever are wanted.
    pub(crate) fn follows_patterns(&self) -> bool {
        !self.0.patterns.lock().is_empty()
    }

    /// Redis was restarted between these two instants (milliseconds since 1970) and may have lost its newest events: whoever
    /// goes from an event before to one after hears a gap.
    pub(crate) fn restarted(&self, from_ms: u64, to_ms: u64) {
        let mut restarts = self.0.restarts.write();
        if restarts.len() >= RESTARTS_MAX {
            restarts.pop_front();
        }
        restarts.push_back((from_ms, to_ms));
        self.0.restart_count.fetch_add(1, Ordering::Release);
    }
}

impl Shared {
    pub(crate) fn proven_ms(&self) -> u64 {
        self.proven_ms.load(Ordering::Relaxed)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// From now on a seat hears of streams that are made and match. To be called before looking for those that are there, so
    /// that none made meanwhile is missed.
    fn follow_patterns(&self, seat: &Arc<Seat>, patterns: Vec<Pattern>) {
        self.patterns.lock().push((Arc::clone(seat), patterns));
        self.changed();
    }

    fn leave_patterns(&self, seat: &Arc<Seat>) {
        self.patterns.lock().retain(|(other, _)| !Arc::ptr_eq(other, seat));
        self.changed();
    }

    /// Takes a seat in a stream, which is live from now on.
    fn sit(self: &Arc<Self>, stream: &StreamName, seat: &Arc<Seat>, source: u32) -> (Arc<Live>, usize) {
        let mut streams = self.streams.lock();
        let live = match streams.get(stream) {
            Some(live) => Arc::clone(live),
            None => {
                let live = Arc::new(Live::new(stream.clone(), Arc::clone(self)));
                streams.insert(stream.clone(), Arc::clone(&live));
                self.metrics.live_streams.add(1.0);
                live
            }
        };
        let place = live.sit(seat, source);
        (live, place)
    }

    fn leave(&self, live: &Arc<Live>, place: usize) {
        let mut streams = self.streams.lock();
        if live.leave(place) {
            streams.remove(live.name());
            drop(streams);
            self.metrics.live_streams.sub(1.0);
            self.changed();
        }
    }

    fn ring_bytes(&self, before: usize, after: usize) {
        if after >= before {
            self.ring_total.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.ring_total.fetch_sub(before - after, Ordering::Relaxed);
        }
        self.metrics.ring_bytes.set(self.ring_total.load(Ordering::Relaxed) as f64);
    }

    /// Whether events may have been lost between two neighbours.
    fn is_restart_between(&self, before: EventId, next: EventId) -> bool {
        before > EventId::ZERO && self.restarts.read().iter().any(|(from, to)| before.ms < *to && next.ms >= *from)
    }
}

/// Turns the wheel of heartbeats while there are listeners; without any there is no timer.
async fn turn_wheel(hub: Weak<Shared>, first: Arc<Notify>, draining: CancellationToken, heartbeat: Duration) {
    let step = Wheel::step(heartbeat);
    while !draining.is_cancelled() {
        let Some(shared) = hub.upgrade() else { return };
        let has_listeners = shared.metrics.listeners.get() > 0.0;
        shared.wheel.turn();
        drop(shared);
        if has_listeners {
            tokio::select! {
                () = tokio::time::sleep(step) => {}
                () = draining.cancelled() => {}
            }
        } else {
            first.notified().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.first.notify_one();
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("live", &self.0.streams.lock().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("live", &self.streams.lock().len()).finish_non_exhaustive()
    }
}
