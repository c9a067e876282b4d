//! The newest durable events of a stream, kept so that whoever reads at its end needs no disk.

use std::collections::VecDeque;

use crate::{Event, EventId, Order, Page, Read};

/// Per stream: some hundred ordinary events.
const BYTES_MAX: usize = 256 << 10;
/// What an event takes beside its bytes.
const OVERHEAD: usize = 224;

/// A page holds at most so many bytes, and one event: a thousand large ones would be a gigabyte.
pub(super) const PAGE_BYTES_MAX: usize = 8 << 20;

/// All durable events after a place.
#[derive(Debug)]
pub(super) struct Tail {
    events: VecDeque<Event>,
    bytes: usize,
    /// Every event after this place that is durable and kept is here.
    from: EventId,
}

/// A page that is being filled.
pub(super) struct Filling {
    limit: usize,
    bytes: usize,
    page: Page,
}

impl Filling {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, page: Page { events: Vec::new(), more: false } }
    }

    /// Whether there is room; without, the page notes that there are more.
    pub(super) fn has_room(&mut self) -> bool {
        let room = self.page.events.len() < self.limit && self.bytes < PAGE_BYTES_MAX;
        self.page.more |= !room;
        room
    }

    pub(super) fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.page.events.push(event);
    }

    pub(super) fn done(self) -> Page {
        self.page
    }
}

impl Tail {
    /// The tail of a stream whose end is at `last`.
    pub(super) fn at(last: EventId) -> Self {
        Self { events: VecDeque::new(), bytes: 0, from: last }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn first(&self) -> Option<EventId> {
        self.events.front().map(|event| event.id)
    }

    /// Whether all kept events after `place` are here.
    pub(super) fn covers(&self, place: EventId) -> bool {
        place >= self.from
    }

    /// Appends the next event.
    pub(super) fn push(&mut self, event: Event) {
        self.bytes += event.bytes() + OVERHEAD;
        self.events.push_back(event);
        while self.bytes > BYTES_MAX {
            self.pop();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.from = self.events.back().map_or(self.from, |event| event.id);
        (self.events, self.bytes) = (VecDeque::new(), 0);
    }

    /// Removes what is removed from the stream.
    pub(super) fn remove_to(&mut self, place: EventId) {
        while self.first().is_some_and(|first| first <= place) {
            self.pop();
        }
    }

    pub(super) fn find(&self, id: EventId) -> Option<&Event> {
        let at = self.events.binary_search_by_key(&id, |event| event.id).ok()?;
        self.events.get(at)
    }

    /// The page asked for, when it is here.
    pub(super) fn read(&self, read: Read) -> Option<Page> {
        let start = self.events.partition_point(|event| event.id <= read.after);
        let end = self.events.partition_point(|event| event.id < read.before).max(start);
        let mut filling = Filling::new(read.limit);
        match read.order {
            Order::Ascending if !self.covers(read.after) => return None,
            Order::Ascending => fill(&mut filling, self.events.range(start..end)),
            Order::Descending => fill(&mut filling, self.events.range(start..end).rev()),
        }
        let page = filling.done();
        (page.more || self.covers(read.after)).then_some(page)
    }

    fn pop(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.bytes() + OVERHEAD;
            self.from = event.id;
        }
    }
}

fn fill<'a>(filling: &mut Filling, events: impl Iterator<Item = &'a Event>) {
    for event in events {
        if !filling.has_room() {
            return;
        }
        filling.push(event.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewEvent;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    /// After 10, with the events 11 to 20.
    fn tail() -> Tail {
        let mut tail = Tail::at(id(10));
        (11..=20).for_each(|ms| tail.push(Event::new(id(ms), NewEvent::new("{}"))));
        tail
    }

    fn ids(read: Read) -> Option<(Vec<u64>, bool)> {
        tail().read(read).map(|page| (page.events.iter().map(|event| event.id.ms).collect(), page.more))
    }

    #[test]
    fn what_it_covers_is_read_from_it() {
        assert_eq!(ids(Read::after(id(10), 3)), Some((vec![11, 12, 13], true)));
        assert_eq!(ids(Read { before: id(13), ..Read::after(id(10), 3) }), Some((vec![11, 12], false)));
        assert_eq!(ids(Read::after(id(20), 3)), Some((vec![], false)));
        assert_eq!(ids(Read { before: id(3), ..Read::after(id(14), 3) }), Some((vec![], false)));
    }

    #[test]
    fn what_it_does_not_cover_is_not() {
        assert_eq!(ids(Read::after(id(9), 3)), None);
        assert_eq!(ids(Read { order: Order::Descending, limit: 10, ..Read::default() }), None);
        assert_eq!(
            ids(Read { order: Order::Descending, limit: 2, before: id(19), ..Read::default() }),
            Some((vec![18, 17], true)),
            "its newest are enough"
        );
    }

    #[test]
    fn it_stays_within_its_bytes_and_knows_from_where() {
        let mut tail = tail();
        tail.push(Event::new(id(21), NewEvent::new(vec![b' '; BYTES_MAX - OVERHEAD])));
        assert_eq!((tail.first(), tail.covers(id(19)), tail.covers(id(20))), (Some(id(21)), false, true));
        tail.push(Event::new(id(22), NewEvent::new(vec![b' '; BYTES_MAX])));
        assert_eq!((tail.bytes(), tail.covers(id(21)), tail.covers(id(22))), (0, false, true));
    }

    #[test]
    fn what_is_removed_is_not_found() {
        let mut tail = tail();
        tail.remove_to(id(15));
        assert!(tail.find(id(15)).is_none() && tail.find(id(16)).is_some());
        tail.clear();
        assert_eq!(tail.read(Read::after(id(20), 5)).map(|page| page.more), Some(false));
        assert_eq!(tail.read(Read::after(id(19), 5)), None);
    }

    #[test]
    fn a_page_ends_at_its_bytes() {
        let mut filling = Filling::new(10);
        for ms in 1..=3 {
            assert!(filling.has_room());
            filling.push(Event::new(id(ms), NewEvent::new(vec![0; PAGE_BYTES_MAX / 3 + 1])));
        }
        assert!(!filling.has_room());
        assert!(filling.done().more);
    }
}
