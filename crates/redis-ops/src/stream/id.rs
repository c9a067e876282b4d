//! A place in a stream.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::error::Error;
use crate::value::Value;

/// The id of an entry: milliseconds and a number within them. Ordered as the stream is.
///
/// ```
/// use tidegate_redis_ops::StreamId;
/// let id: StreamId = "1700000000000-7".parse()?;
/// assert_eq!((id.ms, id.seq, id.to_string().as_str()), (1_700_000_000_000, 7, "1700000000000-7"));
/// assert!(id < id.next().expect("there are more"));
/// # Ok::<(), tidegate_redis_ops::ParseStreamIdError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since 1970, as far as the clock of Redis was right.
    pub ms: u64,
    /// Which of the entries of that millisecond.
    pub seq: u64,
}

/// The text is no id of a stream entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read a stream id: expected two numbers as in 1700000000000-0")]
pub struct ParseStreamIdError;

impl StreamId {
    /// Before every entry; no entry has it.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// After every entry.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// From its parts.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The smallest id after this one; none after [`MAX`](Self::MAX).
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => self.ms.checked_add(1).map(|ms| Self { ms, seq: 0 }),
        }
    }

    /// The largest id before this one; none before [`MIN`](Self::MIN).
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => self.ms.checked_sub(1).map(|ms| Self { ms, seq: u64::MAX }),
        }
    }

    /// Reads `ms-seq`, digits only. `None` for anything else.
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        Some(Self { ms: number(&text[..dash])?, seq: number(&text[dash + 1..])? })
    }

    /// As Redis wants it in a command.
    pub fn to_bytes(self) -> Bytes {
        let mut text = Vec::with_capacity(24);
        self.write(&mut text);
        text.into()
    }

    /// Appends its text.
    pub fn write(self, text: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        text.extend_from_slice(digits.format(self.ms).as_bytes());
        text.push(b'-');
        text.extend_from_slice(digits.format(self.seq).as_bytes());
    }

    /// Reads it from a reply.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        let unexpected = || Error::Reply { expected: "a stream id", got: value.kind() };
        match value {
            Value::Bytes(text) => Self::from_bytes(text).ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    /// As [`read`](Self::read); nil is none.
    pub(crate) fn read_or_nil(value: &Value) -> Result<Option<Self>, Error> {
        if value.is_nil() { Ok(None) } else { Self::read(value).map(Some) }
    }
}

/// Digits only, at least one, within 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

impl FromStr for StreamId {
    type Err = ParseStreamIdError;

    fn from_str(text: &str) -> Result<Self, ParseStreamIdError> {
        Self::from_bytes(text.as_bytes()).ok_or(ParseStreamIdError)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_two_numbers_are_an_id() {
        for text in ["", "-", "1", "1-", "-1", "+1-1", "1-+1", "1-1-1", "1 -1", "a-1", "$", "18446744073709551616-0"] {
            assert_eq!(text.parse::<StreamId>(), Err(ParseStreamIdError), "{text}");
        }
        assert_eq!("18446744073709551615-18446744073709551615".parse(), Ok(StreamId::MAX));
        assert_eq!("0-0".parse(), Ok(StreamId::MIN));
    }

    #[test]
    fn neighbours_cross_the_millisecond() {
        let last = StreamId::new(5, u64::MAX);
        assert_eq!(last.next(), Some(StreamId::new(6, 0)));
        assert_eq!(StreamId::new(6, 0).previous(), Some(last));
        assert_eq!((StreamId::MAX.next(), StreamId::MIN.previous()), (None, None));
    }

    proptest! {
        #[test]
        fn text_and_back(ms: u64, seq: u64) {
            let id = StreamId::new(ms, seq);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_bytes(), id.to_string());
        }
    }
}
