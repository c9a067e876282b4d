//! The shared log of one live stream: its recent events, framed at most once. Pure.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::listen::{Gap, GapReason};
use crate::frame::{Frames, Mark};
use crate::{Event, EventId};

/// Events that go out in one piece. 64 KiB: a few of them fill any socket.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNK_EVENTS: usize = 512;
/// What an event costs beyond its bytes.
const EVENT_OVERHEAD: usize = size_of::<Event>() + 64;

/// Leaves room for older items in front of the first.
const FIRST_TURN: Turn = 1 << 32;

/// Consecutive events; never empty.
#[derive(Debug)]
pub(crate) struct Chunk {
    events: Box<[Event]>,
    /// Made when the first listener wants frames.
    frames: OnceLock<Frames>,
}

impl Chunk {
    fn new(events: Vec<Event>) -> Self {
        Self { events: events.into(), frames: OnceLock::new() }
    }

    pub(crate) fn last(&self) -> EventId {
        self.events.last().map_or(EventId::ZERO, |event| event.id)
    }

    fn holds(&self, id: EventId) -> bool {
        self.events.binary_search_by_key(&id, |event| event.id).is_ok()
    }

    /// Events after a place.
    pub(crate) fn after(&self, at: EventId) -> &[Event] {
        &self.events[self.first_after(at)..]
    }

    fn first_after(&self, at: EventId) -> usize {
        self.events.partition_point(|event| event.id <= at)
    }

    /// The frames of the events after a place, ready to be sent.
    pub(crate) fn frames_after(&self, at: EventId) -> Bytes {
        let frames = self.frames();
        match frames.marks.get(self.first_after(at)) {
            Some(mark) => frames.bytes.slice(mark.start as usize..),
            None => Bytes::new(),
        }
    }

    /// For each event after a place its frame without the line `id`.
    pub(crate) fn bodies_after(&self, at: EventId) -> impl Iterator<Item = (EventId, Bytes)> {
        let (frames, first) = (self.frames(), self.first_after(at));
        let body = |mark: &Mark| frames.bytes.slice(mark.body as usize..mark.end as usize);
        self.events[first..].iter().zip(&frames.marks[first..]).map(move |(event, mark)| (event.id, body(mark)))
    }

    fn frames(&self) -> &Frames {
        self.frames.get_or_init(|| Frames::of(&self.events))
    }

    /// Twice its bytes: events and frames.
    pub(crate) fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.bytes() * 2 + EVENT_OVERHEAD).sum()
    }
}

/// What stands in a log.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Chunk(Arc<Chunk>),
    /// History is missing here; `from` is each listener's own.
    Gap {
        to: EventId,
        reason: GapReason,
    },
}

impl Item {
    /// How far one has come who has heard it.
    pub(crate) fn to(&self) -> EventId {
        match self {
            Self::Chunk(chunk) => chunk.last(),
            Self::Gap { to, .. } => *to,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Chunk(chunk) => chunk.bytes(),
            Self::Gap { .. } => 0,
        }
    }

    pub(crate) fn gap(&self, from: EventId) -> Option<Gap> {
        match self {
            Self::Chunk(_) => None,
            Self::Gap { to, reason } => Some(Gap { from, to: *to, reason: *reason }),
        }
    }
}

/// Cuts events into chunks, with a gap wherever `breaks` says that history may be missing between two neighbours.
pub(crate) fn weave(after: EventId, events: Vec<Event>, breaks: impl Fn(EventId, EventId) -> bool) -> Vec<Item> {
    let (mut items, mut chunk, mut bytes, mut before) = (Vec::new(), Vec::new(), 0, after);
    let close = |chunk: &mut Vec<Event>, items: &mut Vec<Item>| {
        if !chunk.is_empty() {
            items.push(Item::Chunk(Arc::new(Chunk::new(std::mem::take(chunk)))));
        }
    };
    for event in events {
        let is_break = breaks(before, event.id);
        if is_break || bytes + event.bytes() > CHUNK_BYTES || chunk.len() >= CHUNK_EVENTS {
            close(&mut chunk, &mut items);
            bytes = 0;
        }
        if is_break {
            items.push(Item::Gap { to: event.id.previous(), reason: GapReason::Restarted });
        }
        bytes += event.bytes();
        before = event.id;
        chunk.push(event);
    }
    close(&mut chunk, &mut items);
    items
}

/// A place in a log: the item that comes next.
pub(crate) type Turn = u64;

/// What comes next for a cursor.
#[derive(Debug)]
pub(crate) enum Next {
    Item(Item),
    /// Nothing yet.
    End,
    /// It is no longer held.
    Gone,
}

