//! Why there is no connection.

use std::time::Duration;

use crate::error::Error;

/// Why the pool gave no connection. Every message finishes the phrase "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// All were in use all the time.
    #[error("get a blocking connection: all {max} were in use for {waited:?}")]
    Exhausted {
        /// Connections the pool may have.
        max: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// The pool was closed.
    #[error("get a blocking connection: the pool was closed")]
    Closed,
    /// None could be opened.
    #[error(transparent)]
    Redis(#[from] Error),
}

impl PoolError {
    /// Whether asking again later can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Exhausted { .. } => true,
            Self::Closed => false,
            Self::Redis(error) => error.is_retryable(),
        }
    }
}
