//! Reading a stream: ranges, its ends, trimming.

use bytes::Bytes;
use futures_util::future::try_join;
use tidegate_redis_ops::{Error as RedisError, StreamEntry, StreamId, StreamInfo as Info};

use super::call::{self, Again, not_found, of_stream};
use super::scripts::SCRIPTS;
use super::{RedisBus, Shared, entry};
use crate::backend::Bounds;
use crate::{Error, EventId, Order, Page, Read, StreamInfo, StreamName, Trim};

/// A page ends early beyond so many bytes. 16 MiB: a thousand events of a mebibyte each would take all memory.
const PAGE_BYTES: usize = 16 << 20;
/// Entries removed per call. 10 000 take Redis less than a millisecond.
const TRIM_AT_ONCE: &str = "10000";

pub(super) fn bytes(id: EventId) -> Bytes {
    StreamId::new(id.ms, id.seq).to_bytes()
}

impl RedisBus {
    pub(crate) async fn read(&self, stream: &StreamName, read: Read) -> Result<Page, Error> {
        let shared = self.shared();
        // Exclusive ends, made inclusive; where nothing lies between them only the stream's being there is asked for.
        let is_empty = read.after == EventId::MAX || read.before == EventId::ZERO;
        let (from, to) = (read.after.next(), read.before.previous());
        let limit = if is_empty || from > to { 0 } else { read.limit + 1 };
        let (verb, first, second) = match read.order {
            Order::Ascending => ("XRANGE", from, to),
            Order::Descending => ("XREVRANGE", to, from),
        };
        let args = [
            Bytes::from_static(verb.as_bytes()),
            bytes(first),
            bytes(second),
            limit.to_string().into(),
            PAGE_BYTES.to_string().into(),
        ];
        let key = [shared.keys.stream(stream)];
        let reply = call::run(&shared.redis, &SCRIPTS.read, &key, &args, Again::Harmless).await?;
        // Whoever goes on from what is read here must know of a restart in between.
        shared.settled().await?;
        if reply.is_nil() {
            return Err(not_found(stream));
        }
        let mut parts = reply.into_array()?.into_iter();
        let mut part = || parts.next().ok_or_else(|| call::unexpected("entries and a number"));
        let (entries, is_cut) = (StreamEntry::list(part()?)?, part()?.as_int()? == 1);
        let more = entries.len() > read.limit || is_cut;
        let events = entries.into_iter().take(read.limit).map(|found| entry::read(&found).0).collect();
        Ok(Page { events, more })
    }

    pub(crate) async fn info(&self, stream: &StreamName) -> Result<StreamInfo, Error> {
        let shared = self.shared();
        let key = shared.keys.stream(stream);
        let info = call::retried(Again::Harmless, || shared.redis.stream_info(&key)).await?;
        info.map(|info| describe(stream.clone(), &info)).ok_or_else(|| not_found(stream))
    }

    pub(crate) async fn bounds(&self, stream: &StreamName) -> Result<Bounds, Error> {
        let shared = self.shared();
        let key = shared.keys.stream(stream);
        let (info, ended) = try_join(
            call::retried(Again::Harmless, || shared.redis.stream_info(&key)),
            call::retried(Again::Harmless, || shared.ended(stream)),
        )
        .await?;
        shared.settled().await?;
        let bounds = info.map(|info| bounds(&info)).unwrap_or_default();
        Ok(Bounds { removed_to: bounds.removed_to.max(ended), ..bounds })
    }

    pub(crate) async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<u64, Error> {
        let shared = self.shared();
        let key = shared.keys.stream(stream);
        let (what, bound): (&'static [u8], Bytes) = match trim {
            Trim::MaxLength(length) => (b"MAXLEN", length.min(i64::MAX as u64).to_string().into()),
            Trim::Before(id) => (b"MINID", bytes(id)),
        };
        let mut some: Vec<Bytes> = vec![key.clone(), Bytes::from_static(what), "~".into(), bound.clone()];
        some.extend([Bytes::from_static(b"LIMIT"), TRIM_AT_ONCE.into()]);
        let rest = vec![key.clone(), Bytes::from_static(what), "=".into(), bound];
        if shared.redis.stream_info(&key).await?.is_none() {
            return Err(not_found(stream));
        }
        // Whole nodes first, some at a time, so that nobody waits; then the few that are left.
        let mut removed = 0;
        loop {
            match shared.cut(stream, &key, some.clone()).await? {
                0 => return Ok(removed + shared.cut(stream, &key, rest).await?),
                many => removed += many,
            }
        }
    }
}

impl Shared {
    /// Where the last stream of this name ended that was deleted through Tidegate.
    async fn ended(&self, stream: &StreamName) -> Result<EventId, RedisError> {
        let key = self.keys.ended(stream);
        let ended = self.redis.command("GET", Some(key.clone()), vec![key]).await?.into_bytes_or_nil()?;
        Ok(ended.and_then(|ended| StreamId::from_bytes(&ended)).map(EventId::from).unwrap_or_default())
    }

    async fn cut(&self, stream: &StreamName, key: &Bytes, args: Vec<Bytes>) -> Result<u64, Error> {
        let removed = self.redis.command("XTRIM", Some(key.clone()), args).await;
        Ok(u64::try_from(removed.map_err(|error| of_stream(error, stream))?.as_int()?).unwrap_or(0))
    }
}

pub(super) fn describe(name: StreamName, info: &Info) -> StreamInfo {
    StreamInfo { name, length: info.length, first: info.first.map(EventId::from), last: info.last.map(EventId::from) }
}

/// Redis does not say which entries were removed, only whether some were (6.2 not even that): everything before the first
/// may have been.
fn bounds(info: &Info) -> Bounds {
    let last = EventId::from(info.last_generated);
    let is_whole = info.entries_added == Some(info.length) && info.max_deleted.is_none();
    let removed_to = match info.first {
        _ if is_whole => EventId::ZERO,
        Some(first) => EventId::from(first).previous(),
        None => last,
    };
    Bounds { last, removed_to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_removed_is_all_before_the_first() {
        let id = |ms| StreamId::new(ms, 0);
        let whole = Info {
            length: 2,
            first: Some(id(5)),
            last: Some(id(6)),
            last_generated: id(6),
            max_deleted: None,
            entries_added: Some(2),
        };
        let last = EventId { ms: 6, seq: 0 };
        assert_eq!(bounds(&whole), Bounds { last, removed_to: EventId::ZERO });
        let before = EventId { ms: 5, seq: 0 }.previous();
        for trimmed in [
            Info { entries_added: Some(3), ..whole },
            Info { entries_added: None, ..whole },
            Info { max_deleted: Some(id(1)), ..whole },
        ] {
            assert_eq!(bounds(&trimmed), Bounds { last, removed_to: before });
        }
        let empty = Info { length: 0, first: None, last: None, ..whole };
        assert_eq!(bounds(&empty), Bounds { last, removed_to: last });
    }
}
