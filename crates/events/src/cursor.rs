//! [`Cursor`]: how far a listener has come in all its streams, as it is written into the `id` of an SSE frame.
//!
//! A listener of one stream has the id of the event. One of several has `name=id;name=id;~=id`: the event's own stream
//! first, then the others; `~` is the place in all streams of its patterns that are not named.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Error, EventId, StreamName};

/// What stands for all streams that are not named.
const BASE: &str = "~";
/// The longest cursor that is read: 256 streams with names of 200 characters.
const BYTES_MAX: usize = 64 * 1024;

/// Where to resume. `Cursor::at(EventId::ZERO)` is the beginning of every stream; as text it is what the `id` of an SSE frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// For streams that are not named.
    pub base: Option<EventId>,
    /// By stream.
    pub places: BTreeMap<StreamName, EventId>,
}

impl Cursor {
    /// After this place in every stream.
    #[must_use]
    pub fn at(base: EventId) -> Self {
        Self { base: Some(base), places: BTreeMap::new() }
    }

    /// The place in a stream.
    #[must_use]
    pub fn of(&self, stream: &StreamName) -> Option<EventId> {
        self.places.get(stream).copied().or(self.base)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadCursor { cursor: text.chars().take(80).collect() };
        if text.len() > BYTES_MAX {
            return Err(bad());
        }
        if !text.contains('=') {
            return text.parse().map(Self::at).map_err(|_| bad());
        }
        let mut cursor = Self::default();
        for part in text.split(';') {
            let (name, id) = part.split_once('=').ok_or_else(bad)?;
            let id = id.parse().map_err(|_| bad())?;
            if name == BASE {
                cursor.base = Some(id);
            } else {
                cursor.places.insert(StreamName::new(name).map_err(|_| bad())?, id);
            }
        }
        Ok(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(base), true) = (self.base, self.places.is_empty()) {
            return write!(f, "{base}");
        }
        let mut separator = "";
        for (name, id) in &self.places {
            write!(f, "{separator}{name}={id}")?;
            separator = ";";
        }
        match self.base {
            Some(base) => write!(f, "{separator}{BASE}={base}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["17-3", "a=17-3", "a=17-3;b.c=4-0;~=2-9"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a", "a=", "=1-1", "a=1-1;", "a b=1-1", "1-1;a=2-2", &"a=1-1;".repeat(20_000)] {
            assert!(text.parse::<Cursor>().is_err(), "{text:.40}");
        }
    }
}
