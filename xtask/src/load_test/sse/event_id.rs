//! `ms-seq`: the place of an event in its stream, as the `id` of its frame and as a publish is answered.

use std::fmt;

/// Ids of a stream ascend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventId {
    pub(super) ms: u64,
    pub(super) seq: u64,
}

impl EventId {
    /// `None` where the text is no such id.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (ms, rest) = number(text)?;
        let (seq, rest) = number(rest.strip_prefix(b"-")?)?;
        rest.is_empty().then_some(Self { ms, seq })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Leading decimal digits and what follows them; `None` without a digit or beyond 64 bits.
pub(super) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    (digits > 0).then(|| number.iter().try_fold(0, add)).flatten().map(|sum| (sum, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_anything_else_is_none() {
        let id = EventId { ms: 1_700_000_000_000, seq: 3 };
        assert_eq!(EventId::parse(id.to_string().as_bytes()), Some(id));
        for text in ["", "-", "1", "1-", "-1", "1-2-3", "1-2 ", "a-b", "99999999999999999999-0"] {
            assert_eq!(EventId::parse(text.as_bytes()), None, "{text}");
        }
    }
}
