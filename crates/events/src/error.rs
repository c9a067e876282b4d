//! Why not.

use std::time::Duration;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a stream's name.
    #[error("bad stream name {name:?}: 1 to 200 characters of A-Z a-z 0-9 _ . : / -")]
    BadStreamName {
        /// What was given, cut at 80 characters.
        name: String,
    },
    /// The name belongs to Tidegate's own keys on Redis.
    #[error("stream name {name:?} is reserved: names that begin with {prefix:?} are Tidegate's own")]
    ReservedName {
        /// What was given.
        name: String,
        /// What reserved names begin with.
        prefix: String,
    },
    /// Not a group's name.
    #[error("bad group name {name:?}: 1 to 64 characters of A-Z a-z 0-9 _ . -")]
    BadGroupName {
        /// What was given, cut at 80 characters.
        name: String,
    },
    /// Not an event's id.
    #[error("bad event id {id:?}: milliseconds, or milliseconds-number")]
    BadEventId {
        /// What was given, cut at 80 characters.
        id: String,
    },
    /// Not a place to resume from.
    #[error("bad cursor {cursor:?}: the id of an event, or name=id;name=id as this server sent it")]
    BadCursor {
        /// What was given, cut at 80 characters.
        cursor: String,
    },
    /// Not a pattern.
    #[error("bad pattern {pattern:?}: segments between dots, * for one, ** for any number")]
    BadPattern {
        /// What was given, cut at 80 characters.
        pattern: String,
    },
    /// An argument is out of its range.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which argument.
        field: &'static str,
        /// What is accepted.
        reason: String,
    },
    /// There is no such stream.
    #[error("no stream named {name:?}")]
    StreamNotFound {
        /// The name.
        name: String,
    },
    /// A key of this name on Redis is no stream.
    #[error("key {name:?} on Redis holds something else than a stream")]
    NotAStream {
        /// The name.
        name: String,
    },
    /// There is no such group on the stream.
    #[error("no group named {group:?} on stream {stream:?}")]
    GroupNotFound {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// As many streams, groups or listeners as there may be.
    #[error("there are already {capacity} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        capacity: usize,
    },
    /// The streams hold as many bytes as they may.
    #[error("streams are full: {bytes} of {capacity} bytes")]
    Full {
        /// Bytes kept.
        bytes: u64,
        /// The bound.
        capacity: u64,
        /// When to try again.
        retry_after: Duration,
    },
    /// The process is stopping.
    #[error("draining")]
    Draining,
    /// A stored record could not be read; its place is named.
    #[error("damaged record of stream {stream}: {detail}")]
    Damaged {
        /// Where.
        stream: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The store failed or has no room.
    #[error("store: {0}")]
    Store(#[from] tidegate_store::Error),
    /// Redis failed, refused or could not be reached; its class says whether the call may have been executed.
    #[error("Redis: {0}")]
    Redis(#[from] tidegate_redis_ops::Error),
}

impl Error {
    /// Whether the same call may succeed later. A publish whose reply was lost may have been executed; with an idempotence
    /// id it can be repeated without harm.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Draining => true,
            Self::Store(error) => error.is_retryable(),
            Self::Redis(error) => error.is_retryable() || error.class() == tidegate_redis_ops::Class::Ambiguous,
            _ => false,
        }
    }
}
