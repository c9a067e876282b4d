//! Reading what is new in live streams and handing it on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tidegate_redis_ops::{Error as RedisError, StreamEntry, Value};

use super::Reader;
use crate::EventId;
use crate::hub::Live;
use crate::redis::entry;
use crate::redis::read::bytes;

/// Streams read by one command. 100 take Redis some 30 µs where nothing is new.
pub(super) const CHUNK: usize = 100;
/// Commands under way at the same time.
const AT_ONCE: usize = 4;
/// In a cluster, where each stream takes a command of its own.
const AT_ONCE_CLUSTER: usize = 32;
/// What a reply should hold at most. 4 MiB.
const REPLY_BYTES: usize = 4 << 20;
/// Of so many streams with much that is new the reply is bounded; more come rarely.
const BUSY_STREAMS: usize = 8;
/// Entries of one stream in a reply.
const COUNT_MIN: usize = 4;
const COUNT_MAX: usize = 1000;

/// How large events have been lately: a reply should stay bounded whatever they are.
pub(super) struct Sizes(AtomicUsize);

impl Default for Sizes {
    /// Small ones.
    fn default() -> Self {
        Self(AtomicUsize::new(1024))
    }
}

impl Sizes {
    /// Follows the largest, and forgets it slowly.
    fn note(&self, events: usize, bytes: usize) {
        let Some(mean) = bytes.checked_div(events) else { return };
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(mean.max(before - before / 16), Ordering::Relaxed);
    }

    /// Entries of each stream to ask for.
    pub(super) fn count(&self, streams: usize) -> usize {
        let event = self.0.load(Ordering::Relaxed).max(64);
        (REPLY_BYTES / event / streams.clamp(1, BUSY_STREAMS)).clamp(COUNT_MIN, COUNT_MAX)
    }
}

/// What reading found.
#[derive(Default)]
pub(super) struct Taken {
    /// There is more.
    pub(super) again: Vec<Arc<Live>>,
    pub(super) is_foreign: bool,
}

/// Streams that are read together.
pub(super) struct Plan {
    pub(super) streams: Arc<[Arc<Live>]>,
    keys: Vec<Bytes>,
    places: HashMap<Bytes, usize>,
}

impl Plan {
    pub(super) fn new(reader: &Reader, streams: Arc<[Arc<Live>]>) -> Self {
        let keys: Vec<Bytes> = streams.iter().map(|live| reader.shared.keys.stream(live.name())).collect();
        let places = keys.iter().cloned().enumerate().map(|(place, key)| (key, place)).collect();
        Self { streams, keys, places }
    }

    /// The words of `XREAD` after each stream's tail.
    pub(super) fn words(&self, count: usize, block: Option<&'static str>) -> Vec<Bytes> {
        let mut words: Vec<Bytes> = Vec::with_capacity(5 + 2 * self.keys.len());
        words.extend(["COUNT".into(), count.to_string().into()]);
        words.extend(block.into_iter().flat_map(|millis| [Bytes::from_static(b"BLOCK"), millis.into()]));
        words.push("STREAMS".into());
        words.extend(self.keys.iter().cloned());
        words.extend(self.streams.iter().map(|live| bytes(live.tail().unwrap_or(EventId::MAX))));
        words
    }
}

impl Reader {
    /// A reply has come: Redis is there, and where bells are wanted they are heard.
    pub(super) fn proven(&self) {
        self.shared.restarts.heard();
        if self.hears.load(Ordering::Relaxed) {
            self.shared.hub.is_proven();
        }
    }

    /// Hands on what `XREAD` answered. Everything before it must be settled.
    pub(super) fn hand_on(&self, plan: &Plan, count: usize, reply: Value) -> Result<Taken, RedisError> {
        let (mut taken, mut events_read, mut bytes_read) = (Taken::default(), 0, 0);
        for (key, entries) in StreamEntry::by_stream(reply)? {
            let Some(live) = plan.places.get(&key).and_then(|place| plan.streams.get(*place)) else { continue };
            let (mut events, mut is_foreign) = (Vec::with_capacity(entries.len()), false);
            for found in entries {
                let (event, others) = entry::read(&found);
                is_foreign |= others;
                bytes_read += event.bytes();
                events.push(event);
            }
            events_read += events.len();
            if events.len() >= count {
                taken.again.push(Arc::clone(live));
            }
            if is_foreign {
                taken.is_foreign = true;
                self.wishes.is_foreign(live.name());
            }
            live.append(events);
        }
        self.sizes.note(events_read, bytes_read);
        self.proven();
        Ok(taken)
    }

