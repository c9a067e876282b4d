//! What clients saw, in the order they saw it: the only evidence the checker accepts.
//!
//! A request is recorded before its first byte leaves and its answer after the last byte came, so that "A was answered
//! before B was sent" in the history means the same in the world.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time since the history began.
pub type Stamp = Duration;

/// Something a client did or learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job is about to be submitted; `op` is the submitter's own number for it, which also travels in its data.
    SubmitSent {
        /// Number of the submission; a repetition under the same idempotency key keeps it.
        op: u64,
        /// Its dedup key.
        dedup: Option<String>,
    },
    /// The submission was acknowledged.
    SubmitAccepted {
        /// Number of the submission.
        op: u64,
        /// The id it got.
        job: String,
        /// Whether it was answered with an existing job.
        duplicate: bool,
    },
    /// The submission was refused; it must not exist.
    SubmitRefused {
        /// Number of the submission.
        op: u64,
    },
    /// Its answer was lost: it may or may not exist.
    SubmitUnknown {
        /// Number of the submission.
        op: u64,
    },
    /// A worker received a job.
    Claimed {
        /// Which start of the server handed it out.
        boot: u32,
        /// When the claim was sent: the lease cannot be older.
        sent: Stamp,
        /// Lifetime of the lease as answered.
        lease_ms: u64,
        /// The lease.
        lease: String,
        /// The job.
        job: String,
        /// The submission it came from, read from its data.
        op: u64,
    },
    /// A beat for the lease, sent then, was answered without calling it stale.
    Renewed {
        /// The lease.
        lease: String,
        /// When the beat was sent.
        sent: Stamp,
    },
    /// A worker is about to end its work on a lease.
    FinishSent {
        /// The lease.
        lease: String,
        /// How.
        finish: Finish,
    },
    /// The answer to that.
    FinishAnswered {
        /// The lease.
        lease: String,
        /// The answer.
        answer: Answer,
    },
    /// The server is about to be killed, and with it what it alone knew: leases and jobs not yet durable.
    Killed {
        /// Which start of it.
        boot: u32,
    },
    /// One of several servers on one Redis is about to be killed. Nothing ends with it: leases are good at all of them.
    ServerKilled {
        /// Which server.
        server: usize,
    },
    /// The Redis that holds the queue is about to be killed.
    RedisKilled,
    /// It answers again, or another one in its place.
    RedisBack,
    /// Whatever was acknowledged before is on the replica too, which therefore knows it after a failover.
    Replicated {
        /// Before.
        since: Stamp,
    },
    /// How the job stands after everything.
    Final {
        /// The job.
        job: String,
        /// Its status.
        status: String,
        /// Its result as text.
        result: Option<String>,
    },
}

/// How a worker ends its work on a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Done, with this result.
    Complete(String),
    /// Failed, to be tried again.
    Retry,
    /// Failed for good.
    Discard,
    /// Handed back unstarted.
    Release,
}

impl Finish {
    /// Whether the job ends by it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Complete(_) | Self::Discard)
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Accepted,
    /// Refused: the lease is no longer the job's.
    Stale,
    /// The answer was lost.
    Unknown,
}

/// Events with the time they were recorded, in that order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The events.
    pub events: Vec<(Stamp, Event)>,
}

impl History {
    /// The events that concern these jobs, and all kills: the evidence of a violation.
    #[must_use]
    pub fn about(&self, jobs: &[&str]) -> Vec<&(Stamp, Event)> {
        let mut leases = HashSet::new();
        let mut ops = HashSet::new();
        for (_, event) in &self.events {
            match event {
                Event::Claimed { job, lease, op, .. } if jobs.contains(&job.as_str()) => {
                    leases.insert(lease);
                    ops.insert(op);
                }
                Event::SubmitAccepted { job, op, .. } if jobs.contains(&job.as_str()) => _ = ops.insert(op),
                _ => {}
            }
        }
        let concerns = |event: &Event| match event {
            Event::SubmitSent { op, .. }
            | Event::SubmitAccepted { op, .. }
            | Event::SubmitRefused { op }
            | Event::SubmitUnknown { op } => ops.contains(op),
            Event::Claimed { job, .. } | Event::Final { job, .. } => jobs.contains(&job.as_str()),
            Event::Renewed { lease, .. } | Event::FinishSent { lease, .. } | Event::FinishAnswered { lease, .. } => {
                leases.contains(lease)
            }
            Event::Killed { .. }
            | Event::ServerKilled { .. }
            | Event::RedisKilled
            | Event::RedisBack
            | Event::Replicated { .. } => true,
        };
        self.events.iter().filter(|(_, event)| concerns(event)).collect()
    }

    /// Appends an event one millisecond after the last one, for histories made by hand.
    #[must_use]
    pub fn then(mut self, event: Event) -> Self {
        let last = self.events.last().map_or(Stamp::ZERO, |(at, _)| *at);
        self.events.push((last + Duration::from_millis(1), event));
        self
    }
}

/// Collects events from many tasks. Clones write to the same history.
#[derive(Clone, Debug)]
pub struct Recorder {
    began: Instant,
    /// Locked for a push; the time is taken inside, so that stamps never run backwards.
    history: Arc<Mutex<History>>,
}

impl Recorder {
    /// An empty history that begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self { began: Instant::now(), history: Arc::default() }
    }

    /// The time as the history counts it.
    #[must_use]
    pub fn now(&self) -> Stamp {
        self.began.elapsed()
    }

    /// Appends one event.
    ///
    /// # Panics
    /// Never in practice: nobody panics while holding the lock.
    pub fn record(&self, event: Event) {
        let mut history = self.history.lock().expect("never poisoned");
        history.events.push((self.began.elapsed(), event));
    }

    /// Puts a history back that was taken out to be looked at.
    ///
    /// # Panics
    /// Never in practice: nobody panics while holding the lock.
    pub(crate) fn resume(&self, earlier: History) {
        let mut history = self.history.lock().expect("never poisoned");
        let later = std::mem::replace(&mut *history, earlier);
        history.events.extend(later.events);
    }

    /// Takes the history out.
    ///
    /// # Panics
    /// Never in practice: nobody panics while holding the lock.
    #[must_use]
    pub fn finish(&self) -> History {
        std::mem::take(&mut *self.history.lock().expect("never poisoned"))
    }
}
