//! [`EventId`]: an event's place in its stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The place of an event: milliseconds since 1970 when it was published, and a number among those of the same millisecond.
/// Written `ms-seq`, as Redis does; ids of a stream ascend.
///
/// ```
/// # use tidegate_events::EventId;
/// let id: EventId = "1700000000000-3".parse()?;
/// assert!(id < "1700000000001".parse()?);
/// assert_eq!(id.to_string(), "1700000000000-3");
/// # Ok::<_, tidegate_events::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventId {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl EventId {
    /// Before every event.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };
    /// After every event.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The place right after this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { seq, ..self },
            None => Self { ms: self.ms.saturating_add(1), seq: 0 },
        }
    }

    /// The place right before this one; [`ZERO`](Self::ZERO) has none before it.
    #[must_use]
    pub fn previous(self) -> Self {
        match self.seq.checked_sub(1) {
            Some(seq) => Self { seq, ..self },
            None if self.ms == 0 => Self::ZERO,
            None => Self { ms: self.ms - 1, seq: u64::MAX },
        }
    }

    /// Before every event published at or after `ms`.
    #[must_use]
    pub fn before_time(ms: u64) -> Self {
        Self { ms, seq: 0 }.previous()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EventId {
    type Err = Error;

    /// `ms-seq`, or `ms` alone for its first place.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadEventId { id: text.chars().take(80).collect() };
        // No sign, no spaces: `u64::from_str` takes a leading plus.
        let number = |digits: &str| match digits.as_bytes().first() {
            Some(b'0'..=b'9') => digits.parse().map_err(|_| bad()),
            _ => Err(bad()),
        };
        match text.split_once('-') {
            Some((ms, seq)) => Ok(Self { ms: number(ms)?, seq: number(seq)? }),
            None => Ok(Self { ms: number(text)?, seq: 0 }),
        }
    }
}

impl From<tidegate_redis_ops::StreamId> for EventId {
    fn from(id: tidegate_redis_ops::StreamId) -> Self {
        Self { ms: id.ms, seq: id.seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "-", "1-", "-1", "+1", "1-+2", "1-2-3", "a", "1 ", "18446744073709551616"] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn next_and_previous_are_neighbours() {
        for id in [EventId { ms: 5, seq: 0 }, EventId { ms: 5, seq: u64::MAX }, EventId { ms: 0, seq: 1 }] {
            assert_eq!(id.next().previous(), id);
        }
        assert_eq!(EventId::before_time(7).next(), EventId { ms: 7, seq: 0 });
    }
}
