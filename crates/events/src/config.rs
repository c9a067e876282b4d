//! Every bound of the bus, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::SOURCES_MAX;
use crate::{Clock, Error, Pattern};

/// What a stream forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events kept at least while there are so many; beyond, the oldest go (a little later, in batches). `None`: no bound.
    pub length_max: Option<u64>,
    /// Events older than this go, a little later. `None`: no bound.
    pub age_max: Option<Duration>,
}

impl Default for Retention {
    /// A million events, seven days.
    fn default() -> Self {
        Self { length_max: Some(1_000_000), age_max: Some(Duration::from_secs(7 * 86_400)) }
    }
}

/// The bounds of a bus.
#[derive(Clone, Debug)]
pub struct Config {
    /// Streams at most (embedded), and names in the cached list (Redis).
    pub streams_max: usize,
    /// The largest data of one event (1 MiB).
    pub event_bytes_max: usize,
    /// Bytes of all events together at most, embedded (4 GiB): beyond, a publish is refused.
    pub bytes_max: u64,
    /// What streams forget.
    pub retention: Retention,
    /// What streams whose names match forget instead; the first match counts.
    pub retentions: Vec<(Pattern, Retention)>,
    /// Idempotence ids remembered per stream; beyond, the oldest is forgotten.
    pub idempotence_max: usize,
    /// How long an idempotence id is remembered.
    pub idempotence_window: Duration,
    /// Events of many callers that go in one write at most.
    pub batch_max: usize,
    /// How long a write waits for more to gather. Zero: it goes at once, and what comes while it
    /// is under way makes up the next. Without effect embedded: the disk makes writes gather.
    pub batch_wait: Duration,
    /// Recent events of a live stream held for its listeners, in bytes (1 MiB): what a listener may fall behind before it
    /// must read the log.
    pub ring_bytes_max: usize,
    /// The same for all live streams together (64 MiB).
    pub rings_bytes_max: usize,
    /// A listener hears a comment after so much silence. 20 s: proxies close connections after 30 to 60 s without bytes.
    pub heartbeat: Duration,
    /// Streams one listener may follow, named and matched by patterns.
    pub sources_max: usize,
    /// Redis: live streams that are read by the blocked read; beyond, publishers ring for the others.
    pub direct_streams_max: usize,
    /// Groups per stream at most.
    pub groups_max: usize,
    /// Deliveries of a group waiting to be acknowledged at most; beyond, it gets nothing new.
    pub pending_max: usize,
    /// An event delivered so often and not acknowledged goes to the dead letters.
    pub deliveries_max: u32,
    /// A delivery not acknowledged for so long is delivered again, unless the claim says otherwise.
    pub min_idle: Duration,
    /// What Tidegate's own keys and channels on Redis begin with (`tidegate`).
    pub redis_prefix: Arc<str>,
    /// What the keys of streams begin with, before their names (nothing).
    pub redis_stream_prefix: Arc<str>,
    /// Where to read the time, embedded.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams_max: 100_000,
            event_bytes_max: 1 << 20,
            bytes_max: 4 << 30,
            retention: Retention::default(),
            retentions: Vec::new(),
            idempotence_max: 100_000,
            idempotence_window: Duration::from_secs(86_400),
            batch_max: 1000,
            batch_wait: Duration::ZERO,
            ring_bytes_max: 1 << 20,
            rings_bytes_max: 64 << 20,
            heartbeat: Duration::from_secs(20),
            sources_max: 256,
            direct_streams_max: 100,
            groups_max: 1000,
            pending_max: 100_000,
            deliveries_max: 5,
            min_idle: Duration::from_secs(30),
            redis_prefix: "tidegate".into(),
            redis_stream_prefix: "".into(),
            clock: Clock::System,
        }
    }
}

impl Config {
    /// Checks what no bus could work with.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the first bound that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason: &str| Err(Error::Invalid { field, reason: reason.into() });
        if self.event_bytes_max == 0 || self.event_bytes_max > 64 << 20 {
            return invalid("event_bytes_max", "1 byte to 64 MiB");
        }
        if !(1..=10_000).contains(&self.batch_max) {
            return invalid("batch_max", "1 to 10 000");
        }
        if self.batch_wait > Duration::from_secs(1) {
            return invalid("batch_wait", "at most 1 s");
        }
        if !(1..=SOURCES_MAX).contains(&self.sources_max) {
            return invalid("sources_max", "1 to 256");
        }
        if !(1..=1000).contains(&self.direct_streams_max) {
            return invalid("direct_streams_max", "1 to 1000");
        }
        if self.deliveries_max == 0 {
            return invalid("deliveries_max", "at least 1");
        }
        if self.heartbeat < Duration::from_millis(100) {
            return invalid("heartbeat", "at least 100 ms");
        }
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'.' | b'/');
        if !(1..=64).contains(&self.redis_prefix.len()) || !self.redis_prefix.as_bytes().iter().all(legal) {
            return invalid("redis_prefix", "1 to 64 characters of A-Z a-z 0-9 - _ : . /");
        }
        if self.redis_stream_prefix.len() > 64 || !self.redis_stream_prefix.as_bytes().iter().all(legal) {
            return invalid("redis_stream_prefix", "at most 64 characters of A-Z a-z 0-9 - _ : . /");
        }
        Ok(())
    }

    pub(crate) fn retention_of(&self, stream: &str) -> Retention {
        let own = self.retentions.iter().find(|(pattern, _)| pattern.matches(stream));
        own.map_or(self.retention, |(_, retention)| *retention)
    }
}
