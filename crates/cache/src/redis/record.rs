//! A value as it lies on Redis: what it depends on, until when it is of use, and its bytes.
//!
//! ```text
//! 1 byte    version of this layout
//! 8 bytes   a random number, another for each write: who loads anew names the one it found
//! 8 bytes   the generation it was begun under, big-endian as the next, so that a script can compare them
//! 8 bytes   the sequence it was begun under
//! postcard  Header
//! the rest  the bytes of the value, compressed where the header says so
//! ```

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::compress::Packed;

const VERSION: u8 = 1;
/// As many as any configuration allows.
const TAGS_MAX: usize = 64;
/// Where the random number is, and where what follows it.
const ID: Range<usize> = 1..9;
const BEGUN: Range<usize> = 9..HEAD;
/// Where the header begins.
const HEAD: usize = 25;

/// What a value depends on and how long it lives. Instants are milliseconds of the clock of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    #[serde(skip)]
    pub(super) generation: u64,
    #[serde(skip)]
    pub(super) sequence: u64,
    pub(super) fresh_until: u64,
    pub(super) stale_for: u64,
    /// Tags and the generation of each.
    pub(super) tags: Vec<(Box<str>, u64)>,
    pub(super) payload: Payload,
}

/// How the rest is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Payload {
    /// There is no such thing, as a loader said.
    Nothing,
    Plain,
    /// zstd; so many bytes unpacked.
    Zstd(u32),
}

/// A record that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) header: Header,
    pub(super) payload: Option<Packed>,
}

/// Generation and sequence as they lie in a record.
pub(super) fn begun(generation: u64, sequence: u64) -> [u8; 16] {
    let mut bytes = [0; BEGUN.end - BEGUN.start];
    bytes[..8].copy_from_slice(&generation.to_be_bytes());
    bytes[8..].copy_from_slice(&sequence.to_be_bytes());
    bytes
}

/// The number a record was written under; of something else that lies there, its first bytes.
pub(super) fn id(bytes: &[u8]) -> Vec<u8> {
    bytes[ID.start.min(bytes.len())..ID.end.min(bytes.len())].to_vec()
}

/// The bytes of a record.
pub(super) fn write(header: &Header, id: u64, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD + 64 + payload.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&begun(header.generation, header.sequence));
    // Writing to memory does not fail.
    let mut bytes = postcard::to_extend(header, bytes).unwrap_or_default();
    bytes.extend_from_slice(payload);
    bytes.into()
}

/// The header of a record; `None` for what is none of ours.
pub(super) fn header(bytes: &Bytes) -> Option<Header> {
    split(bytes).map(|(header, _)| header)
}

fn split(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let body = bytes.get(HEAD..)?;
    if bytes[0] != VERSION {
        return None;
    }
    let (mut header, rest): (Header, &[u8]) = postcard::take_from_bytes(body).ok()?;
    let number = |at: Range<usize>| bytes[at].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (header.generation, header.sequence) = (number(9..17), number(17..HEAD));
    // More tags than a value may have are none of ours either.
    (header.tags.len() <= TAGS_MAX).then_some((header, rest))
}

/// The record of bytes; `None` for what is none of ours.
pub(super) fn read(bytes: &Bytes) -> Option<Record> {
    let (header, rest) = split(bytes)?;
    // A copy: what is kept must not keep the buffer that a whole reply was read into.
    let rest = Bytes::copy_from_slice(rest);
    let payload = match header.payload {
        Payload::Nothing => None,
        Payload::Plain => Some(Packed { bytes: rest, unpacked: None }),
        Payload::Zstd(length) => Some(Packed { bytes: rest, unpacked: Some(length) }),
    };
    Some(Record { header, payload })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back(
            numbers in any::<(u64, u64, u64, u64, u64)>(),
            tags in prop::collection::vec(("\\PC{0,10}", any::<u64>()), 0..4),
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let (generation, sequence, fresh_until, stale_for, number) = numbers;
            let tags = tags.into_iter().map(|(tag, number)| (tag.into(), number)).collect();
            let header = Header { generation, sequence, fresh_until, stale_for, tags, payload: Payload::Plain };
            let written = write(&header, number, &bytes);
            prop_assert_eq!(id(&written), number.to_be_bytes());
            let payload = Some(Packed { bytes: bytes.into(), unpacked: None });
            prop_assert_eq!(read(&written), Some(Record { header, payload }));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (id(&bytes), read(&bytes.into()));
        }
    }
}
