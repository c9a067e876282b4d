//! One group: who holds what, and which deliveries others may take over. No I/O; `now` is an argument.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use foldhash::HashMap;
use parking_lot::Mutex;

use crate::record::{StoredGroup, StoredHeld};
use crate::{EventId, Pending};

/// A group of a stream.
pub(super) struct Members {
    pub(super) no: u32,
    /// Held by one look into the group at a time, also while it reads events.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Never held across an await; batches are submitted within it.
    pub(super) ledger: Mutex<Ledger>,
}

impl Members {
    pub(super) fn new(stored: StoredGroup) -> Self {
        let ledger = Ledger { delivered_to: stored.delivered_to, ..Ledger::default() };
        Self { no: stored.no, turn: tokio::sync::Mutex::default(), ledger: Mutex::new(ledger) }
    }
}

/// Deliveries that are not acknowledged.
#[derive(Default)]
pub(super) struct Ledger {
    /// The newest event delivered.
    pub(super) delivered_to: EventId,
    held: BTreeMap<EventId, Held>,
    /// The same, longest held first.
    by_age: BTreeSet<(u64, EventId)>,
    /// Deliveries each consumer holds.
    consumers: HashMap<Bytes, u64>,
    /// Its stream is deleted; nothing is written any more.
    pub(super) gone: bool,
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) consumer: Bytes,
    /// When it was delivered, milliseconds since 1970; 0 when it was given back.
    pub(super) since: u64,
    pub(super) deliveries: u32,
}

impl Held {
    pub(super) fn stored(&self) -> StoredHeld<'_> {
        StoredHeld { consumer: &self.consumer, since: self.since, deliveries: self.deliveries }
    }
}

