//! What is kept in the embedded store, table by table: postcard behind a version byte, under big-endian keys.
//!
//! | table       | key                                    | value                                                |
//! |-------------|----------------------------------------|------------------------------------------------------|
//! | `streams`   | `s` name                               | [`StoredStream`], written with every change           |
//! | `streams`   | `d` stream u32                         | nothing: a deleted stream whose records are not all gone |
//! | `streams`   | `t` name                               | [`EventId`]: the last place of a deleted stream       |
//! | `streams`   | `r` from u64                           | u64: between these instants events may have been lost |
//! | `events`    | stream u32, ms u64, seq u64            | [`StoredEvent`]                                       |
//! | `published` | stream u32, ms u64, seq u64            | the idempotence id it was published under             |
//! | `groups`    | stream u32, name                       | [`StoredGroup`]                                       |
//! | `pending`   | stream u32, group u32, ms u64, seq u64 | [`StoredHeld`]: a delivery that is not acknowledged   |
//!
//! The record of a stream is written in the batch of the events it counts, so a start reads no events.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_store::Table;

use crate::{Event, EventId, NewEvent};

/// The tables of the embedded bus; a store is opened with these after those of others.
pub const TABLES: &[&str] = &["streams", "events", "published", "groups", "pending"];

/// Where the tables are in a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    pub(crate) streams: Table,
    pub(crate) events: Table,
    pub(crate) published: Table,
    pub(crate) groups: Table,
    pub(crate) pending: Table,
}

impl Tables {
    pub(crate) fn from(first: u8) -> Self {
        let table = |offset| Table(first + offset);
        Self { streams: table(0), events: table(1), published: table(2), groups: table(3), pending: table(4) }
    }

    /// Those whose keys begin with the number of a stream.
    pub(crate) fn by_stream(self) -> [Table; 4] {
        [self.events, self.published, self.groups, self.pending]
    }
}

const VERSION: u8 = 1;

pub(crate) const STREAM: u8 = b's';
pub(crate) const DOOMED: u8 = b'd';
pub(crate) const TOMB: u8 = b't';
pub(crate) const LOSS: u8 = b'r';

/// A key of the table `streams`.
pub(crate) fn key(what: u8, rest: &[u8]) -> Vec<u8> {
    [&[what], rest].concat()
}

pub(crate) fn event_key(stream: u32, id: EventId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&stream.to_be_bytes());
    key[4..].copy_from_slice(&id_bytes(id));
    key
}

pub(crate) fn group_key(stream: u32, name: &str) -> Vec<u8> {
    [&stream.to_be_bytes(), name.as_bytes()].concat()
}

pub(crate) fn held_key(stream: u32, group: u32, id: EventId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..4].copy_from_slice(&stream.to_be_bytes());
    key[4..8].copy_from_slice(&group.to_be_bytes());
    key[8..].copy_from_slice(&id_bytes(id));
    key
}

fn id_bytes(id: EventId) -> [u8; 16] {
    ((u128::from(id.ms) << 64) | u128::from(id.seq)).to_be_bytes()
}

/// The number a key begins with at a place, of a stream or a group.
pub(crate) fn number_at(key: &[u8], at: usize) -> Result<u32, String> {
    let bytes = key.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| format!("a key of {} bytes", key.len()))
}

/// The id a key ends with.
pub(crate) fn id_of(key: &[u8]) -> Result<EventId, String> {
    let bytes = key.last_chunk().copied().map(u128::from_be_bytes);
    let id = bytes.filter(|_| key.len() >= 20).ok_or_else(|| format!("a key of {} bytes", key.len()))?;
    Ok(EventId { ms: (id >> 64) as u64, seq: id as u64 })
}

/// Encodes behind the version byte.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_into(value, Vec::with_capacity(64))
}

fn encode_into<T: Serialize>(value: &T, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(VERSION);
    // Serialising plain data into a vector cannot fail; an empty record would be reported as damaged on reading.
    postcard::to_extend(value, bytes).unwrap_or_default()
}

/// Decodes what [`encode`] wrote.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => Err(format!("{} bytes too many", left.len())),
            Err(error) => Err(error.to_string()),
        },
        Some((version, _)) => Err(format!("unknown record version {version}")),
        None => Err("empty record".into()),
    }
}

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredStream {
    pub(crate) no: u32,
    pub(crate) count: u64,
    /// What its events weigh, see [`weight`].
    pub(crate) bytes: u64,
    /// The oldest event kept, or a place before it.
    pub(crate) first: EventId,
    /// The newest place given out.
    pub(crate) last: EventId,
    /// The newest event ever removed.
    pub(crate) removed_to: EventId,
}

