//! Consumer groups: the events of a stream shared among consumers, each acknowledged once or delivered again.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use crate::backend::Step;
use crate::{Bus, Error, Event, EventId, GroupName, NewEvent, Order, Read, StreamName};

/// The type of dead letters.
const DEAD: &str = "dead";

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks; a name of its own choice, 1 to 64 characters.
    pub consumer: Box<str>,
    /// Events at most (1 to 1000).
    pub limit: usize,
    /// How long to wait when there is none.
    pub wait: Duration,
    /// What others hold unacknowledged for longer is delivered to this one; `None` takes
    /// [`Config::min_idle`](crate::Config::min_idle).
    pub min_idle: Option<Duration>,
}

impl Claim {
    /// Up to a hundred events, without waiting.
    pub fn new(consumer: impl Into<Box<str>>) -> Self {
        Self { consumer: consumer.into(), limit: 100, wait: Duration::ZERO, min_idle: None }
    }
}

/// An event handed to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// How often it was delivered, this time included.
    pub deliveries: u32,
}

/// A delivery that waits to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The event.
    pub id: EventId,
    /// Who holds it.
    pub consumer: Box<str>,
    /// For how long.
    pub idle: Duration,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// What became of an event a consumer failed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is delivered again.
    Retried,
    /// It was delivered as often as it may be and is in the dead letters now.
    DeadLettered,
    /// It is not pending: acknowledged, dead-lettered before, or never delivered.
    NotPending,
}

/// A group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: GroupName,
    /// The newest event it has delivered.
    pub delivered_to: EventId,
    /// Deliveries that wait to be acknowledged.
    pub pending: u64,
    /// Consumers with pending deliveries (embedded), or known (Redis).
    pub consumers: u64,
}

/// A group of a stream; a cheap handle.
#[derive(Clone, Debug)]
pub struct Group {
    bus: Bus,
    stream: StreamName,
    name: GroupName,
}

impl Group {
    pub(crate) fn new(bus: Bus, stream: StreamName, name: GroupName) -> Self {
        Self { bus, stream, name }
    }

    /// Deliveries for a consumer: first what others left unacknowledged for too long, then what is new. A group that is not
    /// there yet begins at the oldest event kept.
    ///
    /// Dropping the future may leave deliveries pending that nobody got; they are delivered again after `min_idle`.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`] when there is no such stream after the wait, [`Error::Invalid`], and those of the backend.
    pub async fn claim(&self, claim: Claim) -> Result<Vec<Delivery>, Error> {
        self.bus.check_name(&self.stream)?;
        let step = self.step(&claim)?;
        let until = Instant::now() + claim.wait;
        // First watch, then look: what comes in between is seen.
        let mut watch = match claim.wait {
            Duration::ZERO => None,
            _ => Some(self.bus.hub().watch(self.bus.backend(), &self.stream).await?),
        };
        loop {
            let stepped = self.bus.backend().step(&self.stream, &self.name, step.clone()).await;
            let next_idle = match stepped {
                Ok(stepped) => {
                    for delivery in stepped.exhausted {
                        self.bury(&delivery.event, delivery.deliveries, "delivered too often, never acknowledged")
                            .await?;
                    }
                    if !stepped.deliveries.is_empty() {
                        return Ok(stepped.deliveries);
                    }
                    stepped.next_idle
                }
                Err(Error::StreamNotFound { .. }) if Instant::now() < until => None,
                Err(error) => return Err(error),
            };
            let Some(watch) = watch.as_mut().filter(|_| Instant::now() < until) else { return Ok(Vec::new()) };
            let look_again = next_idle.map_or(until, |idle| until.min(Instant::now() + idle));
            tokio::select! {
                () = watch.changed() => {}
                () = sleep_until(look_again) => {}
                () = self.bus.hub().drained() => return Ok(Vec::new()),
            }
        }
    }

    /// Says that events were dealt with; durable when it answers. `false` for those that were not pending (any more).
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn ack(&self, ids: &[EventId]) -> Result<Vec<bool>, Error> {
        self.bus.check_name(&self.stream)?;
        self.bus.backend().ack(&self.stream, &self.name, ids).await
    }