impl Ledger {
    pub(super) fn get(&self, id: EventId) -> Option<&Held> {
        self.held.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Hands an event to a consumer.
    pub(super) fn hold(&mut self, id: EventId, held: Held) {
        self.let_go(id);
        // Many deliveries share one name.
        let consumer = self.consumers.get_key_value(&held.consumer).map(|(name, _)| name.clone());
        let held = Held { consumer: consumer.unwrap_or(held.consumer), ..held };
        *self.consumers.entry(held.consumer.clone()).or_default() += 1;
        self.by_age.insert((held.since, id));
        self.held.insert(id, held);
    }

    /// Nobody holds it any more.
    pub(super) fn let_go(&mut self, id: EventId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.by_age.remove(&(held.since, id));
        if let Some(count) = self.consumers.get_mut(&held.consumer) {
            *count -= 1;
            if *count == 0 {
                self.consumers.remove(&held.consumer);
            }
        }
        Some(held)
    }

    /// Takes it from its holder, for whoever looks next.
    pub(super) fn free(&mut self, id: EventId) -> Option<Held> {
        let held = Held { since: 0, ..self.get(id)?.clone() };
        self.hold(id, held.clone());
        Some(held)
    }

    /// What was held since an instant that is not over yet, because the clock was set back, is held since now.
    pub(super) fn forgive(&mut self, now_ms: u64) {
        while let Some(&(since, id)) = self.by_age.last().filter(|(since, _)| *since > now_ms) {
            self.by_age.remove(&(since, id));
            self.by_age.insert((now_ms, id));
            if let Some(held) = self.held.get_mut(&id) {
                held.since = now_ms;
            }
        }
    }

    /// What has been held for at least `min_idle_ms`, longest first; what was delivered `deliveries_max` times does not take
    /// the place of what was not, at most `limit` of each.
    pub(super) fn idle(&self, now_ms: u64, min_idle_ms: u64, deliveries_max: u32, limit: usize) -> Vec<EventId> {
        let (mut alive, mut exhausted) = (0, 0);
        let mut idle = Vec::new();
        for (since, id) in &self.by_age {
            if since.saturating_add(min_idle_ms) > now_ms || alive + exhausted >= 2 * limit {
                break;
            }
            let is_alive = self.get(*id).is_some_and(|held| held.deliveries < deliveries_max);
            let count = if is_alive { &mut alive } else { &mut exhausted };
            if *count < limit {
                *count += 1;
                idle.push(*id);
            }
        }
        idle
    }

    /// How long until the next is idle, in milliseconds.
    pub(super) fn next_idle(&self, now_ms: u64, min_idle_ms: u64) -> Option<u64> {
        self.by_age.first().map(|(since, _)| since.saturating_add(min_idle_ms).saturating_sub(now_ms))
    }

    /// Deliveries after a place, oldest event first.
    pub(super) fn after(&self, after: EventId, now_ms: u64, limit: usize) -> Vec<Pending> {
        let pending = |(id, held): (&EventId, &Held)| Pending {
            id: *id,
            consumer: String::from_utf8_lossy(&held.consumer).into(),
            idle: std::time::Duration::from_millis(now_ms.saturating_sub(held.since)),
            deliveries: held.deliveries,
        };
        self.held.range(after..).filter(|(id, _)| **id > after).take(limit).map(pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn ledger(held: &[(u64, &'static str, u64, u32)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (ms, consumer, since, deliveries) in held {
            ledger.hold(id(*ms), Held { consumer: (*consumer).into(), since: *since, deliveries: *deliveries });
        }
        ledger
    }

    #[test]
    fn the_longest_held_is_taken_first_once_it_is_idle() {
        let ledger = ledger(&[(1, "a", 30, 1), (2, "b", 10, 1), (3, "a", 20, 1)]);
        assert_eq!(ledger.idle(120, 100, 5, 10), [id(2), id(3)]);
        assert_eq!(ledger.idle(130, 100, 5, 1), [id(2)]);
        assert_eq!((ledger.next_idle(50, 100), ledger.next_idle(200, 100)), (Some(60), Some(0)));
    }

    #[test]
    fn exhausted_ones_do_not_crowd_out_others() {
        let ledger = ledger(&[(1, "a", 1, 5), (2, "a", 2, 5), (3, "a", 3, 4)]);
        assert_eq!(ledger.idle(100, 10, 5, 1), [id(1), id(3)]);
    }

    #[test]
    fn freed_ones_are_idle_at_once() {
        let mut ledger = ledger(&[(1, "a", 50, 1), (2, "a", 50, 2)]);
        assert_eq!(ledger.free(id(2)).map(|held| held.deliveries), Some(2));
        assert_eq!(ledger.free(id(3)), None);
        assert_eq!(ledger.idle(51, 40, 5, 10), [id(2)]);
    }

    #[test]
    fn consumers_are_those_who_hold_something() {
        let mut ledger = ledger(&[(1, "a", 1, 1), (2, "a", 1, 1), (3, "b", 1, 1)]);
        assert_eq!(ledger.consumers(), 2);
        ledger.let_go(id(3));
        ledger.hold(id(1), Held { consumer: "c".into(), since: 9, deliveries: 2 });
        assert_eq!((ledger.consumers(), ledger.len()), (2, 2));
        ledger.let_go(id(2));
        assert_eq!(ledger.consumers(), 1);
        assert_eq!(ledger.let_go(id(2)), None);
    }

    #[test]
    fn a_clock_set_back_does_not_keep_deliveries_for_ever() {
        let mut ledger = ledger(&[(1, "a", 1000, 1), (2, "a", 5, 1)]);
        ledger.forgive(10);
        assert_eq!(ledger.idle(20, 10, 5, 10), [id(2), id(1)]);
    }

    #[test]
    fn pending_deliveries_are_paged_by_event() {
        let ledger = ledger(&[(1, "a", 5, 1), (2, "b", 9, 2), (3, "a", 5, 1)]);
        let page = ledger.after(id(1), 10, 1);
        assert_eq!((page[0].id, &*page[0].consumer, page[0].idle.as_millis(), page[0].deliveries), (id(2), "b", 1, 2));
        assert!(ledger.after(id(3), 10, 5).is_empty());
    }
}
