//! The idempotence ids a stream remembers: synchronous, `now` is an argument.

use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};

use crate::EventId;

/// Ids published before, oldest first; of each the event it stands for.
#[derive(Debug)]
pub(super) struct Seen {
    by_id: HashMap<Bytes, EventId>,
    order: VecDeque<(EventId, Bytes)>,
}

/// What was forgotten.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// The events it was remembered for.
    pub(super) events: Vec<EventId>,
    /// How many of them because there were too many.
    pub(super) early: u64,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new() }
    }

    /// The event published under `id` within the window. The time of an event is that of its place.
    pub(super) fn find(&self, id: &Bytes, now_ms: u64, window_ms: u64) -> Option<EventId> {
        self.by_id.get(id).copied().filter(|event| !is_over(*event, now_ms, window_ms))
    }

    /// Remembers; events come in ascending order.
    pub(super) fn insert(&mut self, id: Bytes, event: EventId) {
        self.by_id.insert(id.clone(), event);
        self.order.push_back((event, id));
    }

    /// Forgets what is over, and the oldest beyond `max`; at most `budget` of them.
    pub(super) fn forget(&mut self, now_ms: u64, window_ms: u64, max: usize, budget: usize) -> Forgotten {
        let mut forgotten = Forgotten::default();
        while forgotten.events.len() < budget {
            let Some((event, _)) = self.order.front() else { break };
            let over = is_over(*event, now_ms, window_ms);
            if !over && self.order.len() <= max {
                break;
            }
            let Some((event, id)) = self.order.pop_front() else { break };
            forgotten.early += u64::from(!over);
            forgotten.events.push(event);
            // After the window the id may stand for a later event.
            if self.by_id.get(&id) == Some(&event) {
                self.by_id.remove(&id);
            }
        }
        if self.order.is_empty() {
            // Most streams never see an id again.
            *self = Self::new();
        }
        forgotten
    }

    pub(super) fn oldest(&self) -> Option<EventId> {
        self.order.front().map(|(event, _)| *event)
    }
}

fn is_over(event: EventId, now_ms: u64, window_ms: u64) -> bool {
    event.ms.saturating_add(window_ms) < now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn seen(ids: &[(&'static str, u64)]) -> Seen {
        let mut seen = Seen::new();
        for (id, ms) in ids {
            seen.insert(Bytes::from_static(id.as_bytes()), at(*ms));
        }
        seen
    }

    #[test]
    fn an_id_counts_within_its_window_only() {
        let seen = seen(&[("a", 100)]);
        assert_eq!(seen.find(&"a".into(), 150, 50), Some(at(100)));
        assert_eq!(seen.find(&"a".into(), 151, 50), None);
        assert_eq!(seen.find(&"b".into(), 100, 50), None);
    }

    #[test]
    fn the_oldest_go_first_and_early_ones_are_counted() {
        let mut seen = seen(&[("a", 1), ("b", 2), ("c", 100), ("d", 101)]);
        let forgotten = seen.forget(60, 50, 1, 10);
        assert_eq!(forgotten, Forgotten { events: vec![at(1), at(2), at(100)], early: 1 });
        assert_eq!(seen.oldest(), Some(at(101)));
    }

    #[test]
    fn forgetting_an_old_use_keeps_a_later_one() {
        let mut seen = seen(&[("a", 1), ("a", 100)]);
        assert_eq!(seen.forget(60, 50, 10, 10).events, [at(1)]);
        assert_eq!(seen.find(&"a".into(), 60, 50), Some(at(100)));
    }

    #[test]
    fn a_budget_bounds_the_work() {
        let mut seen = seen(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(seen.forget(1000, 1, 10, 2).events.len(), 2);
        assert_eq!(seen.oldest(), Some(at(3)));
    }
}
