//! What can be asked of a stream.

use crate::{Event, EventId, StreamName};

/// A stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// Events kept.
    pub length: u64,
    /// The oldest event kept.
    pub first: Option<EventId>,
    /// The newest event kept.
    pub last: Option<EventId>,
}

/// A page of streams, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPage {
    /// In order.
    pub streams: Vec<StreamInfo>,
    /// The last name when there are more: ask again after it.
    pub next: Option<StreamName>,
    /// When the list of names was read, in milliseconds since 1970; streams made or deleted through Tidegate since then
    /// are in it all the same.
    pub cached_at_ms: u64,
}

/// Which end a range is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Which events to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Only those after this place.
    pub after: EventId,
    /// Only those before this place.
    pub before: EventId,
    /// At most so many (1 to 1000).
    pub limit: usize,
    /// From which end.
    pub order: Order,
}

impl Default for Read {
    /// The first hundred.
    fn default() -> Self {
        Self { after: EventId::ZERO, before: EventId::MAX, limit: 100, order: Order::Ascending }
    }
}

impl Read {
    /// The next `limit` after a place.
    #[must_use]
    pub fn after(after: EventId, limit: usize) -> Self {
        Self { after, limit, ..Self::default() }
    }
}

/// Events that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub events: Vec<Event>,
    /// Whether there are more in the range.
    pub more: bool,
}

/// What to remove from the old end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// All but the newest so many.
    MaxLength(u64),
    /// All before this place.
    Before(EventId),
}
