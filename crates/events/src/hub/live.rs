//! One live stream: its log, and who sits in it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Shared;
use super::listen::GapReason;
use super::log::{Item, Log, Next, Turn, weave};
use super::seat::Seat;
use crate::backend::{Backend, Bounds};
use crate::{Error, Event, EventId, Order, Read, StreamName};

/// Events per page for those who catch up, at most, and for what a log begins with.
const PAGE_MAX: usize = 512;
/// Bytes a page should have; its length follows the mean of the last one.
const PAGE_BYTES: usize = 256 * 1024;
/// The first page: events may be large.
const PAGE_FIRST: usize = 8;
/// Pages kept for others who catch up on the same stretch.
const PAGES_MAX: usize = 8;

/// A stream somebody listens to or waits for.
pub(crate) struct Live {
    name: StreamName,
    hub: Arc<Shared>,
    /// `None` until the stream's end is known; held to append or to take the next item, never across an await.
    log: Mutex<Option<Recent>>,
    /// Who sits here, under which of its sources; held to come, to leave, and to wake all.
    seats: Mutex<Seats>,
    start: OnceCell<()>,
    /// How often history was broken off.
    breaks: AtomicU64,
    /// Held while reading the log of the backend, so that those who come back together read it once.
    pages: tokio::sync::Mutex<Pages>,
}

struct Recent {
    log: Log,
    /// Restarts of Redis that were known at the last append.
    restarts: usize,
    /// Nothing was appended yet: a restart may lie between the tail and what comes.
    is_fresh: bool,
}

#[derive(Default)]
struct Seats {
    places: Vec<Option<(Arc<Seat>, u32)>>,
    free: Vec<usize>,
}

/// What was read lately for those who catch up.
struct Pages {
    /// By the place they begin after.
    kept: VecDeque<(EventId, Vec<Item>)>,
    /// Events in the next one at most.
    length: usize,
    /// Breaks of the stream and restarts of Redis that were known.
    as_of: (u64, usize),
}

/// Where a listener that is behind goes on.
pub(crate) enum CaughtUp {
    /// In the shared log.
    InLog,
    /// Nothing is kept between its place and this one, where the shared log began.
    Nothing(EventId),
    /// These come first.
    Items(Vec<Item>),
}

impl Live {
    pub(crate) fn new(name: StreamName, hub: Arc<Shared>) -> Self {
        let pages = Pages { kept: VecDeque::new(), length: PAGE_FIRST, as_of: (0, 0) };
        Self {
            name,
            hub,
            log: Mutex::new(None),
            seats: Mutex::default(),
            start: OnceCell::new(),
            breaks: AtomicU64::new(0),
            pages: tokio::sync::Mutex::new(pages),
        }
    }

    pub(crate) fn name(&self) -> &StreamName {
        &self.name
    }

    /// The newest place that was appended; `None` while it is not known yet, and the stream need not be read.
    pub(crate) fn tail(&self) -> Option<EventId> {
        self.log.lock().as_ref().map(|recent| recent.log.tail())
    }

    /// Learns where the stream ends, once, whoever asks.
    pub(crate) async fn start(&self, backend: &Backend) -> Result<(), Error> {
        let start = async || {
            let tail = backend.bounds(&self.name).await?.last;
            let restarts = self.hub.restart_count.load(Ordering::Acquire);
            *self.log.lock() = Some(Recent { log: Log::new(tail), restarts, is_fresh: true });
            // What was appended before the line above was not taken in.
            if let Backend::Embedded(_) = backend {
                self.append(read(backend, &self.name, tail, EventId::MAX, PAGE_MAX).await?.0);
            }
            self.hub.changed();
            self.wake();
            Ok(())
        };
        self.start.get_or_try_init(start).await.copied()
    }

    /// Appends events in ascending order; those at or before the tail are left out.
    pub(crate) fn append(&self, mut events: Vec<Event>) {
        let mut held = self.log.lock();
        let Some(recent) = held.as_mut() else { return };
        let tail = recent.log.tail();
        let floor = recent.log.floor().max(tail);
        events.drain(..events.partition_point(|event| event.id <= floor));
        if events.is_empty() {
            return;
        }
        let restarts = self.hub.restart_count.load(Ordering::Acquire);
        // History may be missing before the first of them, and nowhere else: they were read in one go.
        let is_fresh = std::mem::take(&mut recent.is_fresh);
        let is_restart = std::mem::replace(&mut recent.restarts, restarts) < restarts;
        let once = Cell::new(is_restart || is_fresh && self.hub.is_restart_between(tail, events[0].id));
        self.counted(&mut recent.log, |log| log.push(weave(tail, events, |_, _| once.take())));
        self.bound(&mut recent.log);
        drop(held);
        self.wake();
    }

