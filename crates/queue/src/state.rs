//! The states of a job and the one table of moves between them.

/// Where a job stands. The first four are *live*, the last three *finished*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Waits for its `run_at`.
    Scheduled = 0,
    /// May be claimed now.
    Available = 1,
    /// Leased to a worker.
    Running = 2,
    /// Failed, waits for its next attempt.
    Retryable = 3,
    /// Done.
    Completed = 4,
    /// Called off before it was done.
    Cancelled = 5,
    /// Out of attempts, failed for good, expired or shed: the dead letter set.
    Discarded = 6,
}

impl State {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Available,
        Self::Running,
        Self::Retryable,
        Self::Completed,
        Self::Cancelled,
        Self::Discarded,
    ];

    /// Whether nothing more will happen to the job by itself.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Discarded)
    }

    /// Whether the table allows the move from this state to `next`.
    ///
    /// ```
    /// use tidegate_queue::State;
    /// assert!(State::Running.can_become(State::Completed));
    /// assert!(!State::Completed.can_become(State::Running));
    /// ```
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        use State::{Available, Cancelled, Completed, Discarded, Retryable, Running, Scheduled};
        match self {
            // Promoted; cancelled; expired.
            Scheduled | Retryable => matches!(next, Available | Cancelled | Discarded),
            // Claimed; cancelled; expired or shed.
            Available => matches!(next, Running | Cancelled | Discarded),
            // Completed; failed (again later, or for good); rescued or released; cancelled.
            Running => matches!(next, Completed | Retryable | Available | Cancelled | Discarded),
            // Retried by hand.
            Cancelled | Discarded => matches!(next, Available),
            Completed => false,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}
