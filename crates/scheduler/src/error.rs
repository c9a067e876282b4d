//! Why the scheduler could not be built or a schedule not be taken. What a handler says is a
//! [`HandlerError`](crate::HandlerError).

use std::sync::Arc;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two handlers for one kind.
    #[error("kind {kind:?} has two handlers")]
    DuplicateKind {
        /// The kind.
        kind: Arc<str>,
    },
    /// A bound or an argument is out of its range.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is accepted.
        reason: &'static str,
    },
    /// Not a cron expression, or one that never fires.
    #[error("bad cron expression {expression:?}: {reason}")]
    BadCron {
        /// What was given, cut at 200 characters.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a time zone of the IANA database.
    #[error("unknown time zone {name:?}")]
    BadTimezone {
        /// What was given, cut at 100 characters.
        name: String,
    },
    /// As many schedules as there may be.
    #[error("there are already {capacity} schedules")]
    TooManySchedules {
        /// The bound.
        capacity: usize,
    },
    /// A thread could not be started.
    #[error("failed to start a thread: {reason}")]
    Thread {
        /// What the system said.
        reason: String,
    },
    /// The queue refused.
    #[error(transparent)]
    Queue(#[from] tidegate_queue::Error),
}