/// Recent events of a stream: everything after `start` up to `tail`.
#[derive(Debug)]
pub(crate) struct Log {
    items: VecDeque<Item>,
    first: Turn,
    start: EventId,
    tail: EventId,
    bytes: usize,
    /// Where history was broken off last.
    broken: Option<Break>,
}

/// Places after `to` and up to `end` were heard of something that is no more.
#[derive(Clone, Copy, Debug)]
struct Break {
    to: EventId,
    end: EventId,
    reason: GapReason,
}

impl Log {
    pub(crate) fn new(tail: EventId) -> Self {
        Self { items: VecDeque::new(), first: FIRST_TURN, start: tail, tail, bytes: 0, broken: None }
    }

    pub(crate) fn tail(&self) -> EventId {
        self.tail
    }

    pub(crate) fn start(&self) -> EventId {
        self.start
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The turn after everything.
    pub(crate) fn end(&self) -> Turn {
        self.first + self.items.len() as u64
    }

    /// The turn of the oldest item held.
    pub(crate) fn oldest(&self) -> Turn {
        self.first
    }

    /// What comes at a turn for a cursor that has come to `at`. Items put in front take the turns of those that were there,
    /// so what stands at a turn counts only if it follows on `at`.
    pub(crate) fn next(&self, turn: Turn, at: EventId) -> Next {
        let Some(index) = turn.checked_sub(self.first).map(|index| index as usize) else { return Next::Gone };
        let before = index.checked_sub(1).and_then(|before| self.items.get(before)).map_or(self.start, Item::to);
        match self.items.get(index) {
            Some(_) if before > at => Next::Gone,
            Some(item) => Next::Item(item.clone()),
            None => Next::End,
        }
    }

    /// Where a cursor that has come to `at` goes on, if all that follows is held.
    pub(crate) fn turn_after(&self, at: EventId) -> Option<Turn> {
        if at < self.start || at > self.tail || self.break_at(at).is_some() {
            return None;
        }
        // Items ascend: what makes them not do so clears the log.
        Some(self.first + self.items.partition_point(|item| item.to() <= at) as u64)
    }

    /// As [`turn_after`](Self::turn_after) for a place nobody has looked at: it must be one that this log knows. Another may be
    /// that of an event which is no more.
    pub(crate) fn turn_at(&self, at: EventId) -> Option<Turn> {
        let turn = self.turn_after(at)?;
        let index = (turn - self.first) as usize;
        let ends_before = index.checked_sub(1).map_or(self.start, |before| self.items[before].to()) == at;
        let is_inside = matches!(self.items.get(index), Some(Item::Chunk(chunk)) if chunk.holds(at));
        (ends_before || is_inside).then_some(turn)
    }

    /// Nothing up to here is appended: it is of a stream that was deleted.
    pub(crate) fn floor(&self) -> EventId {
        let deleted = self.broken.filter(|broken| broken.reason == GapReason::Deleted);
        deleted.map_or(EventId::ZERO, |broken| broken.end)
    }

    /// The gap that belongs to a place from before the last break. An event of the same id that was published since makes it
    /// a place of today.
    pub(crate) fn break_at(&self, at: EventId) -> Option<Item> {
        let broken = self.broken.filter(|broken| at > broken.to && at <= broken.end)?;
        let holds = |item: &Item| match item {
            Item::Chunk(chunk) => chunk.holds(at),
            Item::Gap { .. } => false,
        };
        (!self.items.iter().any(holds)).then_some(Item::Gap { to: broken.to, reason: broken.reason })
    }

    pub(crate) fn push(&mut self, items: Vec<Item>) {
        for item in items {
            self.tail = item.to();
            self.bytes += item.bytes();
            self.items.push_back(item);
        }
    }

    /// Puts older items in front, the last of which ends at `start`; they begin after `start`.
    pub(crate) fn push_front(&mut self, start: EventId, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.bytes += item.bytes();
            self.items.push_front(item);
            self.first -= 1;
        }
        self.start = start;
    }

    /// Forgets the oldest item, never the newest; `false` when there is none to forget.
    pub(crate) fn forget_oldest(&mut self) -> bool {
        if self.items.len() < 2 {
            return false;
        }
        let Some(item) = self.items.pop_front() else { return false };
        self.start = item.to();
        self.bytes -= item.bytes();
        self.first += 1;
        true
    }

