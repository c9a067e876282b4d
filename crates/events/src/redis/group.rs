//! Consumer groups, as Redis has them.

use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::{Error as RedisError, StreamEntry, StreamId, Value};

use super::call::{self, Again, not_found, of_stream, unexpected};
use super::read::bytes;
use super::scripts::SCRIPTS;
use super::{RedisBus, entry};
use crate::backend::{Step, Stepped};
use crate::{Delivery, Error, EventId, GroupInfo, GroupName, Pending, StreamName};

/// Bytes after which a look ends early. 16 MiB.
const STEP_BYTES: usize = 16 << 20;
/// What a delivery given back counts as idle, in ms: three years, more than any claim asks for.
const LONG_IDLE: &str = "100000000000";

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn number(number: impl TryInto<u64>) -> Bytes {
    // Redis counts in 63 bits.
    number.try_into().unwrap_or(u64::MAX).min(i64::MAX as u64).to_string().into()
}

impl RedisBus {
    pub(crate) async fn step(&self, stream: &StreamName, group: &GroupName, step: Step) -> Result<Stepped, Error> {
        let shared = self.shared();
        let known = shared.positions.of(stream, group);
        let args = [
            text(group.as_str()),
            step.consumer,
            number(step.limit),
            number(step.min_idle.as_millis()),
            number(step.deliveries_max),
            number(step.pending_max),
            bytes(known.position),
            number(shared.config.groups_max),
            number(STEP_BYTES),
            text(&shared.process),
            known.made,
            known.held.map(bytes).unwrap_or_default(),
        ];
        let keys = [shared.keys.stream(stream), shared.keys.made(stream)];
        let reply = call::run(&shared.redis, &SCRIPTS.step, &keys, &args, Again::Never).await;
        let reply = reply.map_err(|error| of_stream(error, stream))?;
        if let Value::Bytes(refusal) = &reply {
            return Err(match &refusal[..] {
                b"absent" => not_found(stream),
                _ => Error::TooMany { what: "groups on this stream", capacity: shared.config.groups_max },
            });
        }
        let (made, stepped) = read_step(reply)?;
        let delivered = stepped.deliveries.iter().chain(&stepped.exhausted).map(|delivery| delivery.event.id);
        shared.positions.delivered(stream, group, made, delivered);
        Ok(stepped)
    }

    pub(crate) async fn ack(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<bool>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared();
        let mut args = vec![text(group.as_str())];
        args.extend(ids.iter().copied().map(bytes));
        let key = [shared.keys.stream(stream)];
        let reply = call::run(&shared.redis, &SCRIPTS.ack, &key, &args, Again::Never).await;
        let digits = reply.map_err(|error| of_stream(error, stream))?.into_bytes()?;
        if digits.len() != ids.len() {
            return Err(unexpected("a digit for each id").into());
        }
        shared.positions.acknowledged(stream, group, ids);
        Ok(digits.iter().map(|digit| *digit == b'1').collect())
    }

    pub(crate) async fn free(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<Option<u32>>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared();
        let mut args = vec![text(group.as_str()), shared.keys.bell.clone(), Bytes::from_static(LONG_IDLE.as_bytes())];
        args.extend(ids.iter().copied().map(bytes));
        let key = [shared.keys.stream(stream)];
        let reply = call::run(&shared.redis, &SCRIPTS.free, &key, &args, Again::Harmless).await;
        let times = reply.map_err(|error| of_stream(error, stream))?.into_array()?;
        if times.len() != ids.len() {
            return Err(unexpected("a number for each id").into());
        }
        Ok(times.iter().map(|times| Ok(u32::try_from(times.as_int()?).ok())).collect::<Result<_, RedisError>>()?)
    }

