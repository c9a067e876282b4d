//! One call of a script: the settings it decides by, what every reply begins with, and how often it may be sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_redis_ops::{Class, Error as RedisError, Redis, Script, Value};
use tokio::time::{Instant, sleep};

use super::queue::Shared;
use super::record::U48;
use super::scripts::SCRIPTS;
use crate::{Clock, Error, Overflow, UnixMillis};

/// How long a call is sent again while its fate is unknown. 4 s: a failover of a primary takes one to three.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long while it certainly did not run. 1 s: a blip is bridged, an outage is told.
const PATIENCE_UNSENT: Duration = Duration::from_secs(1);

/// What a script said, in order.
pub(super) struct Reply {
    values: std::vec::IntoIter<Value>,
    pub(super) now: UnixMillis,
    /// Whether something is due already.
    pub(super) is_more_due: bool,
}

impl Reply {
    pub(super) fn next(&mut self) -> Result<Value, Error> {
        self.values.next().ok_or(Error::Redis(RedisError::Reply { expected: "more", got: "the end" }))
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        Ok(u64::try_from(self.next()?.as_int()?).unwrap_or(0))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Error> {
        Ok(self.next()?.into_bytes()?)
    }

    /// What is left, in pairs of bytes.
    pub(super) fn pairs(self) -> Result<Vec<(Bytes, Value)>, Error> {
        let mut pairs = Vec::with_capacity(self.values.len() / 2);
        let mut values = self.values;
        while let (Some(first), Some(second)) = (values.next(), values.next()) {
            pairs.push((first.into_bytes()?, second));
        }
        Ok(pairs)
    }
}

/// The last operation of a kind that this process sent for a queue. Redis keeps its answer, so that it can be sent again until
/// its fate is known; one at a time.
pub(super) struct Slot {
    key: Bytes,
    last: AtomicU64,
}

impl Slot {
    pub(super) fn new(key: Bytes) -> Self {
        Self { key, last: AtomicU64::new(0) }
    }

    fn next(&self) -> Bytes {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Bytes::copy_from_slice(&number.to_be_bytes()[2..])
    }
}

impl Shared {
    /// Runs a script that may be sent again without harm: it only reads, or doing it twice is doing it once.
    pub(super) async fn call(&self, script: &Script, args: Vec<Bytes>) -> Result<Reply, Error> {
        self.send(&self.redis, script, &self.keys.all(None), args, true).await
    }

    /// Renews leases, on a connection that nothing else holds up.
    pub(super) async fn call_beat(&self, args: Vec<Bytes>) -> Result<Reply, Error> {
        self.send(self.beats.or(&self.redis), &SCRIPTS.beat, &self.keys.all(None), args, true).await
    }

    /// Runs a script that must not run twice: a lost reply is told as such.
    pub(super) async fn call_once(&self, script: &Script, args: Vec<Bytes>) -> Result<Reply, Error> {
        self.send(&self.redis, script, &self.keys.all(None), args, false).await
    }

    /// Runs a script whose operation id makes sure that it runs once however often it is sent.
    pub(super) async fn operate(&self, script: &Script, slot: &Slot, mut args: Vec<Bytes>) -> Result<Reply, Error> {
        args.insert(0, slot.next());
        self.send(&self.redis, script, &self.keys.all(Some(&slot.key)), args, true).await
    }

    async fn send(
        &self,
        redis: &Redis,
        script: &Script,
        keys: &[Bytes],
        args: Vec<Bytes>,
        again: bool,
    ) -> Result<Reply, Error> {
        let mut all = Vec::with_capacity(args.len() + 1);
        all.push(Bytes::new());
        all.extend(args);
        let (began, mut pause) = (Instant::now(), Duration::from_millis(10));
        let mut unknown = None;
        loop {
            all[0] = self.settings();
            let error = match redis.run(script, keys, &all).await {
                Ok(value) => return self.heard(value),
                Err(error) => error,
            };
            let patience = match error.class() {
                Class::Ambiguous if again => PATIENCE,
                Class::Transient if unknown.is_some() => PATIENCE,
                Class::Transient if error.code() != "BREAKER_OPEN" => PATIENCE_UNSENT,
                _ => Duration::ZERO,
            };
            if error.class() == Class::Ambiguous {
                unknown = Some(error.clone());
            }
            if began.elapsed() + pause >= patience {
                // Whatever came last: when one of them may have run, that is what must be told.
                return Err(Error::Redis(unknown.unwrap_or(error)));
            }
            tracing::debug!(queue = %self.name, script = script.name(), %error, "sending again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Every reply begins with the time on Redis and when something is due next.
    fn heard(&self, value: Value) -> Result<Reply, Error> {
        let mut reply = Reply { values: value.into_array()?.into_iter(), now: UnixMillis(0), is_more_due: false };
        let (now, next) = (reply.next()?.as_int()?, reply.next()?.as_int()?);
        (reply.now, reply.is_more_due) = (UnixMillis(now), next <= now);
        self.due(now, next);
        Ok(reply)
    }

    /// The settings every script takes first.
    fn settings(&self) -> Bytes {
        let (rules, config) = (&self.rules, &self.config);
        let manual = match &config.clock {
            Clock::System => 0,
            Clock::Manual(clock) => u64::try_from(clock.now().0).unwrap_or(0),
        };
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(U48).min(U48);
        let mut bytes = BytesMut::with_capacity(80);
        bytes.put_uint(manual, 6);
        bytes.put_uint(millis(config.lease), 5);
        bytes.put_uint(rules.jobs_max.min(U48), 6);
        bytes.put_uint(rules.bytes_max.min(U48), 6);
        bytes.put_u8(match rules.overflow {
            Overflow::Reject => 0,
            Overflow::DropOldest => 1,
            Overflow::DropNewest => 2,
        });
        bytes.put_u32(rules.key_limit.unwrap_or(u32::MAX));
        bytes.put_u32(rules.running_limit.unwrap_or(u32::MAX));
        bytes.put_uint(rules.finished_max.min(U48), 6);
        bytes.put_uint(rules.finished_bytes_max.min(U48), 6);
        bytes.put_uint(config.history_max.min(U48), 6);
        bytes.put_uint((config.idempotency_max as u64).min(U48), 6);
        bytes.put_uint(millis(config.idempotency_window), 6);
        bytes.put_u32(self.chance());
        bytes.freeze()
    }
}
