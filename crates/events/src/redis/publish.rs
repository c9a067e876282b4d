//! Publishing: callers of one stream share a script, one script at a time, so that a lost reply can be asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tidegate_redis_ops::{Coalescer, Error as RedisError};
use tokio::time::{Instant, sleep_until};

use super::call::{self, Again};
use super::scripts::SCRIPTS;
use super::{RedisBus, Shared, entry};
use crate::{Error, EventId, NewEvent, Published, StreamName};

/// Bytes that weigh as much as an event: 1000 events or 4 MiB travel together.
const BYTES_PER_EVENT: usize = 4096;
/// What may wait for Redis in this process, in bytes. 256 MiB: beyond it a slow Redis would fill our memory.
const HELD_MAX: usize = 256 << 20;
/// What an event costs here beyond its bytes.
const EVENT_OVERHEAD: usize = 256;
/// Streams published to that are remembered; beyond, those nobody publishes to right now are forgotten.
const PUBLISHERS: usize = 1024;

/// What one caller brings to the next script.
struct Batch {
    events: Vec<NewEvent>,
    /// Held until it is answered, so that its publisher is not forgotten meanwhile.
    publisher: Arc<Publisher>,
}

/// What all callers of one script get.
type Answer = Result<Vec<Published>, Error>;

/// The publishers of this process, by stream.
#[derive(Default)]
pub(super) struct Publishers {
    /// Held to find or make one.
    by_stream: Mutex<HashMap<StreamName, Arc<Publisher>, foldhash::fast::RandomState>>,
    /// Bytes that wait for Redis.
    held: AtomicUsize,
    /// The last operation. One stream's numbers ascend, also when its publisher was forgotten in between.
    operation: AtomicU64,
}

struct Publisher {
    batches: Coalescer<Batch, Answer>,
    /// Where a pause gathers events: when the gathering ends.
    gathering: Mutex<Option<Instant>>,
}

/// What one caller holds until it is answered or leaves.
struct Held<'a>(&'a AtomicUsize, usize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Publishers {
    fn hold(&self, events: &[NewEvent]) -> Result<Held<'_>, Error> {
        let mine: usize = events.iter().map(|event| event.bytes() + EVENT_OVERHEAD).sum();
        let before = self.held.fetch_add(mine, Ordering::Relaxed);
        let held = Held(&self.held, mine);
        // Whoever comes first may bring more: what is refused here is what piles up.
        if before > 0 && before + mine > HELD_MAX {
            return Err(Error::Redis(RedisError::NotSent {
                code: "BACKPRESSURE",
                detail: format!("events of {before} bytes wait for Redis already").into(),
                retry_after: Duration::from_secs(1),
            }));
        }
        Ok(held)
    }

    fn next_operation(&self) -> Bytes {
        let number = self.operation.fetch_add(1, Ordering::Relaxed) + 1;
        Bytes::copy_from_slice(&number.to_be_bytes()[2..])
    }
}

impl Publishers {
    /// Waits until nothing is on its way.
    pub(super) async fn idle(&self) {
        let all: Vec<_> = self.by_stream.lock().values().map(|publisher| publisher.batches.clone()).collect();
        for batches in all {
            batches.idle().await;
        }
    }
}

impl RedisBus {
    pub(crate) async fn publish(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        let shared = self.shared();
        let _held = shared.publishers.hold(&events)?;
        let publisher = shared.publisher(stream);
        if !shared.config.batch_wait.is_zero() {
            publisher.gather(shared.config.batch_wait).await;
        }
        match publisher.batches.submit(Batch { events, publisher: Arc::clone(&publisher) }).await {
            Some(answer) => answer,
            None => {
                Err(Error::Redis(RedisError::Lost { code: "DISCONNECTED", detail: "the publish was given up".into() }))
            }
        }
    }
}

impl Publisher {
    /// Waits until the gathering that is open ends, or opens one.
    async fn gather(&self, wait: Duration) {
        let now = Instant::now();
        let until = {
            let mut gathering = self.gathering.lock();
            *gathering.get_or_insert(now + wait)
        };
        sleep_until(until).await;
        let mut gathering = self.gathering.lock();
        if *gathering == Some(until) {
            *gathering = None;
        }
    }
}

impl Shared {
    fn publisher(self: &Arc<Self>, stream: &StreamName) -> Arc<Publisher> {
        let mut by_stream = self.publishers.by_stream.lock();
        if let Some(publisher) = by_stream.get(stream) {
            return Arc::clone(publisher);
        }
        if by_stream.len() >= PUBLISHERS && by_stream.len() == by_stream.capacity() {
            // Whoever publishes holds it, and so does what is on its way.
            by_stream.retain(|_, publisher| Arc::strong_count(publisher) > 1);
        }
        let publisher = Arc::new(Publisher::new(self, stream));
        by_stream.insert(stream.clone(), Arc::clone(&publisher));
        publisher
    }