    pub(crate) async fn pending(
        &self,
        stream: &StreamName,
        group: &GroupName,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Pending>, Error> {
        let redis = &self.shared().redis;
        let key = self.shared().keys.stream(stream);
        let args =
            vec![key.clone(), text(group.as_str()), bytes(after.next()), Bytes::from_static(b"+"), number(limit)];
        let ask = || redis.command("XPENDING", Some(key.clone()), args.clone());
        match call::retried(Again::Harmless, ask).await {
            Ok(reply) => Ok(reply.into_array()?.into_iter().map(read_pending).collect::<Result<_, _>>()?),
            Err(error) if error.code() == "NOGROUP" => match redis.exists_many(&[key]).await?[..] {
                [true] => Err(Error::GroupNotFound { stream: stream.to_string(), group: group.to_string() }),
                _ => Err(not_found(stream)),
            },
            Err(error) => Err(of_stream(error, stream)),
        }
    }

    pub(crate) async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupInfo>, Error> {
        let redis = &self.shared().redis;
        let key = self.shared().keys.stream(stream);
        let ask = || redis.command("XINFO", Some(key.clone()), vec!["GROUPS".into(), key.clone()]);
        match call::retried(Again::Harmless, ask).await {
            Ok(reply) => {
                let groups: Vec<Option<GroupInfo>> =
                    reply.into_array()?.into_iter().map(read_group).collect::<Result<_, _>>()?;
                Ok(groups.into_iter().flatten().collect())
            }
            Err(RedisError::Answer { message, .. }) if message.ends_with("no such key") => Err(not_found(stream)),
            Err(error) => Err(of_stream(error, stream)),
        }
    }
}

/// See `step.lua`.
fn read_step(reply: Value) -> Result<(Bytes, Stepped), RedisError> {
    let parts: [Value; 6] = reply.into_array()?.try_into().map_err(|_| unexpected("six parts"))?;
    let [made, taken, counts, exhausted, exhausted_counts, next_idle] = parts;
    let deliveries = |entries: Value, counts: Value| -> Result<Vec<Delivery>, RedisError> {
        let (entries, counts) = (StreamEntry::list(entries)?, counts.into_array()?);
        let delivery = |(found, count): (StreamEntry, Value)| {
            let deliveries = u32::try_from(count.as_int()?).unwrap_or(u32::MAX);
            Ok(Delivery { event: entry::read(&found).0, deliveries })
        };
        entries.into_iter().zip(counts).map(delivery).collect()
    };
    let stepped = Stepped {
        deliveries: deliveries(taken, counts)?,
        exhausted: deliveries(exhausted, exhausted_counts)?,
        next_idle: u64::try_from(next_idle.as_int()?).ok().map(Duration::from_millis),
    };
    Ok((made.into_bytes()?, stepped))
}

/// `[id, consumer, idle, deliveries]`.
fn read_pending(value: Value) -> Result<Pending, RedisError> {
    let parts: [Value; 4] = value.into_array()?.try_into().map_err(|_| unexpected("four parts"))?;
    let [id, consumer, idle, deliveries] = parts;
    let id = StreamId::from_bytes(&id.into_bytes()?).ok_or_else(|| unexpected("an id"))?;
    Ok(Pending {
        id: id.into(),
        consumer: String::from_utf8_lossy(&consumer.into_bytes()?).into(),
        idle: Duration::from_millis(u64::try_from(idle.as_int()?).unwrap_or(0)),
        deliveries: u32::try_from(deliveries.as_int()?).unwrap_or(u32::MAX),
    })
}

/// Names and values in turn; `None` for a group whose name could not be ours.
fn read_group(value: Value) -> Result<Option<GroupInfo>, RedisError> {
    let (mut name, mut delivered_to, mut pending, mut consumers) = (None, EventId::ZERO, 0, 0);
    let count = |value: &Value| Ok::<_, RedisError>(u64::try_from(value.as_int()?).unwrap_or(0));
    let mut values = value.into_array()?.into_iter();
    while let (Some(field), Some(value)) = (values.next(), values.next()) {
        match &field.into_bytes()?[..] {
            b"name" => name = value.as_str().ok().and_then(|name| GroupName::new(name).ok()),
            b"consumers" => consumers = count(&value)?,
            b"pending" => pending = count(&value)?,
            b"last-delivered-id" => {
                let id = StreamId::from_bytes(&value.into_bytes()?).ok_or_else(|| unexpected("an id"))?;
                delivered_to = id.into();
            }
            _ => {}
        }
    }
    Ok(name.map(|name| GroupInfo { name, delivered_to, pending, consumers }))
}
