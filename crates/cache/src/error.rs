//! Why not.

use std::sync::Arc;
use std::time::Duration;

/// What loaders and codecs may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed. Every message finishes the phrase "failed to …".
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of its range.
    #[error("use {field}: {reason}")]
    Invalid {
        /// Which argument.
        field: &'static str,
        /// What is accepted.
        reason: String,
    },
    /// The value is larger than a value may be.
    #[error("keep a value of {bytes} bytes: at most {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The value could not be written as bytes.
    #[error("encode the value: {0}")]
    Encode(crate::CodecError),
    /// What lies on Redis is no value of this cache.
    #[error("decode the value: {0}")]
    Decode(crate::CodecError),
    /// The loader failed; every caller that waited for it gets the same.
    #[error("load the value: {0}")]
    Load(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The loader took longer than it may.
    #[error("load the value within {0:?}")]
    LoadTimeout(Duration),
    /// The loader panicked.
    #[error("load the value: the loader panicked")]
    LoadPanicked,
    /// Too many loads run and wait already.
    #[error("load the value: {waiting} loads run or wait already")]
    Overloaded {
        /// How many.
        waiting: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// Redis did not do it, or nobody knows whether it did: see its class.
    #[error("{0}")]
    Redis(#[source] tidegate_redis_ops::Error),
    /// The write came to Redis when its time was over, and was not done.
    #[error("write in time")]
    Late,
    /// The cache is closed.
    #[error("use a cache that is closed")]
    Closed,
}

impl From<tidegate_redis_ops::Error> for Error {
    fn from(error: tidegate_redis_ops::Error) -> Self {
        match error.code() {
            "CLOSED" => Self::Closed,
            _ => Self::Redis(error),
        }
    }
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Load(_) | Self::LoadTimeout(_) | Self::Late | Self::Overloaded { .. } => true,
            Self::Redis(error) => error.is_retryable() || error.class() == tidegate_redis_ops::Class::Ambiguous,
            _ => false,
        }
    }

    /// When to ask again, where that makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Overloaded { retry_after, .. } => *retry_after,
            Self::Redis(error) => error.retry_after(),
            _ => Duration::ZERO,
        }
    }
}