    /// Runs one script for all of them.
    async fn publish_all(&self, stream: &StreamName, batches: Vec<Batch>) -> Vec<Answer> {
        let lengths: Vec<usize> = batches.iter().map(|batch| batch.events.len()).collect();
        // Until all is over: the next publisher of this stream must not begin before.
        let _publisher = batches.first().map(|batch| Arc::clone(&batch.publisher));
        let events = batches.into_iter().flat_map(|batch| batch.events).collect();
        match self.publish_script(stream, events).await {
            Ok(published) => {
                let mut published = published.into_iter();
                lengths.into_iter().map(|length| Ok(published.by_ref().take(length).collect())).collect()
            }
            Err(error) => lengths.into_iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn publish_script(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        let count = events.len();
        let args = self.arguments(stream, events);
        let keys = [
            self.keys.stream(stream),
            self.keys.operation(stream, &self.process),
            self.keys.seen(stream),
            self.keys.ages(stream),
            self.keys.made(stream),
            self.keys.ended(stream),
        ];
        let reply = call::run(&self.redis, &SCRIPTS.publish, &keys, &args, Again::Harmless).await;
        let reply = reply.map_err(|error| call::of_stream(error, stream))?.into_bytes()?;
        let (is_new, published) = read_answer(&reply, count)?;
        // Also one that somebody else made and the list does not know yet.
        self.registry.created(&keys[0]);
        if is_new {
            self.hub.created(stream);
        }
        Ok(published)
    }

    /// See `publish.lua`.
    fn arguments(&self, stream: &StreamName, events: Vec<NewEvent>) -> Vec<Bytes> {
        let config = &self.config;
        let number = |number: u64| Bytes::from(number.to_string());
        let millis = |duration: Duration| number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1));
        let retention = config.retention_of(stream.as_str());
        let has_ids = events.iter().any(|event| event.idempotence_id.is_some());
        let mut args = Vec::with_capacity(7 + events.len() * 2);
        args.push(self.publishers.next_operation());
        args.push(retention.length_max.map(number).unwrap_or_default());
        args.push(retention.age_max.map(millis).unwrap_or_default());
        args.push(if has_ids { millis(config.idempotence_window) } else { Bytes::new() });
        args.push(number(config.idempotence_max as u64));
        args.push(self.keys.bell.clone());
        let (layout_at, mut layout) = (args.len(), BytesMut::with_capacity(events.len()));
        args.push(Bytes::new());
        for event in events {
            let (has, values) = entry::values(event);
            layout.put_u8(has);
            args.extend(values);
        }
        args[layout_at] = layout.freeze();
        args
    }
}

impl Publisher {
    fn new(shared: &Arc<Shared>, stream: &StreamName) -> Self {
        let weigh = |batch: &Batch| {
            let weight = |event: &NewEvent| (event.bytes() / BYTES_PER_EVENT).max(1);
            batch.events.iter().map(weight).sum()
        };
        let (weak, stream) = (Arc::downgrade(shared), stream.clone());
        let batches = Coalescer::new(shared.config.batch_max, weigh, move |batches: Vec<Batch>| {
            // Whoever waits for an answer holds the bus; nobody else can want one.
            let (shared, stream) = (weak.upgrade(), stream.clone());
            async move {
                match shared {
                    Some(shared) => shared.publish_all(&stream, batches).await,
                    None => batches.iter().map(|_| Err(Error::Draining)).collect(),
                }
            }
        });
        Self { batches, gathering: Mutex::default() }
    }
}

/// Whether the stream is new, and what became of each event; see `publish.lua`.
fn read_answer(answer: &[u8], count: usize) -> Result<(bool, Vec<Published>), RedisError> {
    let id = |text: &[u8]| tidegate_redis_ops::StreamId::from_bytes(text).map(EventId::from);
    let read = || -> Option<Vec<Published>> {
        match answer.split_at_checked(2)? {
            ([_, b'r'], first) => {
                let EventId { ms, seq } = id(first)?;
                let published = |turn| Published { id: EventId { ms, seq: seq + turn }, duplicate: false };
                Some((0..count as u64).map(published).collect())
            }
            ([_, b'l'], all) => all
                .split(|byte| *byte == b' ')
                .map(|text| match text.strip_prefix(b"=") {
                    Some(known) => Some(Published { id: id(known)?, duplicate: true }),
                    None => Some(Published { id: id(text)?, duplicate: false }),
                })
                .collect(),
            _ => None,
        }
    };
    let published = read().filter(|published| published.len() == count);
    let published = published.ok_or_else(|| call::unexpected("an id for each event"))?;
    Ok((answer.first() == Some(&b'n'), published))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_answer_are_read() {
        let (is_new, published) = read_answer(b"nr5-3", 3).unwrap();
        let ids: Vec<String> = published.iter().map(|published| published.id.to_string()).collect();
        assert!(is_new && ids == ["5-3", "5-4", "5-5"] && published.iter().all(|published| !published.duplicate));
        let (is_new, published) = read_answer(b"-l5-3 =2-0", 2).unwrap();
        assert!(!is_new && !published[0].duplicate && published[1].duplicate);
        assert_eq!(published[1].id, EventId { ms: 2, seq: 0 });
    }

    #[test]
    fn another_answer_is_an_error() {
        for answer in [&b""[..], b"n", b"-l", b"-l1-1", b"-x1-1 2-2", b"-r1", b"-l1-1 2-2 3-3"] {
            assert!(read_answer(answer, 2).is_err(), "{answer:?}");
        }
    }
}
