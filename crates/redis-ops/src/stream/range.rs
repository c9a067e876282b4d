//! One stream, in one step: is it there, and what is in it.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use super::entry::StreamEntry;
use super::id::StreamId;
use super::info::StreamInfo;
use super::scripts;
use crate::error::Error;
use crate::redis::Redis;
use crate::value::Value;

/// Which entries come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they were written.
    OldestFirst,
    /// The newest first.
    NewestFirst,
}

impl Redis {
    /// What Redis knows of a stream, without moving an entry; `None` where there is no stream of that name. One step:
    /// all figures are of the same moment. A read: asking again is safe.
    pub async fn stream_info(&self, key: &Bytes) -> Result<Option<StreamInfo>, Error> {
        let reply = self.run(&scripts::INFO, std::slice::from_ref(key), []).await?;
        if reply.is_nil() { Ok(None) } else { StreamInfo::read_script(reply).map(Some) }
    }

    /// At most `count` entries of a stream with ids in `ids`; `None` where there is no stream of that name, which is told
    /// in the same step, so an empty list means an empty range. A read: asking again is safe.
    ///
    /// ```no_run
    /// # async fn example(redis: tidegate_redis_ops::Redis, key: bytes::Bytes) -> Result<(), tidegate_redis_ops::Error> {
    /// use tidegate_redis_ops::{Order, StreamId};
    /// let newest = redis.stream_range(&key, .., 1, Order::NewestFirst).await?;
    /// let since = redis.stream_range(&key, StreamId::new(1_700_000_000_000, 0).., 100, Order::OldestFirst).await?;
    /// # let _ = (newest, since); Ok(()) }
    /// ```
    pub async fn stream_range(
        &self,
        key: &Bytes,
        ids: impl RangeBounds<StreamId>,
        count: usize,
        order: Order,
    ) -> Result<Option<Vec<StreamEntry>>, Error> {
        let (from, to) = (end(ids.start_bound(), b"-"), end(ids.end_bound(), b"+"));
        let (verb, first, second) = match order {
            Order::OldestFirst => ("XRANGE", from, to),
            Order::NewestFirst => ("XREVRANGE", to, from),
        };
        let count = count.min(i64::MAX as usize).to_string();
        let args = [Bytes::from_static(verb.as_bytes()), first, second, count.into()];
        let reply = self.run(&scripts::RANGE, std::slice::from_ref(key), args).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let entries = reply.into_array()?.into_iter().next().unwrap_or(Value::Nil);
        StreamEntry::list(entries).map(Some)
    }
}

/// One end of a range, as Redis writes it.
fn end(bound: Bound<&StreamId>, open: &'static [u8]) -> Bytes {
    match bound {
        Bound::Included(id) => id.to_bytes(),
        Bound::Excluded(id) => {
            let mut text = vec![b'('];
            id.write(&mut text);
            text.into()
        }
        Bound::Unbounded => Bytes::from_static(open),
    }
}
