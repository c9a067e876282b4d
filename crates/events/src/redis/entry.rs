//! An event as an entry of a Redis stream, both ways.
//!
//! Ours begin with the field `tg`; the others follow in a fixed order, absent ones left out, so that entries of one kind share
//! their field names in Redis's memory: `type`, `data`, `key`, `source`, `subject`, `id`. Entries others wrote by `XADD` have
//! no such mark: all their fields become one JSON object of strings; a field that comes twice becomes an array of its values;
//! bytes that are no UTF-8 become U+FFFD.

use bytes::Bytes;
use serde_json::{Map, Value};
use tidegate_redis_ops::StreamEntry;

use crate::{Event, EventId, NewEvent};

/// The field that marks an entry as ours; its value is the version of this layout.
const MARK: (&[u8], &[u8]) = (b"tg", b"1");
/// The longest `type` of a foreign entry that counts as the type of the event.
const KIND_BYTES_MAX: usize = 256;

/// Which values an event has, a bit each, as `publish.lua` reads them; the values in its order.
pub(super) fn values(event: NewEvent) -> (u8, impl Iterator<Item = Bytes>) {
    let NewEvent { data, kind, key, source, subject, idempotence_id } = event;
    let values = [kind, Some(data), key, source, subject, idempotence_id];
    let has = values.iter().enumerate().fold(0, |has, (bit, value)| has | u8::from(value.is_some()) << bit);
    (has, values.into_iter().flatten())
}

/// Reads an entry, and whether somebody else wrote it.
///
/// All bytes are copied: those of the entry are slices of a read buffer, which a single event would keep alive.
pub(super) fn read(entry: &StreamEntry) -> (Event, bool) {
    let id = EventId::from(entry.id);
    match entry.fields.first() {
        Some((name, value)) if (&name[..], &value[..]) == MARK => (ours(id, &entry.fields[1..]), false),
        _ => (foreign(id, &entry.fields), true),
    }
}

fn ours(id: EventId, fields: &[(Bytes, Bytes)]) -> Event {
    let mut all = Vec::with_capacity(fields.iter().map(|(_, value)| value.len()).sum());
    fields.iter().for_each(|(_, value)| all.extend_from_slice(value));
    let all = Bytes::from(all);
    let (mut event, mut at) = (Event::new(id, NewEvent::new(Bytes::new())), 0);
    for (name, value) in fields {
        let copy = all.slice(at..at + value.len());
        at += value.len();
        match &name[..] {
            b"data" => event.data = copy,
            b"type" => event.kind = Some(copy),
            b"key" => event.key = Some(copy),
            b"source" => event.source = Some(copy),
            b"subject" => event.subject = Some(copy),
            b"id" => event.idempotence_id = Some(copy),
            // Of a later version.
            _ => {}
        }
    }
    event
}

fn foreign(id: EventId, fields: &[(Bytes, Bytes)]) -> Event {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut object = Map::new();
    for (name, value) in fields {
        let value = Value::String(text(value));
        match object.get_mut(&text(name)) {
            None => _ = object.insert(text(name), value),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    let is_kind = |value: &str| (1..=KIND_BYTES_MAX).contains(&value.len()) && !value.chars().any(char::is_control);
    let kind = object.get("type").and_then(Value::as_str).filter(|value| is_kind(value));
    let kind = kind.map(|kind| Bytes::copy_from_slice(kind.as_bytes()));
    Event { kind, ..Event::new(id, NewEvent::new(Value::Object(object).to_string())) }
}

#[cfg(test)]
mod tests {
    use tidegate_redis_ops::StreamId;

    use super::*;

    fn entry(fields: &[(&'static [u8], &'static [u8])]) -> StreamEntry {
        let bytes = Bytes::from_static;
        StreamEntry {
            id: StreamId::new(7, 1),
            fields: fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = NewEvent { subject: Some("s".into()), ..NewEvent::new("{}").kind("k").idempotence_id("i") };
        let (has, values) = values(event.clone());
        assert_eq!((has, values.count()), (0b11_0011, 4));
        let fields: [(&[u8], &[u8]); 6] =
            [(b"tg", b"1"), (b"type", b"k"), (b"data", b"{}"), (b"subject", b"s"), (b"id", b"i"), (b"later", b"?")];
        assert_eq!(read(&entry(&fields)), (Event::new(EventId { ms: 7, seq: 1 }, event), false));
    }

    #[test]
    fn what_others_wrote_becomes_an_object() {
        let (event, is_foreign) = read(&entry(&[(b"type", b"made"), (b"a", b"1"), (b"a", b"\"2\""), (b"a", b"\xff")]));
        assert!(is_foreign);
        assert_eq!(event.kind.as_deref(), Some(&b"made"[..]));
        assert_eq!(event.data, r#"{"a":["1","\"2\"","�"],"type":"made"}"#);
        for kind in [&b""[..], b"a\nb", &[b'x'; 257]] {
            let entry = StreamEntry {
                id: StreamId::MIN,
                fields: vec![(Bytes::from_static(b"type"), Bytes::copy_from_slice(kind))],
            };
            assert_eq!(read(&entry).0.kind, None);
        }
    }

    #[test]
    fn a_foreign_entry_cannot_pass_for_ours_by_a_later_field() {
        let (event, is_foreign) = read(&entry(&[(b"data", b"{}"), (b"tg", b"1")]));
        assert!(is_foreign);
        assert_eq!(event.data, r#"{"data":"{}","tg":"1"}"#);
    }
}