    /// Reads streams once over the general connections.
    pub(super) async fn take(&self, streams: &[Arc<Live>]) -> Result<Taken, RedisError> {
        let mut all = Taken::default();
        let mut note = |taken: Result<Taken, RedisError>| {
            let taken = taken?;
            all.again.extend(taken.again);
            all.is_foreign |= taken.is_foreign;
            Ok::<_, RedisError>(())
        };
        if self.shared.is_cluster() {
            let one = |live: &Arc<Live>| {
                let plan = Plan::new(self, [Arc::clone(live)].into());
                async move { self.take_plan(plan).await }
            };
            let mut reading =
                stream::iter(streams.iter().map(one).collect::<Vec<_>>()).buffer_unordered(AT_ONCE_CLUSTER);
            while let Some(taken) = reading.next().await {
                note(taken)?;
            }
        } else {
            for chunks in streams.chunks(CHUNK * AT_ONCE) {
                let reading = chunks.chunks(CHUNK).map(|chunk| self.take_plan(Plan::new(self, chunk.into())));
                for taken in join_all(reading).await {
                    note(taken)?;
                }
            }
        }
        Ok(all)
    }

    /// A key that is no stream spoils the read of all: it is found by halving.
    async fn take_plan(&self, plan: Plan) -> Result<Taken, RedisError> {
        let mut left = vec![plan];
        let mut all = Taken::default();
        while let Some(plan) = left.pop() {
            let count = self.sizes.count(plan.streams.len());
            let key = plan.keys.first().cloned().filter(|_| self.shared.is_cluster());
            match self.shared.redis.command("XREAD", key, plan.words(count, None)).await {
                Ok(reply) => {
                    self.shared.settled().await?;
                    let taken = self.hand_on(&plan, count, reply)?;
                    all.again.extend(taken.again);
                    all.is_foreign |= taken.is_foreign;
                }
                Err(error) if error.code() == "WRONGTYPE" => match &plan.streams[..] {
                    [live] => self.wishes.is_spoiled(live.name()),
                    several => {
                        let (one, other) = several.split_at(several.len() / 2);
                        left.extend([Plan::new(self, one.into()), Plan::new(self, other.into())]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Tells those streams that end before their tail (deleted, or lost by Redis) so.
    pub(super) async fn check_ends(&self, streams: &[Arc<Live>]) -> Result<(), RedisError> {
        // The tail is looked at first: what is appended meanwhile is not lost.
        let tails: Vec<(&Arc<Live>, EventId)> = streams
            .iter()
            .filter_map(|live| Some((live, live.tail()?)))
            .filter(|(_, tail)| *tail > EventId::ZERO)
            .collect();
        let keys: Vec<Bytes> = tails.iter().map(|(live, _)| self.shared.keys.stream(live.name())).collect();
        let infos = self.shared.redis.stream_infos(&keys).await?;
        self.shared.settled().await?;
        for ((live, tail), info) in tails.into_iter().zip(infos) {
            let last = info.map_or(EventId::ZERO, |info| info.last_generated.into());
            if last < tail {
                tracing::warn!(stream = %live.name(), %tail, %last, "a stream ends before what was heard of it");
                live.rewound(last, tail);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_stay_bounded_as_events_grow() {
        let sizes = Sizes::default();
        assert_eq!(sizes.count(1), COUNT_MAX);
        sizes.note(2, 2 << 20);
        assert_eq!((sizes.count(1), sizes.count(100)), (4, COUNT_MIN));
        (0..200).for_each(|_| sizes.note(1, 100));
        assert_eq!(sizes.count(100), COUNT_MAX);
    }
}