    /// Gives events back: each is delivered again at once, or put into the dead letters `{stream}.dead.{group}` when it was
    /// delivered as often as it may be.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn fail(&self, ids: &[EventId], error: &str) -> Result<Vec<Failed>, Error> {
        self.bus.check_name(&self.stream)?;
        let freed = self.bus.backend().free(&self.stream, &self.name, ids).await?;
        let mut became = Vec::with_capacity(ids.len());
        for (id, deliveries) in ids.iter().zip(freed) {
            became.push(match deliveries {
                None => Failed::NotPending,
                Some(deliveries) if deliveries < self.bus.config().deliveries_max => Failed::Retried,
                Some(deliveries) => {
                    match self.event(*id).await? {
                        Some(event) => self.bury(&event, deliveries, error).await?,
                        // Trimmed meanwhile: there is nothing left to put aside.
                        None => drop(self.ack(&[*id]).await?),
                    }
                    Failed::DeadLettered
                }
            });
        }
        if became.contains(&Failed::Retried) {
            self.bus.hub().poke(&self.stream);
        }
        Ok(became)
    }

    /// Deliveries that wait to be acknowledged, after a place, oldest event first.
    ///
    /// # Errors
    /// [`Error::GroupNotFound`], [`Error::StreamNotFound`].
    pub async fn pending(&self, after: EventId, limit: usize) -> Result<Vec<Pending>, Error> {
        self.bus.check_name(&self.stream)?;
        self.bus.backend().pending(&self.stream, &self.name, after, limit).await
    }

    fn step(&self, claim: &Claim) -> Result<Step, Error> {
        let config = self.bus.config();
        // Or an event that is given up one day would have nowhere to go.
        self.stream.dead_letters(&self.name).map_err(|_| Error::Invalid {
            field: "group",
            reason: "too long: {stream}.dead.{group} must be a stream's name, at most 200 characters".into(),
        })?;
        if !(1..=1000).contains(&claim.limit) {
            return Err(Error::Invalid { field: "limit", reason: "1 to 1000".into() });
        }
        let legal = !claim.consumer.chars().any(char::is_control);
        if !(1..=64).contains(&claim.consumer.len()) || !legal {
            return Err(Error::Invalid { field: "consumer", reason: "1 to 64 bytes of text".into() });
        }
        Ok(Step {
            consumer: Bytes::copy_from_slice(claim.consumer.as_bytes()),
            limit: claim.limit,
            min_idle: claim.min_idle.unwrap_or(config.min_idle),
            deliveries_max: config.deliveries_max,
            pending_max: config.pending_max,
        })
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>, Error> {
        let only = Read { after: id.previous(), before: id.next(), limit: 1, order: Order::Ascending };
        Ok(self.bus.backend().read(&self.stream, only).await?.events.pop())
    }

    /// Puts an event into the dead letters and takes it out of the group. It is published under its own id, so a second try
    /// after a crash in between does not put it there twice.
    async fn bury(&self, event: &Event, deliveries: u32, error: &str) -> Result<(), Error> {
        let letter = DeadLetter::new(self, event, deliveries, error);
        let data = serde_json::to_vec(&letter).map_err(|error| Error::Damaged {
            stream: self.stream.to_string(),
            detail: format!("event {}: {error}", event.id),
        })?;
        let dead = NewEvent {
            key: event.key.clone(),
            // Not that of the event: whoever listens for those is not meant.
            ..NewEvent::new(data).kind(DEAD).idempotence_id(event.id.to_string())
        };
        self.bus.bury(&self.stream.dead_letters(&self.name)?, dead).await?;
        self.ack(&[event.id]).await?;
        tracing::warn!(stream = %self.stream, group = %self.name, event = %event.id, deliveries, error, "dead-lettered");
        Ok(())
    }
}

/// The data of a dead letter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<'a> {
    stream: &'a str,
    group: &'a str,
    id: String,
    deliveries: u32,
    error: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    /// In place of `data` where that is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl<'a> DeadLetter<'a> {
    fn new(group: &'a Group, event: &'a Event, deliveries: u32, error: &'a str) -> Self {
        let data = serde_json::from_slice(&event.data).ok();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            stream: group.stream.as_str(),
            group: group.name.as_str(),
            id: event.id.to_string(),
            deliveries,
            error,
            kind: event.kind.as_ref().map(text),
            data,
            text: data.is_none().then(|| text(&event.data)),
        }
    }
}