    /// Nothing up to `end` is true any more: cursors hear a gap and go on at `to`. What stands after `end` came since.
    pub(crate) fn break_off(&mut self, to: EventId, end: EventId, reason: GapReason) {
        let ever = self.broken.map_or(end, |before| before.end.max(end));
        self.broken = Some(Break { to, end: ever, reason });
        if self.start > end {
            return;
        }
        while self.items.front().is_some_and(|item| item.to() <= end) {
            self.bytes -= self.items.pop_front().map_or(0, |item| item.bytes());
            self.first += 1;
        }
        if self.items.is_empty() {
            self.tail = to;
        } else {
            // In the turn of what went last: whoever has heard that has nothing to be told.
            self.first -= 1;
        }
        self.start = to;
        self.items.push_front(Item::Gap { to, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewEvent;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn events(ids: std::ops::RangeInclusive<u64>) -> Vec<Event> {
        ids.map(|ms| Event::new(id(ms), NewEvent::new(ms.to_string()))).collect()
    }

    fn log() -> Log {
        let mut log = Log::new(id(10));
        log.push(weave(id(10), events(11..=13), |_, _| false));
        log.push(weave(id(13), events(20..=20), |_, _| false));
        log
    }

    #[test]
    fn a_cursor_finds_its_place_or_is_told_that_it_is_gone() {
        let mut log = log();
        let first = log.oldest();
        assert_eq!(log.turn_after(id(9)), None);
        assert_eq!(log.turn_after(id(10)), Some(first));
        assert_eq!(log.turn_after(id(12)), Some(first));
        assert_eq!(log.turn_after(id(13)), Some(first + 1));
        assert_eq!(log.turn_after(id(20)), Some(first + 2));
        assert_eq!(log.turn_after(id(21)), None);
        let known = (9..=21).filter(|ms| log.turn_at(id(*ms)).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [10, 11, 12, 13, 20], "at 15 there was never anything");
        assert!(log.forget_oldest() && !log.forget_oldest());
        assert_eq!(log.start(), id(13));
        assert!(matches!(log.next(first, id(10)), Next::Gone));
        log.push_front(id(12), weave(id(12), events(13..=13), |_, _| false));
        assert!(matches!(log.next(first, id(10)), Next::Gone), "another item at the same turn");
        assert!(matches!(log.next(first, id(12)), Next::Item(_)));
    }

    #[test]
    fn older_events_can_be_put_in_front() {
        let mut log = Log::new(id(10));
        let end = log.end();
        log.push_front(id(4), weave(id(4), events(5..=10), |_, _| false));
        assert_eq!(log.turn_after(id(10)), Some(end));
        assert_eq!(log.turn_after(id(4)), Some(end - 1));
        assert_eq!(log.bytes(), log.items.iter().map(Item::bytes).sum::<usize>());
    }

    #[test]
    fn a_place_from_before_a_break_is_no_place_of_today() {
        let mut log = log();
        log.break_off(EventId::ZERO, id(20), GapReason::Deleted);
        log.push(weave(EventId::ZERO, events(18..=30), |_, _| false));
        assert_eq!(log.turn_after(id(13)), None);
        assert_eq!(log.break_at(id(13)).map(|gap| gap.to()), Some(EventId::ZERO));
        assert!(log.turn_after(id(18)).is_some(), "published again under its id");
        assert!(log.turn_after(id(25)).is_some() && log.turn_after(EventId::ZERO).is_some());
    }

    #[test]
    fn what_came_after_the_end_of_a_deleted_stream_stays() {
        let mut log = log();
        let next = log.end();
        log.push(weave(id(20), events(21..=22), |_, _| false));
        log.break_off(EventId::ZERO, id(20), GapReason::Deleted);
        assert_eq!((log.tail(), log.floor()), (id(22), id(20)));
        assert!(matches!(log.next(next, id(20)), Next::Item(Item::Chunk(_))), "who heard all goes on");
        assert!(matches!(log.next(log.oldest(), EventId::ZERO), Next::Item(Item::Gap { .. })));
        assert!(log.turn_at(id(21)).is_some() && log.turn_at(id(12)).is_none());
        assert_eq!(log.bytes(), log.items.iter().map(Item::bytes).sum::<usize>());
    }

    #[test]
    fn a_break_between_neighbours_becomes_a_gap() {
        let items = weave(id(1), events(2..=5), |before, next| before < id(4) && next >= id(4));
        let told: Vec<_> = items.iter().map(Item::to).collect();
        assert_eq!(told, [id(3), id(4).previous(), id(5)]);
        assert!(items[1].gap(id(3)).is_some());
    }

    #[test]
    fn chunks_are_bounded() {
        let large = |ms| Event::new(id(ms), NewEvent::new(vec![b'1'; 40_000]));
        assert_eq!(weave(id(0), (1..=4).map(large).collect(), |_, _| false).len(), 4);
        assert_eq!(weave(id(0), events(1..=1000), |_, _| false).len(), 2);
    }
}
