//! The last places of deleted streams: a stream made again under the same name goes on after its predecessor, so no id
//! means two events, and whoever comes back from before hears that history is missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{EventId, StreamName};

/// Some megabytes. Beyond, the ones whose end is longest ago are forgotten: ids begin with the time, so what is at stake is
/// a gap nobody tells to a listener that was away for as long.
const KEPT_MAX: usize = 10_000;

/// Deleted streams by name.
#[derive(Default)]
pub(super) struct Tombs {
    by_name: BTreeMap<StreamName, EventId>,
    by_age: BTreeSet<(EventId, StreamName)>,
}

impl Tombs {
    pub(super) fn get(&self, name: &StreamName) -> Option<EventId> {
        self.by_name.get(name).copied()
    }

    /// Remembers one, and answers the one forgotten for it.
    pub(super) fn insert(&mut self, name: StreamName, last: EventId) -> Option<StreamName> {
        self.remove(&name);
        self.by_age.insert((last, name.clone()));
        self.by_name.insert(name, last);
        if self.by_name.len() <= KEPT_MAX {
            return None;
        }
        let (_, forgotten) = self.by_age.pop_first()?;
        self.by_name.remove(&forgotten);
        Some(forgotten)
    }

    pub(super) fn remove(&mut self, name: &StreamName) {
        if let Some((name, last)) = self.by_name.remove_entry(name) {
            self.by_age.remove(&(last, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut tombs = Tombs::default();
        let name = |no: u64| StreamName::new(&format!("s{no}")).unwrap();
        for no in 0..KEPT_MAX as u64 {
            assert_eq!(tombs.insert(name(no), EventId { ms: no + 5, seq: 0 }), None);
        }
        tombs.insert(name(0), EventId { ms: 1_000_000, seq: 0 });
        assert_eq!(tombs.insert(name(99_999), EventId { ms: 1, seq: 0 }), Some(name(99_999)), "it was the oldest");
        assert_eq!(tombs.insert(name(99_999), EventId { ms: 9_999_999, seq: 0 }), Some(name(1)));
        assert_eq!(tombs.get(&name(0)), Some(EventId { ms: 1_000_000, seq: 0 }));
        tombs.remove(&name(0));
        assert_eq!(tombs.get(&name(0)), None);
    }
}
