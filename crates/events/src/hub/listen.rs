//! What a listener asks for and what it hears.

use crate::{Cursor, Error, Event, EventId, Pattern, StreamName};

/// What a listener follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One stream, whether it is there already or not.
    Stream(StreamName),
    /// All streams that match, now and later.
    Pattern(Pattern),
}

impl Source {
    /// Reads `orders` or `order.*`.
    ///
    /// # Errors
    /// [`Error::BadStreamName`], [`Error::BadPattern`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        match Pattern::is_pattern(text) {
            true => Pattern::new(text).map(Self::Pattern),
            false => StreamName::new(text).map(Self::Stream),
        }
    }

    pub(crate) fn stream(&self) -> Option<&StreamName> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Pattern(_) => None,
        }
    }
}

/// What becomes of a listener that stalls until what it has not heard is no longer held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// It is closed; it comes back with its cursor and reads the log.
    #[default]
    Close,
    /// It hears a gap and goes on with the oldest event held.
    Skip,
    /// It hears a gap and goes on with what comes next.
    Latest,
}

/// A wish to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// What to follow, in one listener.
    pub sources: Vec<Source>,
    /// Where to begin; without it (or for streams it does not name) with what comes next.
    pub from: Option<Cursor>,
    /// What to do when it stalls.
    pub slow: Slow,
}

impl Listen {
    /// After a place that was reached before: a [`Cursor`] of a listener of the same sources.
    #[must_use]
    pub fn after(sources: Vec<Source>, place: Cursor) -> Self {
        Self { sources, from: Some(place), slow: Slow::default() }
    }

    /// From now on.
    #[must_use]
    pub fn to(sources: Vec<Source>) -> Self {
        Self { sources, from: None, slow: Slow::default() }
    }
}

/// Why history is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Removed by retention or by hand.
    Trimmed,
    /// The stream's end is before the cursor: its newest events are gone.
    Rewound,
    /// Redis was restarted, or another took its place, and may have lost its newest events.
    Restarted,
    /// The stream was deleted.
    Deleted,
    /// The listener was too slow and asked to skip.
    Slow,
}

impl GapReason {
    pub(crate) const ALL: [Self; 5] = [Self::Trimmed, Self::Rewound, Self::Restarted, Self::Deleted, Self::Slow];

    /// As it is written in a frame.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Rewound => "rewound",
            Self::Restarted => "restarted",
            Self::Deleted => "deleted",
            Self::Slow => "slow",
        }
    }
}

/// Events after `from` may be missing; the listener goes on after `to`. Of a rewound or deleted stream `to` is before
/// `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How far the listener had come.
    pub from: EventId,
    /// Where it goes on.
    pub to: EventId,
    /// Why.
    pub reason: GapReason,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(StreamName, Event),
    /// History of a stream is missing.
    Gap(StreamName, Gap),
}
