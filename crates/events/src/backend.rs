//! The closed set of places where streams live. Each arm uses the best structure of its world; what is here is the seam.

use std::time::Duration;

use bytes::Bytes;

use crate::embedded::Embedded;
use crate::hub::Shared;
use crate::redis::RedisBus;
use crate::{
    Clock, Delivery, Error, EventId, GroupInfo, GroupName, NewEvent, Page, Pattern, Pending, Published, Read,
    StreamInfo, StreamName, StreamPage, Trim,
};

/// Where streams live.
#[derive(Clone)]
pub(crate) enum Backend {
    /// In this process, durable in an embedded store.
    Embedded(Embedded),
    /// On a Redis, shared by any number of processes.
    Redis(RedisBus),
}

/// What a reader who comes back must know of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The newest place ever given out; [`EventId::ZERO`] for a stream that is not there.
    pub(crate) last: EventId,
    /// Events at or before this place may have been removed.
    pub(crate) removed_to: EventId,
}

/// One look of a consumer into its group.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) consumer: Bytes,
    pub(crate) limit: usize,
    /// What others hold unacknowledged for longer is taken over.
    pub(crate) min_idle: Duration,
    /// What was delivered so often is not delivered again.
    pub(crate) deliveries_max: u32,
    pub(crate) pending_max: usize,
}

/// What the look gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stepped {
    /// Redeliveries first, then what is new.
    pub(crate) deliveries: Vec<Delivery>,
    /// Delivered too often; held by this consumer now, so that nobody else takes them while they are put aside.
    pub(crate) exhausted: Vec<Delivery>,
    /// When the next of what others hold will have been idle long enough.
    pub(crate) next_idle: Option<Duration>,
}

/// Each verb with the same meaning in both worlds.
macro_rules! both {
    ($self:ident, $backend:ident => $call:expr) => {
        match $self {
            Self::Embedded($backend) => $call,
            Self::Redis($backend) => $call,
        }
    };
}

impl Backend {
    /// Durable when it answers. All of one call stand together, in order.
    pub(crate) async fn publish(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        both!(self, backend => backend.publish(stream, events).await)
    }

    /// Errors: [`Error::StreamNotFound`].
    pub(crate) async fn info(&self, stream: &StreamName) -> Result<StreamInfo, Error> {
        both!(self, backend => backend.info(stream).await)
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Result<StreamPage, Error> {
        both!(self, backend => backend.list(prefix, after, limit).await)
    }

    /// Streams whose names match, at most `limit`.
    pub(crate) async fn matching(&self, pattern: &Pattern, limit: usize) -> Result<Vec<StreamName>, Error> {
        both!(self, backend => backend.matching(pattern, limit).await)
    }

    /// Only what is durable. Errors: [`Error::StreamNotFound`].
    pub(crate) async fn read(&self, stream: &StreamName, read: Read) -> Result<Page, Error> {
        both!(self, backend => backend.read(stream, read).await)
    }

    /// Of an absent stream the default.
    pub(crate) async fn bounds(&self, stream: &StreamName) -> Result<Bounds, Error> {
        both!(self, backend => backend.bounds(stream).await)
    }

    /// How many were removed. Errors: [`Error::StreamNotFound`].
    pub(crate) async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<u64, Error> {
        both!(self, backend => backend.trim(stream, trim).await)
    }

    /// Where those that were there ended; nothing published to a stream of that name later has a place up to there.
    pub(crate) async fn delete(&self, streams: &[StreamName]) -> Result<Vec<Option<EventId>>, Error> {
        both!(self, backend => backend.delete(streams).await)
    }

    /// Redelivers and delivers. A group that is not there yet begins at the oldest event kept.
    /// Errors: [`Error::StreamNotFound`].
    pub(crate) async fn step(&self, stream: &StreamName, group: &GroupName, step: Step) -> Result<Stepped, Error> {
        both!(self, backend => backend.step(stream, group, step).await)
    }

    /// Which of them were pending; durable when it answers.
    pub(crate) async fn ack(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<bool>, Error> {
        both!(self, backend => backend.ack(stream, group, ids).await)
    }

    /// Makes deliveries idle, so that the next look takes them; says how often each was delivered, `None` when it is not
    /// pending.
    pub(crate) async fn free(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<Option<u32>>, Error> {
        both!(self, backend => backend.free(stream, group, ids).await)
    }

    /// Deliveries that wait to be acknowledged, after a place, oldest event first. Errors: [`Error::GroupNotFound`].
    pub(crate) async fn pending(
        &self,
        stream: &StreamName,
        group: &GroupName,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Pending>, Error> {
        both!(self, backend => backend.pending(stream, group, after, limit).await)
    }

    /// Errors: [`Error::StreamNotFound`].
    pub(crate) async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupInfo>, Error> {
        both!(self, backend => backend.groups(stream).await)
    }

    pub(crate) fn durability(&self) -> &'static str {
        both!(self, backend => backend.durability())
    }

    /// How late it is, as far as everything before is known to have been heard.
    pub(crate) fn proven_ms(&self, hub: &Shared) -> u64 {
        match self {
            Self::Embedded(_) => Clock::System.now_ms(),
            Self::Redis(_) => hub.proven_ms(),
        }
    }

    /// Ends its tasks and makes everything durable.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        both!(self, backend => backend.close().await)
    }
}
