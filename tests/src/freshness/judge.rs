//! Holds a history against the promise of the cache; pure, so that it can be fed histories made by hand.
//!
//! A value that a read was given is *too old* when a change that covers it began after the value was there (its `set`
//! had returned, or its loader had read the source), and was acknowledged more than H before the read began (or, to the
//! process that made the change, before the read began at all). Everything else that overlaps may be in any order, and
//! what was not acknowledged may have happened or not: neither proves anything.

use std::collections::HashMap;
use std::time::Duration;

use super::history::{Change, History, Origin, Read, What};

/// 10 ms: the cache reads a clock of the machine that stands for up to so long.
pub const TICK: Duration = Duration::from_millis(10);

/// A broken promise, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A value older than the promise allows.
    TooOld {
        /// The answer.
        read: Read,
        /// Where the value came from.
        origin: Origin,
        /// What should have made everybody forget it.
        change: Change,
    },
    /// "There is no such thing", though every loader that said so was before a change.
    GoneTooLong {
        /// The answer.
        read: Read,
    },
    /// A value under the key of another.
    WrongKey {
        /// The answer.
        read: Read,
        /// Where the value came from.
        origin: Origin,
    },
    /// Bytes that nobody wrote.
    Garbled(String),
}

/// The verdict.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Reads that were judged.
    pub reads: u64,
    /// Reads of values whose origin nobody told: their process was killed.
    pub unknown: u64,
}

/// The changes that may concern a key, by their beginning.
type Concerning<'a> = HashMap<&'a str, Vec<&'a Change>>;

/// Judges; others must have heard of a change within H, or sooner.
#[must_use]
pub fn judge(history: &History, heard_within: Duration) -> Judged {
    let concerning = concerning(history);
    let mut absences: HashMap<&str, Vec<&Origin>> = HashMap::new();
    for origin in &history.absences {
        absences.entry(&origin.key).or_default().push(origin);
    }
    let others = nanos(heard_within + TICK);
    let too_old = |read: &Read, origin: &Origin| -> Option<Change> {
        let (changes, there) = (concerning.get(read.key.as_str())?, origin.end?);
        let later = &changes[changes.partition_point(|change| change.start <= there)..];
        let mut before = later.iter().take_while(|change| change.start < read.start);
        let found = before.find(|change| {
            let grace = if change.node == Some(read.node) { 0 } else { others };
            change.end + grace < read.start && change.what.covers(&origin.key, &origin.tags)
        });
        found.map(|change| (*change).clone())
    };
    let mut judged = Judged::default();
    judged.violations.extend(history.garbled.iter().cloned().map(Violation::Garbled));
    for read in &history.reads {
        judged.reads += 1;
        let Some(id) = read.id else {
            let known = absences.get(read.key.as_str()).map_or(&[][..], Vec::as_slice);
            let excused = known.iter().any(|origin| origin.start < read.end && too_old(read, origin).is_none());
            if !excused {
                judged.violations.push(Violation::GoneTooLong { read: read.clone() });
            }
            continue;
        };
        let Some(origin) = history.origins.get(&id) else {
            judged.unknown += 1;
            continue;
        };
        if origin.key != read.key {
            judged.violations.push(Violation::WrongKey { read: read.clone(), origin: origin.clone() });
        } else if let Some(change) = too_old(read, origin) {
            judged.violations.push(Violation::TooOld { read: read.clone(), origin: origin.clone(), change });
        }
    }
    judged
}

fn concerning(history: &History) -> Concerning<'_> {
    let keys = history.reads.iter().map(|read| read.key.as_str());
    let mut concerning: Concerning<'_> = keys.map(|key| (key, Vec::new())).collect();
    let mut changes: Vec<&Change> = history.changes.iter().collect();
    changes.sort_by_key(|change| change.start);
    for change in changes {
        match &change.what {
            What::Key(key) => concerning.entry(key).or_default().push(change),
            What::Prefix(prefix) => {
                let covered = concerning.iter_mut().filter(|(key, _)| key.starts_with(prefix.as_str()));
                covered.for_each(|(_, changes)| changes.push(change));
            }
            What::Tag(_) | What::All => concerning.values_mut().for_each(|changes| changes.push(change)),
        }
    }
    concerning
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
