//! One stream: what is known of it in memory, and the rules of its ids, counts and bounds. No I/O; `now` is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::group::Members;
use super::seen::Seen;
use super::tail::Tail;
use crate::backend::Bounds;
use crate::record::StoredStream;
use crate::{Event, EventId, GroupName, Page, Read, Retention, StreamInfo, StreamName, Trim};

/// Never due.
pub(super) const NEVER: u64 = u64::MAX;

/// A stream; it knows nothing of the store.
pub(super) struct Stream {
    pub(super) name: StreamName,
    pub(super) no: u32,
    pub(super) retention: Retention,
    /// Never held across an await or a read of the disk; batches are submitted within it, so that they are written in the
    /// order of the decisions.
    pub(super) state: Mutex<State>,
    /// Locked after `state` or alone.
    pub(super) groups: Mutex<Groups>,
    /// Held by whoever removes old events, over its reads and writes.
    pub(super) removal: tokio::sync::Mutex<()>,
}

/// The groups of a stream.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) by_name: BTreeMap<GroupName, Arc<Members>>,
    /// The stream is deleted: no group is made any more.
    pub(super) gone: bool,
}

/// What changes.
pub(super) struct State {
    /// Events that were given a place, durable or not.
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// The oldest event kept, or a place before it.
    pub(super) first: EventId,
    /// The newest place given out.
    pub(super) last: EventId,
    pub(super) removed_to: EventId,
    /// The newest durable place: nobody sees what is after it.
    pub(super) durable: EventId,
    /// Events after `durable`.
    pub(super) unsettled: VecDeque<Event>,
    pub(super) tail: Tail,
    /// It stands in the line of those whose tails are cut when all together are too large.
    pub(super) owns_tail: bool,
    pub(super) seen: Seen,
    /// When upkeep looks at it, milliseconds since 1970.
    pub(super) due: u64,
    pub(super) deleted: bool,
    /// Its first events are durable: others may see it.
    pub(super) settled: bool,
}

impl Stream {
    /// `after`: the last place of a deleted stream of the same name.
    pub(super) fn new(name: StreamName, no: u32, retention: Retention, after: EventId) -> Self {
        let stored = StoredStream { no, count: 0, bytes: 0, first: after, last: after, removed_to: after };
        Self::restore(name, &stored, retention, false)
    }

    pub(super) fn load(name: StreamName, stored: &StoredStream, retention: Retention) -> Self {
        Self::restore(name, stored, retention, true)
    }

    fn restore(name: StreamName, stored: &StoredStream, retention: Retention, settled: bool) -> Self {
        let &StoredStream { no, count, bytes, first, last, removed_to } = stored;
        let state = State {
            count,
            bytes,
            first,
            last,
            removed_to,
            durable: last,
            unsettled: VecDeque::new(),
            tail: Tail::at(last),
            owns_tail: false,
            seen: Seen::new(),
            due: NEVER,
            deleted: false,
            settled,
        };
        Self { name, no, retention, state: Mutex::new(state), groups: Mutex::default(), removal: Default::default() }
    }

    pub(super) fn group(&self, name: &GroupName) -> Option<Arc<Members>> {
        self.groups.lock().by_name.get(name).cloned()
    }

    /// `None` while nobody may see it.
    pub(super) fn info(&self) -> Option<StreamInfo> {
        let state = self.state.lock();
        let length = state.length();
        let kept = |id| (length > 0).then_some(id);
        let is_seen = state.settled && !state.deleted;
        is_seen.then(|| StreamInfo {
            name: self.name.clone(),
            length,
            first: kept(state.first),
            last: kept(state.durable),
        })
    }

    /// When upkeep must look at it: it is longer than it may be, or its oldest event or idempotence id gets too old.
    pub(super) fn next_due(&self, state: &State, window_ms: u64) -> u64 {
        let excess = self.retention.length_max.is_some_and(|max| state.count > max.saturating_add(slack(max)));
        if excess {
            return 0;
        }
        let after = |id: EventId, ms: u64| id.ms.saturating_add(ms).saturating_add(delay_ms(ms));
        let oldest = (state.count > 0).then_some(state.first);
        let aged = oldest.zip(self.age_ms()).map_or(NEVER, |(first, age)| after(first, age));
        aged.min(state.seen.oldest().map_or(NEVER, |oldest| after(oldest, window_ms)))
    }

