//! What tier 1 keeps of a key.

use super::tags::Tag;
use super::wide::Stamp;

/// A value and its terms.
#[derive(Clone, Debug)]
pub(crate) struct Entry<V> {
    /// `None`: there is no such thing, as a loader said.
    pub(crate) value: Option<V>,
    pub(crate) terms: Terms,
}

/// How long a value lives, and what it depends on.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Until when it is fresh.
    pub(crate) fresh_until: u64,
    /// The version it was begun under; set when it is kept.
    pub(crate) stamp: Stamp,
    pub(crate) tags: Tag,
    /// For how many milliseconds after `fresh_until` it may be given where that is asked for.
    pub(crate) stale_for: u32,
    /// Bytes it takes, besides its key.
    pub(crate) weight: u32,
    /// Whether it may be given while nobody knows what others change: it lives no longer than the promise allows.
    pub(crate) unwatched: bool,
}

impl Terms {
    /// From when on it is of no use to anybody.
    #[inline]
    pub(crate) fn dies_at(&self) -> u64 {
        self.fresh_until.saturating_add(u64::from(self.stale_for))
    }
}
