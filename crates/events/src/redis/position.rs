//! What this process knows of where its groups stand, so that a group Redis has lost begins again where it was.
//!
//! Remembered is which deliveries nobody has been seen to acknowledge. A group that is missing is made anew before the
//! oldest of them; one that somebody else made anew goes back there. Without any memory it begins with the oldest event kept:
//! every event is delivered at least once in any case.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{EventId, GroupName, StreamName};

/// Groups remembered; beyond, those without open deliveries are forgotten, then any.
const GROUPS_MAX: usize = 10_000;
/// Open deliveries remembered per group; beyond, its place is not known any more.
const OPEN_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<HashMap<(StreamName, GroupName), Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// Who made the group, as Redis last said.
    made: Bytes,
    delivered_to: EventId,
    open: BTreeSet<EventId>,
}

/// What a look into the group takes along.
pub(super) struct Known {
    /// Where the group begins if it is missing.
    pub(super) position: EventId,
    /// Before the oldest open delivery.
    pub(super) held: Option<EventId>,
    pub(super) made: Bytes,
}

impl Positions {
    pub(super) fn of(&self, stream: &StreamName, group: &GroupName) -> Known {
        let groups = self.0.lock();
        let Some(memory) = groups.get(&(stream.clone(), group.clone())) else {
            return Known { position: EventId::ZERO, held: None, made: Bytes::new() };
        };
        let held = memory.open.first().map(|id| id.previous());
        Known { position: held.unwrap_or(memory.delivered_to), held, made: memory.made.clone() }
    }

    pub(super) fn delivered(
        &self,
        stream: &StreamName,
        group: &GroupName,
        made: Bytes,
        ids: impl Iterator<Item = EventId>,
    ) {
        let mut groups = self.0.lock();
        if groups.len() >= GROUPS_MAX {
            groups.retain(|_, memory| !memory.open.is_empty());
        }
        if groups.len() >= GROUPS_MAX {
            groups.clear();
        }
        let memory = groups.entry((stream.clone(), group.clone())).or_default();
        memory.made = made;
        for id in ids {
            memory.open.insert(id);
            memory.delivered_to = memory.delivered_to.max(id);
        }
        if memory.open.len() > OPEN_MAX {
            *memory = Memory::default();
        }
    }

    pub(super) fn acknowledged(&self, stream: &StreamName, group: &GroupName, ids: &[EventId]) {
        if let Some(memory) = self.0.lock().get_mut(&(stream.clone(), group.clone())) {
            ids.iter().for_each(|id| _ = memory.open.remove(id));
        }
    }

    /// A stream was deleted, and its groups with it.
    pub(super) fn forget(&self, stream: &StreamName) {
        self.0.lock().retain(|(other, _), _| other != stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 1 }
    }

    #[test]
    fn a_group_begins_again_before_the_oldest_open_delivery() {
        let (positions, stream) = (Positions::default(), StreamName::new("s").unwrap());
        let group = GroupName::new("g").unwrap();
        assert_eq!(positions.of(&stream, &group).position, EventId::ZERO);
        positions.delivered(&stream, &group, "a".into(), [1, 2, 3].into_iter().map(id));
        positions.acknowledged(&stream, &group, &[id(1), id(3)]);
        let known = positions.of(&stream, &group);
        assert_eq!((known.position, known.held), (id(2).previous(), Some(id(2).previous())));
        positions.acknowledged(&stream, &group, &[id(2)]);
        let known = positions.of(&stream, &group);
        assert_eq!((known.position, known.held, &known.made[..]), (id(3), None, &b"a"[..]));
        positions.forget(&stream);
        assert_eq!(positions.of(&stream, &group).position, EventId::ZERO);
    }
}
