//! What a lease says of its holder: who, and under what it began.

use bytes::Bytes;

use super::{Opening, random};

/// `random:generation:sequence:tags`, in hexadecimal.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: Bytes,
    generation: u64,
    tags: u64,
}

impl Token {
    pub(super) fn new(opening: &Opening) -> Self {
        let (generation, tags) = (opening.generation, fold(&opening.tags));
        let text = format!("{:x}:{generation:x}:{:x}:{tags:x}", random(), opening.sequence).into();
        Self { text, generation, tags }
    }

    /// Whether the holder began before something was changed that `covers` the key, as far as we know, who begin now.
    pub(super) fn outdates(&self, holder: &[u8], covers: impl FnOnce(u64) -> bool) -> bool {
        let text = std::str::from_utf8(holder).unwrap_or_default();
        let mut numbers = text.split(':').skip(1).map(|number| u64::from_str_radix(number, 16).ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next()) {
            (Some(generation), Some(sequence), Some(tags)) => {
                generation != self.generation || tags != self.tags || covers(sequence)
            }
            _ => false,
        }
    }
}

/// Tags and their generations as one number, the same in all processes (FNV-1a).
fn fold(tags: &[(Box<str>, u64)]) -> u64 {
    let mut tags: Vec<_> = tags.iter().collect();
    tags.sort_unstable();
    tags.iter()
        .flat_map(|(tag, generation)| tag.bytes().chain(generation.to_be_bytes()))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(generation: u64, sequence: u64, tags: &[(&str, u64)]) -> Opening {
        let tags = tags.iter().map(|(tag, number)| ((*tag).into(), *number)).collect();
        Opening { generation, sequence, tags }
    }

    #[test]
    fn a_holder_is_outdated_by_what_changed_since_and_by_nothing_else() {
        let ours = Token::new(&opening(7, 3, &[("a", 1), ("b", 2)]));
        let holder = |opening: &Opening| Token::new(opening).text;
        assert!(!ours.outdates(&holder(&opening(7, 3, &[("b", 2), ("a", 1)])), |_| false));
        assert!(!ours.outdates(&holder(&opening(7, 2, &[("a", 1), ("b", 2)])), |sequence| sequence < 2));
        assert!(ours.outdates(&holder(&opening(7, 1, &[("a", 1), ("b", 2)])), |sequence| sequence < 2));
        assert!(ours.outdates(&holder(&opening(6, 3, &[("a", 1), ("b", 2)])), |_| false));
        assert!(ours.outdates(&holder(&opening(7, 3, &[("a", 1), ("b", 3)])), |_| false));
        for garbage in [&b""[..], b"x", b"1:2", b"\xff:::"] {
            assert!(!ours.outdates(garbage, |_| true));
        }
    }
}