    pub(super) fn age_ms(&self) -> Option<u64> {
        self.retention.age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How much longer than its bound a stream gets before it is cut: a tenth, a thousand at most, so that a cut is a batch.
fn slack(length_max: u64) -> u64 {
    (length_max / 10).clamp(1, 1000)
}

/// How much later than its age an event goes: so that streams with a trickle are not cut one by one.
fn delay_ms(age_ms: u64) -> u64 {
    (age_ms / 64).clamp(1, 10_000)
}

impl State {
    /// Events that others see.
    pub(super) fn length(&self) -> u64 {
        self.count.saturating_sub(self.unsettled.len() as u64)
    }

    pub(super) fn stored(&self, no: u32) -> StoredStream {
        let Self { count, bytes, first, last, removed_to, .. } = *self;
        StoredStream { no, count, bytes, first, last, removed_to }
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { last: self.durable, removed_to: self.removed_to }
    }

    /// Gives out the next place; ids ascend whatever the clock does.
    pub(super) fn next_id(&mut self, now_ms: u64) -> EventId {
        self.last = if now_ms > self.last.ms { EventId { ms: now_ms, seq: 0 } } else { self.last.next() };
        if self.count == 0 {
            self.first = self.last;
        }
        self.count += 1;
        self.last
    }

    /// Everything up to `to` is durable: answers the events that became so.
    pub(super) fn settle(&mut self, to: EventId) -> Vec<Event> {
        let end = self.unsettled.partition_point(|event| event.id <= to);
        let fresh: Vec<Event> = self.unsettled.drain(..end).collect();
        if self.unsettled.is_empty() && self.unsettled.capacity() > 64 {
            self.unsettled = VecDeque::new();
        }
        self.durable = self.durable.max(to);
        self.settled = true;
        fresh
    }

    /// The page asked for, when it is in memory.
    pub(super) fn read(&self, read: Read) -> Option<Page> {
        self.tail.read(read)
    }

    /// What is to be removed, when there is anything.
    pub(super) fn removal(&self, trim: Trim) -> Option<Removal> {
        let end = self.durable.next();
        let removal = match trim {
            Trim::MaxLength(length) => Removal { before: end, left: self.length().saturating_sub(length) },
            Trim::Before(id) => Removal { before: id.min(end), left: self.length() },
        };
        (removal.left > 0 && self.first < removal.before && !self.deleted).then_some(removal)
    }

    /// The oldest events are gone, the newest of them at `to`; `next` is the oldest that stays, where it is known.
    pub(super) fn removed(&mut self, gone: u64, bytes: u64, to: EventId, next: Option<EventId>) {
        self.count = self.count.saturating_sub(gone);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.removed_to = self.removed_to.max(to);
        self.tail.remove_to(to);
        let in_memory = || {
            let of_tail = if self.tail.covers(to) { self.tail.first() } else { None };
            of_tail.or_else(|| self.unsettled.front().map(|event| event.id))
        };
        self.first = next.or_else(in_memory).unwrap_or(to.next());
    }
}

/// Events to remove: the oldest, at most `left`, all before a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) before: EventId,
    pub(super) left: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::NewEvent;

    fn stream(length_max: Option<u64>, age_max: Option<Duration>) -> Stream {
        Stream::new(StreamName::new("s").unwrap(), 1, Retention { length_max, age_max }, EventId::ZERO)
    }

    fn publish(state: &mut State, now_ms: u64) -> EventId {
        let id = state.next_id(now_ms);
        state.unsettled.push_back(Event::new(id, NewEvent::new("{}")));
        id
    }

    #[test]
    fn ids_ascend_whatever_the_clock_does() {
        let stream = stream(None, None);
        let mut state = stream.state.lock();
        let ids: Vec<_> = [0, 5, 5, 3, 0, 6].map(|now| state.next_id(now)).map(|id| (id.ms, id.seq)).into();
        assert_eq!(ids, [(0, 1), (5, 0), (5, 1), (5, 2), (5, 3), (6, 0)]);
    }

    #[test]
    fn what_is_not_durable_is_not_counted() {
        let stream = stream(None, None);
        let ids = [1, 2, 3].map(|now| publish(&mut stream.state.lock(), now));
        assert_eq!(stream.info(), None);
        assert_eq!(stream.state.lock().settle(ids[1]).len(), 2);
        let info = stream.info().unwrap();
        assert_eq!((info.length, info.first, info.last), (2, Some(ids[0]), Some(ids[1])));
        assert_eq!(stream.state.lock().bounds(), Bounds { last: ids[1], removed_to: EventId::ZERO });
    }

    #[test]
    fn a_trim_takes_durable_events_only() {
        let stream = stream(None, None);
        let mut state = stream.state.lock();
        let ids = [1, 2, 3, 4].map(|now| publish(&mut state, now));
        assert_eq!(state.removal(Trim::MaxLength(0)), None);
        state.settle(ids[2]);
        assert_eq!(state.removal(Trim::MaxLength(1)), Some(Removal { before: ids[2].next(), left: 2 }));
        assert_eq!(state.removal(Trim::Before(EventId::MAX)), Some(Removal { before: ids[2].next(), left: 3 }));
        assert_eq!(state.removal(Trim::Before(ids[0])), None);
        state.removed(3, 0, ids[2], None);
        assert_eq!((state.first, state.count, state.length()), (ids[3], 1, 0));
    }

    #[test]
    fn a_stream_is_cut_when_it_is_a_tenth_too_long() {
        let stream = stream(Some(100), None);
        let mut state = stream.state.lock();
        for _ in 0..110 {
            let id = publish(&mut state, 1);
            state.settle(id);
            assert_eq!(stream.next_due(&state, 0), NEVER);
        }
        let id = publish(&mut state, 1);
        state.settle(id);
        assert_eq!(stream.next_due(&state, 0), 0);
    }

    #[test]
    fn a_stream_is_due_when_its_oldest_event_or_idempotence_id_is() {
        let stream = stream(None, Some(Duration::from_millis(640)));
        let mut state = stream.state.lock();
        assert_eq!(stream.next_due(&state, 64), NEVER);
        let id = publish(&mut state, 1000);
        state.settle(id);
        assert_eq!(stream.next_due(&state, 64), 1650);
        state.seen.insert("a".into(), id);
        assert_eq!(stream.next_due(&state, 64), 1065);
    }
}
