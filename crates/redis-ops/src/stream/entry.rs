//! Entries, as `XRANGE`, `XREAD`, `XREADGROUP`, `XCLAIM` and `XAUTOCLAIM` answer them.

use bytes::Bytes;

use super::id::StreamId;
use crate::error::Error;
use crate::value::Value;

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Where it stands.
    pub id: StreamId,
    /// Names and values, in the order of their writing; a name may come twice. Empty: the entry was deleted, and only a
    /// group remembers it.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// What `XAUTOCLAIM` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoClaimed {
    /// Where to go on; [`StreamId::MIN`] when everything was looked at.
    pub next: StreamId,
    /// What was claimed.
    pub entries: Vec<StreamEntry>,
    /// Pending entries that had been deleted from the stream and are pending no more. Redis 6.2 does not say them.
    pub deleted: Vec<StreamId>,
}

impl StreamEntry {
    /// Whether the entry is gone from the stream and only a group remembered it.
    pub fn is_deleted(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of the first field of that name.
    pub fn field(&self, name: &[u8]) -> Option<&Bytes> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Reads the reply of `XRANGE`, `XREVRANGE` or `XCLAIM`. Nil is no entry; so is a nil among entries, which Redis 6.2
    /// puts where a claimed one was deleted.
    ///
    /// Errors: [`Error::Reply`] for any other shape.
    pub fn list(reply: Value) -> Result<Vec<Self>, Error> {
        if reply.is_nil() {
            return Ok(Vec::new());
        }
        reply.into_array()?.into_iter().filter(|entry| !entry.is_nil()).map(Self::read).collect()
    }

    /// Reads the reply of `XREAD` or `XREADGROUP`: streams that have something, and what. Nil (nothing came in time) is
    /// no stream.
    ///
    /// Errors: [`Error::Reply`] for any other shape.
    pub fn by_stream(reply: Value) -> Result<Vec<(Bytes, Vec<Self>)>, Error> {
        if reply.is_nil() {
            return Ok(Vec::new());
        }
        let stream = |value: Value| {
            let [name, entries] = pair(value, "a stream and its entries")?;
            Ok((name.into_bytes()?, Self::list(entries)?))
        };
        reply.into_array()?.into_iter().map(stream).collect()
    }

    fn read(value: Value) -> Result<Self, Error> {
        let [id, fields] = pair(value, "an id and its fields")?;
        let fields = if fields.is_nil() { Vec::new() } else { fields.into_array()? };
        let mut values = fields.into_iter();
        let mut fields = Vec::with_capacity(values.len() / 2);
        while let Some(name) = values.next() {
            let value = values.next().ok_or(Error::Reply { expected: "a value to each name", got: "a name" })?;
            fields.push((name.into_bytes()?, value.into_bytes()?));
        }
        Ok(Self { id: StreamId::read(&id)?, fields })
    }
}

impl AutoClaimed {
    /// Reads the reply of `XAUTOCLAIM` without `JUSTID`.
    ///
    /// Errors: [`Error::Reply`] for any other shape.
    pub fn read(reply: Value) -> Result<Self, Error> {
        let mut parts = reply.into_array()?.into_iter();
        let mut part = || parts.next().unwrap_or(Value::Nil);
        let (next, entries, deleted) = (StreamId::read(&part())?, StreamEntry::list(part())?, part());
        let deleted = if deleted.is_nil() { Vec::new() } else { deleted.into_array()? };
        Ok(Self { next, entries, deleted: deleted.iter().map(StreamId::read).collect::<Result<_, _>>()? })
    }
}

fn pair(value: Value, expected: &'static str) -> Result<[Value; 2], Error> {
    value.into_array()?.try_into().map_err(|_| Error::Reply { expected, got: "an array of another length" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Value {
        Value::Bytes(Bytes::from_static(text.as_bytes()))
    }

    fn entry(id: &'static str) -> Value {
        Value::Array(vec![text(id), Value::Array(vec![text("a"), text("1"), text("a"), text("2")])])
    }

    #[test]
    fn fields_keep_their_order_and_their_doubles() {
        let read = StreamEntry::list(Value::Array(vec![entry("1-0"), entry("2-0")])).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].id, StreamId::new(2, 0));
        let fields = [("a", "1"), ("a", "2")].map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
        assert_eq!(read[0].fields, fields);
        assert_eq!(read[0].field(b"a").unwrap(), "1");
    }

    #[test]
    fn deleted_entries_are_left_out_or_empty_and_never_shift_others() {
        let gone = Value::Array(vec![text("3-0"), Value::Nil]);
        let read = StreamEntry::list(Value::Array(vec![entry("1-0"), Value::Nil, gone, entry("4-0")])).unwrap();
        let ids: Vec<u64> = read.iter().map(|entry| entry.id.ms).collect();
        assert_eq!(ids, [1, 3, 4]);
        assert!(read[1].is_deleted() && !read[2].is_deleted());
    }

    #[test]
    fn nothing_in_time_is_no_stream() {
        assert_eq!(StreamEntry::by_stream(Value::Nil).unwrap(), []);
        let reply = Value::Array(vec![Value::Array(vec![text("s"), Value::Array(vec![entry("1-0")])])]);
        let read = StreamEntry::by_stream(reply).unwrap();
        assert_eq!((&read[0].0[..], read[0].1.len()), (&b"s"[..], 1));
    }

    #[test]
    fn both_forms_of_autoclaim_are_read() {
        let old = Value::Array(vec![text("0-0"), Value::Array(vec![entry("1-0"), Value::Nil])]);
        let claimed = AutoClaimed::read(old).unwrap();
        assert_eq!((claimed.next, claimed.entries.len(), claimed.deleted.len()), (StreamId::MIN, 1, 0));
        let new = Value::Array(vec![text("5-0"), Value::Array(Vec::new()), Value::Array(vec![text("3-0")])]);
        let claimed = AutoClaimed::read(new).unwrap();
        assert_eq!((claimed.next.ms, claimed.deleted), (5, vec![StreamId::new(3, 0)]));
    }

    #[test]
    fn other_shapes_are_errors_not_panics() {
        for reply in [Value::Int(1), Value::Array(vec![Value::Int(1)]), Value::Array(vec![Value::Array(Vec::new())])] {
            assert!(StreamEntry::list(reply.clone()).is_err());
            assert!(StreamEntry::by_stream(reply.clone()).is_err());
            assert!(AutoClaimed::read(reply).is_err());
        }
        let odd = Value::Array(vec![text("1-0"), Value::Array(vec![text("a")])]);
        assert!(StreamEntry::list(Value::Array(vec![odd])).is_err());
    }
}
