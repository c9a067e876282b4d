//! Skeleton of the hub: one shared log of recent events per live stream, and cursors over it.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::stats::Metrics;
use crate::{Config, Cursor, Error, Event, EventId, Pattern, StreamName};

/// What a listener follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One stream, whether it is there already or not.
    Stream(StreamName),
    /// All streams that match, now and later.
    Pattern(Pattern),
}

impl Source {
    /// Reads `orders` or `order.*`.
    ///
    /// # Errors
    /// [`Error::BadStreamName`], [`Error::BadPattern`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        match Pattern::is_pattern(text) {
            true => Pattern::new(text).map(Self::Pattern),
            false => StreamName::new(text).map(Self::Stream),
        }
    }

    pub(crate) fn stream(&self) -> Option<&StreamName> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Pattern(_) => None,
        }
    }
}

/// What becomes of a listener that stalls until what it has not heard is no longer held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// It is closed; it comes back with its cursor and reads the log.
    #[default]
    Close,
    /// It hears a gap and goes on with the oldest event held.
    Skip,
    /// It hears a gap and goes on with what comes next.
    Latest,
}

/// A wish to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// What to follow, in one listener.
    pub sources: Vec<Source>,
    /// Where to begin; without it (or for streams it does not name) with what comes next.
    pub from: Option<Cursor>,
    /// What to do when it stalls.
    pub slow: Slow,
}

impl Listen {
    /// From now on.
    #[must_use]
    pub fn to(sources: Vec<Source>) -> Self {
        Self { sources, from: None, slow: Slow::default() }
    }
}

/// Why history is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Removed by retention or by hand.
    Trimmed,
    /// The stream's end is before the cursor: its newest events were lost.
    Rewound,
    /// Redis was restarted and may have lost its newest events.
    Restarted,
    /// The stream was deleted.
    Deleted,
    /// The listener was too slow and asked to skip.
    Slow,
}

impl GapReason {
    pub(crate) const ALL: [Self; 5] = [Self::Trimmed, Self::Rewound, Self::Restarted, Self::Deleted, Self::Slow];

    /// As it is written in a frame.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Rewound => "rewound",
            Self::Restarted => "restarted",
            Self::Deleted => "deleted",
            Self::Slow => "slow",
        }
    }
}

/// Events after `from` and up to `to` may be missing; the listener goes on after `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last place known to have been heard.
    pub from: EventId,
    /// Where it goes on.
    pub to: EventId,
    /// Why.
    pub reason: GapReason,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(StreamName, Event),
    /// History of a stream is missing.
    Gap(StreamName, Gap),
}

/// A cursor over live streams. Dropping it is leaving.
#[derive(Debug)]
pub struct Listener {}

#[allow(unused_variables)]
impl Listener {
    /// The next event or gap; `None` at the end: the bus drains, or it was closed for being slow. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        None
    }

    /// Appends frames of server-sent events that are ready, up to about `bytes_max`, in few shared pieces: events, gaps,
    /// and a comment after silence. `Ready(false)` at the end.
    pub fn poll_frames(&mut self, cx: &mut Context<'_>, frames: &mut Vec<Bytes>, bytes_max: usize) -> Poll<bool> {
        Poll::Ready(false)
    }

    /// How far it has come.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::default()
    }
}

/// Wakes when a stream may have something new.
pub(crate) struct Watch {}

impl Watch {
    pub(crate) async fn changed(&mut self) {
        std::future::pending().await
    }
}

/// All live streams. A cheap clone.
#[derive(Clone)]
pub(crate) struct Hub(#[allow(dead_code)] Arc<Config>);

/// A stream somebody listens to (or waits for).
pub(crate) struct Live {}

#[allow(unused_variables, dead_code, clippy::unused_async, clippy::needless_pass_by_value)]
impl Live {
    pub(crate) fn name(&self) -> &StreamName {
        unimplemented!()
    }

    /// The newest place that was appended; `None` while it is not known yet, and the stream need not be read.
    pub(crate) fn tail(&self) -> Option<EventId> {
        None
    }

    /// Appends events in ascending order; those at or before the tail are left out.
    pub(crate) fn append(&self, events: Vec<Event>) {}

    /// The stream's end is at `last` now, before the tail: tells a gap and goes on from there.
    pub(crate) fn rewound(&self, last: EventId) {}
}

#[allow(unused_variables, dead_code, clippy::unused_async, clippy::needless_pass_by_value)]
impl Hub {
    pub(crate) fn new(config: Arc<Config>, metrics: Metrics) -> Self {
        Self(config)
    }

    /// Given once, after the backend is open.
    pub(crate) fn serve(&self, backend: Backend) {}

    pub(crate) async fn listen(&self, listen: Listen) -> Result<Listener, Error> {
        Err(Error::Draining)
    }

    /// Makes the stream live, so that its backend tells of new events, until the watch is dropped.
    pub(crate) async fn watch(&self, stream: &StreamName) -> Result<Watch, Error> {
        Err(Error::Draining)
    }

    // What a backend calls.

    /// Durable events of a stream, in ascending order; nothing happens when nobody listens.
    pub(crate) fn appended(&self, stream: &StreamName, events: impl FnOnce() -> Vec<Event>) {}

    /// There is a new stream, whoever made it: listeners of patterns may follow it.
    pub(crate) fn created(&self, stream: &StreamName) {}

    /// A stream was deleted: its listeners hear a gap.
    pub(crate) fn deleted(&self, stream: &StreamName) {}

    /// Wakes those who watch a stream: something can be claimed again.
    pub(crate) fn poke(&self, stream: &StreamName) {}

    /// The stream if it is live.
    pub(crate) fn find(&self, stream: &StreamName) -> Option<Arc<Live>> {
        None
    }

    /// All live streams whose tail is known.
    pub(crate) fn live(&self) -> Vec<Arc<Live>> {
        Vec::new()
    }

    /// Counts changes of what is live.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    /// Whether somebody follows a pattern or watches: news of streams that are not read are wanted, too.
    pub(crate) fn wants_news(&self) -> bool {
        false
    }

    /// Redis was restarted between these two instants (milliseconds since 1970) and may have lost its newest events: whoever
    /// goes from an event before to one after hears a gap.
    pub(crate) fn restarted(&self, from_ms: u64, to_ms: u64) {}

    pub(crate) fn drain(&self) {}

    pub(crate) fn is_draining(&self) -> bool {
        false
    }

    pub(crate) async fn drained(&self) {
        std::future::pending().await
    }

    /// Ends its tasks.
    pub(crate) async fn close(&self) {}
}