    /// The stream's end is at `last` now, before the tail that was looked at: tells a gap and goes on from there.
    pub(crate) fn rewound(&self, last: EventId, tail: EventId) {
        self.break_off(last, tail, GapReason::Rewound);
    }

    pub(crate) fn deleted(&self, end: EventId) {
        self.break_off(EventId::ZERO, end, GapReason::Deleted);
    }

    fn break_off(&self, to: EventId, end: EventId, reason: GapReason) {
        let mut held = self.log.lock();
        let Some(recent) = held.as_mut() else { return };
        self.breaks.fetch_add(1, Ordering::AcqRel);
        self.counted(&mut recent.log, |log| log.break_off(to, end, reason));
        drop(held);
        self.wake();
    }

    /// Changes the log; what it grows or shrinks by counts for all of them together.
    fn counted<T>(&self, log: &mut Log, change: impl FnOnce(&mut Log) -> T) -> T {
        let before = log.bytes();
        let changed = change(log);
        self.hub.ring_bytes(before, log.bytes());
        changed
    }

    /// Forgets the oldest until the log, and all logs together, are within their bounds.
    fn bound(&self, log: &mut Log) {
        let config = &self.hub.config;
        while log.bytes() > config.ring_bytes_max
            || self.hub.ring_total.load(Ordering::Relaxed) > config.rings_bytes_max
        {
            if !self.counted(log, Log::forget_oldest) {
                return;
            }
        }
    }

    pub(crate) fn next(&self, turn: Turn, at: EventId) -> Next {
        self.log.lock().as_ref().map_or(Next::End, |recent| recent.log.next(turn, at))
    }

    /// Where a cursor goes on in the shared log; `None` when it is behind it (or the stream's end is not known yet).
    pub(crate) fn turn_after(&self, at: EventId) -> Option<Turn> {
        self.log.lock().as_ref()?.log.turn_after(at)
    }

    /// As [`turn_after`](Self::turn_after), for a place of which nobody knows yet that it is still one.
    pub(crate) fn turn_at(&self, at: EventId) -> Option<Turn> {
        self.log.lock().as_ref()?.log.turn_at(at)
    }

    /// The end of the log and its turn.
    pub(crate) fn end(&self) -> Option<(EventId, Turn)> {
        self.log.lock().as_ref().map(|recent| (recent.log.tail(), recent.log.end()))
    }

    /// The oldest place held and its turn.
    pub(crate) fn oldest(&self) -> Option<(EventId, Turn)> {
        self.log.lock().as_ref().map(|recent| (recent.log.start(), recent.log.oldest()))
    }

    pub(crate) fn sit(&self, seat: &Arc<Seat>, source: u32) -> usize {
        let mut seats = self.seats.lock();
        let entry = Some((Arc::clone(seat), source));
        match seats.free.pop() {
            Some(place) => {
                seats.places[place] = entry;
                place
            }
            None => {
                seats.places.push(entry);
                seats.places.len() - 1
            }
        }
    }

    /// Says whether nobody is left.
    pub(crate) fn leave(&self, place: usize) -> bool {
        let mut seats = self.seats.lock();
        seats.places[place] = None;
        seats.free.push(place);
        if seats.free.len() == seats.places.len() {
            *seats = Seats::default();
        }
        seats.places.is_empty()
    }

    pub(crate) fn wake(&self) {
        for (seat, source) in self.seats.lock().places.iter().flatten() {
            seat.wake(*source);
        }
    }

