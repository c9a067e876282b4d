//! What Redis knows of a stream.

use crate::error::Error;
use crate::stream::StreamId;
use crate::value::Value;

/// One stream at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// How many entries it holds.
    pub length: u64,
    /// The oldest entry; none in an empty stream.
    pub first: Option<StreamId>,
    /// The newest entry; none in an empty stream.
    pub last: Option<StreamId>,
    /// The newest id ever given; [`StreamId::MIN`] where none was.
    pub last_generated: StreamId,
    /// The newest id ever deleted; none where none was, and on Redis 6.2, which does not say.
    pub max_deleted: Option<StreamId>,
    /// How many entries were ever added; none on Redis 6.2, which does not say.
    pub entries_added: Option<u64>,
}

impl StreamInfo {
    /// Reads the reply of `XINFO STREAM`: names and values in turn.
    pub(crate) fn read(reply: Value) -> Result<Self, Error> {
        let mut info = Self {
            length: 0,
            first: None,
            last: None,
            last_generated: StreamId::MIN,
            max_deleted: None,
            entries_added: None,
        };
        let mut values = reply.into_array()?.into_iter();
        while let (Some(name), Some(value)) = (values.next(), values.next()) {
            match &name.into_bytes()?[..] {
                b"length" => info.length = count(&value)?,
                b"last-generated-id" => info.last_generated = StreamId::read(&value)?,
                b"max-deleted-entry-id" => info.max_deleted = some_id(&value)?,
                b"entries-added" => info.entries_added = Some(count(&value)?),
                b"first-entry" => info.first = entry_id(value)?,
                b"last-entry" => info.last = entry_id(value)?,
                _ => {}
            }
        }
        Ok(info)
    }

    /// Reads the reply of `info.lua`: the fields of the struct in their order.
    pub(crate) fn read_script(reply: Value) -> Result<Self, Error> {
        let fields: [Value; 6] = reply
            .into_array()?
            .try_into()
            .map_err(|_| Error::Reply { expected: "six fields", got: "an array of another length" })?;
        let [length, first, last, last_generated, max_deleted, entries_added] = fields;
        Ok(Self {
            length: count(&length)?,
            first: StreamId::read_or_nil(&first)?,
            last: StreamId::read_or_nil(&last)?,
            last_generated: StreamId::read(&last_generated)?,
            max_deleted: some_id(&max_deleted)?,
            entries_added: if entries_added.is_nil() { None } else { Some(count(&entries_added)?) },
        })
    }
}

fn count(value: &Value) -> Result<u64, Error> {
    Ok(u64::try_from(value.as_int()?).unwrap_or(0))
}

/// `0-0` says that there is none.
fn some_id(value: &Value) -> Result<Option<StreamId>, Error> {
    Ok(StreamId::read_or_nil(value)?.filter(|id| *id != StreamId::MIN))
}

/// The id of `[id, fields]`; nil is none.
fn entry_id(value: Value) -> Result<Option<StreamId>, Error> {
    if value.is_nil() {
        return Ok(None);
    }
    StreamId::read_or_nil(value.into_array()?.first().unwrap_or(&Value::Nil))
}
