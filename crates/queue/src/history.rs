//! The log of what happened to the jobs of a queue: append-only, bounded by length and age, readable from any place.

use std::sync::Arc;

use crate::{JobId, UnixMillis};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Accepted; `Scheduled` or `Available`.
    Enqueued,
    /// Its time came.
    Promoted,
    /// A worker took it.
    Claimed,
    /// A running attempt reported (only to subscribers, never in the stored log).
    Progress {
        /// 0 to 1.
        progress: f64,
        /// For people.
        note: Option<Arc<str>>,
    },
    /// Done.
    Completed,
    /// An attempt failed and another will follow.
    Retrying,
    /// The lease expired or was lost in a restart; the job is available again.
    Rescued,
    /// The worker gave it back unstarted.
    Released,
    /// Somebody asked to cancel it while it runs.
    CancelRequested,
    /// Called off.
    Cancelled,
    /// To the dead letter set.
    Discarded,
    /// Put back by hand.
    Retried,
    /// Its record was deleted, by retention or purge.
    Pruned,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Its place: strictly increasing within a queue. Zero for entries that are only broadcast.
    pub place: u64,
    /// When.
    pub at: UnixMillis,
    /// Which job.
    pub id: JobId,
    /// The attempt it concerns; 0 before the first.
    pub attempt: u16,
    /// What happened.
    pub change: Change,
}