/// A group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StoredGroup {
    pub(crate) no: u32,
    pub(crate) delivered_to: EventId,
}

/// A delivery that is not acknowledged.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredHeld<'a> {
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) consumer: &'a [u8],
    /// When it was delivered, milliseconds since 1970; 0 when it was given back.
    pub(crate) since: u64,
    pub(crate) deliveries: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEvent<'a> {
    #[serde(borrow, with = "serde_bytes")]
    data: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    kind: Option<&'a [u8]>,
    #[serde(borrow, with = "serde_bytes")]
    key: Option<&'a [u8]>,
    #[serde(borrow, with = "serde_bytes")]
    source: Option<&'a [u8]>,
    #[serde(borrow, with = "serde_bytes")]
    subject: Option<&'a [u8]>,
    #[serde(borrow, with = "serde_bytes")]
    idempotence_id: Option<&'a [u8]>,
}

pub(crate) fn encode_event(event: &NewEvent) -> Vec<u8> {
    let stored = StoredEvent {
        data: &event.data,
        kind: event.kind.as_deref(),
        key: event.key.as_deref(),
        source: event.source.as_deref(),
        subject: event.subject.as_deref(),
        idempotence_id: event.idempotence_id.as_deref(),
    };
    // A version, five marks, six lengths of at most five bytes.
    encode_into(&stored, Vec::with_capacity(event.bytes() + 36))
}

/// An event whose parts share one copy of its record.
pub(crate) fn decode_event(id: EventId, record: &[u8]) -> Result<Event, String> {
    let record = Bytes::copy_from_slice(record);
    let stored: StoredEvent<'_> = decode(&record)?;
    let part = |part: Option<&[u8]>| part.map(|part| record.slice_ref(part));
    Ok(Event {
        id,
        data: record.slice_ref(stored.data),
        kind: part(stored.kind),
        key: part(stored.key),
        source: part(stored.source),
        subject: part(stored.subject),
        idempotence_id: part(stored.idempotence_id),
    })
}

/// What an event counts for in the bytes of a stream: its record and its key.
pub(crate) fn weight(record: &[u8]) -> u64 {
    record.len() as u64 + 20
}

/// An idempotence id.
pub(crate) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    encode(&serde_bytes::Bytes::new(bytes))
}

pub(crate) fn decode_bytes(record: &[u8]) -> Result<Bytes, String> {
    decode::<&serde_bytes::Bytes>(record).map(|bytes| Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        let id = EventId { ms: 1_700_000_000_000, seq: 3 };
        let plain = NewEvent::new("{}");
        let full = NewEvent {
            source: Some("here".into()),
            subject: Some("you".into()),
            ..NewEvent::new(vec![b'x'; 300_000]).kind("a.b").key("k").idempotence_id("i")
        };
        for event in [plain, full] {
            assert_eq!(decode_event(id, &encode_event(&event)), Ok(Event::new(id, event)));
        }
    }

    #[test]
    fn keys_sort_as_their_ids_do() {
        let ids = [(0, 1), (0, u64::MAX), (1, 0), (255, 7), (256, 0), (u64::MAX, u64::MAX)];
        let ids = ids.map(|(ms, seq)| EventId { ms, seq });
        let keys: Vec<_> = ids.iter().map(|id| event_key(9, *id)).collect();
        assert!(keys.is_sorted());
        assert!(keys.iter().zip(ids).all(|(key, id)| id_of(key) == Ok(id) && number_at(key, 0) == Ok(9)));
        assert_eq!(id_of(&held_key(1, 2, ids[4])), Ok(ids[4]));
    }

    #[test]
    fn a_damaged_record_says_what_is_wrong() {
        let record = encode_event(&NewEvent::new("{}"));
        assert!(decode_event(EventId::ZERO, &record[..3]).is_err());
        assert!(decode_event(EventId::ZERO, &[]).unwrap_err().contains("empty"));
        assert!(decode_event(EventId::ZERO, &[9, 1]).unwrap_err().contains("version 9"));
        assert!(decode::<u32>(&[VERSION, 1, 1]).unwrap_err().contains("too many"));
    }
}