    /// Reads what a cursor that is behind the shared log has missed: a stretch of it, or what connects it to the log.
    pub(crate) async fn catch_up(&self, backend: &Backend, at: EventId) -> Result<CaughtUp, Error> {
        self.start(backend).await?;
        let _turn = self.hub.catch_ups.acquire().await;
        let mut pages = self.pages.lock().await;
        pages.renew(self.breaks.load(Ordering::Acquire), self.hub.restart_count.load(Ordering::Acquire));
        if self.turn_at(at).is_some() {
            return Ok(CaughtUp::InLog);
        }
        if let Some(gap) = self.log.lock().as_ref().and_then(|recent| recent.log.break_at(at)) {
            return Ok(CaughtUp::Items(vec![gap]));
        }
        if let Some((_, items)) = pages.kept.iter().find(|(after, _)| *after == at) {
            return Ok(CaughtUp::Items(items.clone()));
        }
        self.hub.metrics.catch_up_reads.inc();
        let begin = self.oldest().map_or(at, |(begin, _)| begin);
        let start = self.start_with_room().filter(|start| at < *start);
        let before = start.map_or(EventId::MAX, EventId::next);
        let (events, more) = read(backend, &self.name, at, before, pages.length).await?;
        pages.measure(&events);
        // Looked at after reading: what was removed before is missing from what was read.
        if let Some(gap) = gap_at(at, backend.bounds(&self.name).await?) {
            return Ok(CaughtUp::Items(vec![gap]));
        }
        let items = weave(at, events, |before, next| self.hub.is_restart_between(before, next));
        match start {
            Some(start) if !more && self.put_in_front(at, start, &items) => Ok(CaughtUp::InLog),
            _ if items.is_empty() => Ok(CaughtUp::Nothing(begin)),
            _ => {
                pages.keep(at, &items);
                Ok(CaughtUp::Items(items))
            }
        }
    }

    /// Where the shared log begins, if it may grow at that end.
    fn start_with_room(&self) -> Option<EventId> {
        let held = self.log.lock();
        let log = &held.as_ref()?.log;
        (log.bytes() < self.hub.config.ring_bytes_max / 4).then(|| log.start())
    }

    /// Connects a cursor to the shared log, if that still begins at `start`.
    fn put_in_front(&self, at: EventId, start: EventId, items: &[Item]) -> bool {
        let mut held = self.log.lock();
        let Some(recent) = held.as_mut().filter(|recent| recent.log.start() == start) else { return false };
        self.counted(&mut recent.log, |log| log.push_front(at, items.to_vec()));
        true
    }
}

/// The gap between a place and what is kept, if there is one.
fn gap_at(at: EventId, bounds: Bounds) -> Option<Item> {
    if at > bounds.last {
        Some(Item::Gap { to: bounds.last, reason: GapReason::Rewound })
    } else if at > EventId::ZERO && at < bounds.removed_to {
        Some(Item::Gap { to: bounds.removed_to, reason: GapReason::Trimmed })
    } else {
        None
    }
}

impl Pages {
    /// Forgets what is no longer true.
    fn renew(&mut self, breaks: u64, restarts: usize) {
        if std::mem::replace(&mut self.as_of, (breaks, restarts)) != (breaks, restarts) {
            self.kept.clear();
        }
    }

    fn keep(&mut self, after: EventId, items: &[Item]) {
        if self.kept.len() >= PAGES_MAX {
            self.kept.pop_front();
        }
        // Of large ones only the newest, so that those who come back together share it.
        if items.iter().map(Item::bytes).sum::<usize>() > 4 * PAGE_BYTES {
            self.kept.clear();
        }
        self.kept.push_back((after, items.to_vec()));
    }

    /// The next page should have about [`PAGE_BYTES`].
    fn measure(&mut self, events: &[Event]) {
        let bytes: usize = events.iter().map(Event::bytes).sum();
        if let Some(mean) = bytes.checked_div(events.len()) {
            self.length = (PAGE_BYTES / mean.max(1)).clamp(1, PAGE_MAX);
        }
    }
}

/// The next events after a place and whether there are more; none of a stream that is not there.
async fn read(
    backend: &Backend,
    name: &StreamName,
    after: EventId,
    before: EventId,
    limit: usize,
) -> Result<(Vec<Event>, bool), Error> {
    match backend.read(name, Read { after, before, limit, order: Order::Ascending }).await {
        Ok(page) => Ok((page.events, page.more)),
        Err(Error::StreamNotFound { .. }) => Ok((Vec::new(), false)),
        Err(error) => Err(error),
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(recent) = self.log.get_mut() {
            self.hub.ring_bytes(recent.log.bytes(), 0);
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("name", &self.name).field("tail", &self.tail()).finish_non_exhaustive()
    }
}
