//! Why not: [`Rejected`] answers a push, [`Error`] everything else.

use std::time::Duration;

use crate::{JobId, State};

/// Why a job was not accepted. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The queue holds as many jobs as it may.
    #[error("queue is full: {depth} of {capacity} jobs")]
    Full {
        /// Live jobs.
        depth: u64,
        /// The bound.
        capacity: u64,
        /// When to try again, from the recent rate of finished jobs.
        retry_after: Duration,
    },
    /// The queue holds as many bytes as it may.
    #[error("queue is full: {bytes} of {capacity} bytes")]
    FullBytes {
        /// Bytes of live jobs.
        bytes: u64,
        /// The bound.
        capacity: u64,
        /// When to try again.
        retry_after: Duration,
    },
    /// A value is out of its range.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which option.
        field: &'static str,
        /// What is accepted.
        reason: String,
    },
    /// It would expire before it may run.
    #[error("expires before it may run")]
    Expired,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a queue name.
    #[error("bad queue name {name:?}: 1 to 64 characters of A-Z a-z 0-9 _ . -")]
    BadQueueName {
        /// What was given, cut at 80 characters.
        name: String,
    },
    /// Not a job id.
    #[error("bad job id {id:?}")]
    BadJobId {
        /// What was given, cut at 100 characters.
        id: String,
    },
    /// Not a lease.
    #[error("bad lease {lease:?}")]
    BadLease {
        /// What was given, cut at 80 characters.
        lease: String,
    },
    /// No queue of that name.
    #[error("no queue named {name:?}")]
    QueueNotFound {
        /// The name.
        name: String,
    },
    /// No such job: never accepted, or its retention is over.
    #[error("no job {id}")]
    JobNotFound {
        /// The id.
        id: JobId,
    },
    /// The verb does not apply to a job in this state.
    #[error("job {id} is {state:?}, which does not allow {verb}")]
    Conflict {
        /// The job.
        id: JobId,
        /// Where it stands.
        state: State,
        /// What was asked.
        verb: &'static str,
    },
    /// The push was refused.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// An argument is out of its range.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which argument.
        field: &'static str,
        /// What is accepted.
        reason: String,
    },
    /// As many queues as there may be.
    #[error("there are already {capacity} queues")]
    TooManyQueues {
        /// The bound.
        capacity: usize,
    },
    /// The idempotency key was used for another submission.
    #[error("idempotency key was used for a different request")]
    IdempotencyMismatch,
    /// Nothing new is accepted because the process is stopping.
    #[error("draining")]
    Draining,
    /// A stored record could not be read; its place is named.
    #[error("damaged record of job {id}: {detail}")]
    Damaged {
        /// The job.
        id: JobId,
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
    /// Whether the same call may succeed later. One whose reply was lost may have been executed: a repeated push without
    /// an idempotency key may then push twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected(Rejected::Full { .. } | Rejected::FullBytes { .. }) | Self::Draining => true,
            Self::Store(error) => error.is_retryable(),
            Self::Redis(error) => error.is_retryable() || error.class() == tidegate_redis_ops::Class::Ambiguous,
            _ => false,
        }
    }
}
