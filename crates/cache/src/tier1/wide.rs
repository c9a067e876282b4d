//! Versions: what changed that covers many keys.
//!
//! One number counts such changes. Whatever is read is stamped with it *before* it is read, so a change that comes later
//! has a higher number, and comparing the two says whether the change is newer than what was read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::key::KeyRef;

/// The version something was read under.
pub(crate) type Stamp = u64;

#[derive(Debug)]
pub(crate) struct Wide {
    version: AtomicU64,
    /// What was read under an older version is dead.
    floor: AtomicU64,
    /// As many as in `prefixes`, to be read without its lock.
    prefix_count: AtomicUsize,
    /// Prefixes that changed, each with the version of its change; held to look one up, add or take out.
    prefixes: RwLock<Vec<(Box<str>, Stamp)>>,
    /// Fills begun before this version are refused: a prefix that changed then was swept and is no longer listed.
    swept: AtomicU64,
}

impl Wide {
    pub(super) fn new() -> Self {
        Self {
            version: AtomicU64::new(1),
            floor: AtomicU64::new(0),
            prefix_count: AtomicUsize::new(0),
            prefixes: RwLock::default(),
            swept: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Stamp {
        self.version.load(Ordering::SeqCst)
    }

    /// A new version: older stamps are from before it.
    pub(super) fn next(&self) -> Stamp {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether what was read under `stamp` is older than no change that covers the key.
    #[inline]
    pub(super) fn stands(&self, key: KeyRef<'_>, stamp: Stamp) -> bool {
        stamp >= self.floor.load(Ordering::SeqCst)
            && (self.prefix_count.load(Ordering::SeqCst) == 0 || !self.is_covered(key.text, stamp))
    }

    /// As [`stands`](Self::stands), also for what is to be kept from now on.
    #[inline]
    pub(super) fn admits(&self, key: KeyRef<'_>, stamp: Stamp) -> bool {
        stamp >= self.swept.load(Ordering::SeqCst) && self.stands(key, stamp)
    }

    #[cold]
    fn is_covered(&self, key: &str, stamp: Stamp) -> bool {
        self.prefixes.read().iter().any(|(prefix, changed)| *changed > stamp && key.starts_with(&**prefix))
    }

    pub(super) fn flush(&self) {
        let version = self.next();
        self.floor.fetch_max(version, Ordering::SeqCst);
    }

    /// The version of the change. With `most` listed already everything is forgotten instead.
    pub(super) fn forget_prefix(&self, prefix: &str, most: usize) -> Stamp {
        let mut prefixes = self.prefixes.write();
        let version = self.next();
        let has_room = prefixes.len() < most;
        match prefixes.iter_mut().find(|(known, _)| **known == *prefix) {
            Some((_, changed)) => *changed = version,
            None if has_room => prefixes.push((prefix.into(), version)),
            None => {
                self.floor.fetch_max(version, Ordering::SeqCst);
                prefixes.clear();
            }
        }
        self.prefix_count.store(prefixes.len(), Ordering::SeqCst);
        version
    }

    /// What was read under an older version is dead.
    pub(super) fn floor(&self) -> Stamp {
        self.floor.load(Ordering::SeqCst)
    }

    /// Whether nothing was flushed since.
    pub(super) fn is_above_floor(&self, stamp: Stamp) -> bool {
        stamp >= self.floor()
    }

    /// The prefixes that wait to be swept.
    pub(super) fn prefixes(&self) -> Vec<(Box<str>, Stamp)> {
        if self.prefix_count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        self.prefixes.read().clone()
    }

    /// No entry is left that these cover.
    pub(super) fn swept(&self, done: &[(Box<str>, Stamp)]) {
        let mut prefixes = self.prefixes.write();
        for (_, changed) in done {
            self.swept.fetch_max(*changed, Ordering::SeqCst);
        }
        prefixes.retain(|known| !done.contains(known));
        self.prefix_count.store(prefixes.len(), Ordering::SeqCst);
    }
}
