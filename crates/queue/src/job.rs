//! What goes in ([`NewJob`]) and what is known about it afterwards ([`Job`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{JobId, State, UnixMillis};

/// The wait before the next attempt: uniformly random in `0 ..= min(cap, base · 2^(attempt − 1))`, "full jitter"
/// (Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The upper end of the first wait.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

impl Default for Backoff {
    /// 1 s to 5 min: a blip is retried at once, an outage of an hour costs a dozen attempts.
    fn default() -> Self {
        Self { base: Duration::from_secs(1), cap: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// The longest wait after `attempt` (1 = the first) failed.
    #[must_use]
    pub fn ceiling(&self, attempt: u16) -> Duration {
        let doublings = u32::from(attempt.saturating_sub(1)).min(40);
        self.base.checked_mul(1 << doublings.min(31)).unwrap_or(self.cap).min(self.cap)
    }
}

/// A job to be submitted.
///
/// ```
/// use std::time::Duration;
/// use tidegate_queue::NewJob;
/// let job = NewJob::new("email", r#"{"to":"ada@example.org"}"#).priority(10).delay(Duration::from_secs(60));
/// assert_eq!(job.max_attempts, 4);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// What to do: selects the handler. 1 to 200 bytes.
    pub kind: Arc<str>,
    /// The argument, opaque to the queue and returned byte for byte.
    pub data: Bytes,
    /// 0 runs first, 255 last; 100 by default. Within a priority the job that waits longest runs first.
    pub priority: u8,
    /// Not before this instant; now by default.
    pub run_at: Option<UnixMillis>,
    /// Not before this long after its enqueue; the later of the two counts.
    pub delay: Duration,
    /// Discarded with reason `expired` when it has not started this long after its enqueue.
    pub expires_in: Option<Duration>,
    /// One attempt may take this long; 30 minutes by default.
    pub timeout: Duration,
    /// Attempts in all, the first included; 4 by default.
    pub max_attempts: u16,
    /// Wait between attempts.
    pub backoff: Backoff,
    /// Fairness key: jobs of one key share a lane with its own limit on running jobs. Up to 512 bytes.
    pub key: Option<Arc<str>>,
    /// While a job with this key is live (and within `dedup_window` of its enqueue), pushing another answers with
    /// the first. Up to 512 bytes.
    pub dedup_key: Option<Arc<str>>,
    /// How long `dedup_key` holds off others at most; unlimited by default.
    pub dedup_window: Option<Duration>,
    /// How long the finished record is kept; 24 h by default. Zero forgets it at once.
    pub retention: Duration,
}

impl NewJob {
    /// A job of this kind with default options.
    #[must_use]
    pub fn new(kind: impl Into<Arc<str>>, data: impl Into<Bytes>) -> Self {
        Self {
            kind: kind.into(),
            data: data.into(),
            priority: 100,
            run_at: None,
            delay: Duration::ZERO,
            expires_in: None,
            timeout: Duration::from_secs(1800),
            max_attempts: 4,
            backoff: Backoff::default(),
            key: None,
            dedup_key: None,
            dedup_window: None,
            retention: Duration::from_secs(86_400),
        }
    }

    /// Sets the priority, 0 first.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Waits this long before the job becomes available.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits until this instant before the job becomes available.
    #[must_use]
    pub fn run_at(mut self, at: UnixMillis) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Discards the job when it has not started this long after its enqueue.
    #[must_use]
    pub fn expires_in(mut self, after: Duration) -> Self {
        self.expires_in = Some(after);
        self
    }

    /// Keeps the finished job this long.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets the fairness key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Makes the job unique by this key while it is live.
    #[must_use]
    pub fn dedup_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.dedup_key = Some(key.into());
        self
    }

    /// Sets the number of attempts in all.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u16) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the waits between attempts.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.backoff = Backoff { base, cap };
        self
    }
}

/// Makes a submission repeatable: the same key within 24 h answers with the jobs of the first call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's name for this submission, up to 255 bytes.
    pub key: Arc<str>,
    /// A hash of the submission; the same key with another fingerprint is refused.
    pub fingerprint: u64,
}

/// The answer to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The job: the new one, or the live one it duplicates.
    pub id: JobId,
    /// Its state at the answer: `Available` or `Scheduled` when new.
    pub state: State,
    /// Whether a live job with the same `dedup_key` was found instead.
    pub duplicate: bool,
}

/// What is known about a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// What it does.
    pub kind: Arc<str>,
    /// The argument as submitted; `None` in lists when it is larger than 4 KiB.
    pub data: Option<Bytes>,
    /// Where it stands.
    pub state: State,
    /// A running job somebody asked to cancel.
    pub cancelling: bool,
    /// 0 first.
    pub priority: u8,
    /// Its fairness key.
    pub key: Option<Arc<str>>,
    /// Its dedup key.
    pub dedup_key: Option<Arc<str>>,
    /// Attempts started so far.
    pub attempt: u16,
    /// Attempts in all.
    pub max_attempts: u16,
    /// 0 to 1, as the running attempt last reported.
    pub progress: Option<f64>,
    /// The note that came with the progress.
    pub progress_note: Option<Arc<str>>,
    /// What the handler returned, byte for byte; `None` in lists when it is larger than 4 KiB.
    pub result: Option<Bytes>,
    /// Why the last attempt failed.
    pub error: Option<Arc<str>>,
    /// When it was accepted.
    pub created_at: UnixMillis,
    /// When it will become available, for `Scheduled` and `Retryable`.
    pub run_at: Option<UnixMillis>,
    /// When it is discarded if it has not started.
    pub expires_at: Option<UnixMillis>,
    /// When the latest attempt started.
    pub started_at: Option<UnixMillis>,
    /// When it finished.
    pub finished_at: Option<UnixMillis>,
    /// One attempt may take this long.
    pub timeout: Duration,
}

/// Which jobs to list. Pages follow the order of submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in this state; `None` lists all states.
    pub state: Option<State>,
    /// Only jobs of this kind.
    pub kind: Option<Arc<str>>,
    /// Only jobs of this fairness key.
    pub key: Option<Arc<str>>,
    /// Start after this place, the `next` of the previous page.
    pub after: Option<u64>,
    /// At most this many, 1 to 1000; 100 by default.
    pub limit: usize,
}

impl Default for JobFilter {
    fn default() -> Self {
        Self { state: None, kind: None, key: None, after: None, limit: 100 }
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobPage {
    /// The jobs; may be fewer than the limit (even none) although `next` is set, when a filter passed over many.
    pub jobs: Vec<Job>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<u64>,
}
