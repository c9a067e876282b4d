//! The exclusive, expiring right to run a job, and the verbs that end it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Error, JobId, UnixMillis};

/// A fencing token: names the queue, the job and the grant, a number that is never used twice, not even after a crash.
///
/// Only the lease of the running attempt is honoured; any other is answered [`Outcome::Stale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    /// Jobs of other queues have the same numbers.
    pub(crate) queue: u32,
    pub(crate) number: u64,
    pub(crate) grant: u64,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:x}", self.queue, self.number, self.grant)
    }
}

impl FromStr for Lease {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadLease { lease: text.chars().take(80).collect() };
        let hex = |part: &str| {
            let digits = part.bytes().all(|b| b.is_ascii_hexdigit());
            u64::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(bad)
        };
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or_else(bad).and_then(hex);
        let (queue, number, grant) = (next()?, next()?, next()?);
        let queue = u32::try_from(queue).map_err(|_| bad())?;
        if parts.next().is_some() { Err(bad()) } else { Ok(Self { queue, number, grant }) }
    }
}

/// Who claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// A name for people, 1 to 200 bytes; unique per start of the worker.
    pub name: Arc<str>,
    /// Whether it lives in the process that owns the embedded store: its leases are void after a restart, so they
    /// are rescued at once instead of after their expiry.
    pub local: bool,
}

impl Worker {
    /// A worker in another process.
    #[must_use]
    pub fn remote(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), local: false }
    }

    /// A worker in this process.
    #[must_use]
    pub fn local(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), local: true }
    }
}

/// A request for jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who asks.
    pub worker: Worker,
    /// At most this many, 1 to 1000; fewer when their payloads come to more than 32 MiB.
    pub limit: usize,
    /// How long to wait for the first one; zero answers at once.
    pub wait: Duration,
}

/// A job that is yours until the lease expires.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Fences every later call.
    pub lease: Lease,
    /// The job.
    pub id: JobId,
    /// What to do.
    pub kind: Arc<str>,
    /// The argument, byte for byte as submitted.
    pub data: Bytes,
    /// Fairness key.
    pub key: Option<Arc<str>>,
    /// 1 for the first attempt.
    pub attempt: u16,
    /// Attempts in all.
    pub max_attempts: u16,
    /// 0 first.
    pub priority: u8,
    /// When this attempt times out.
    pub deadline_at: UnixMillis,
}

/// What to do with a job that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Again after its backoff, while attempts are left.
    Backoff,
    /// Again after exactly this long, while attempts are left.
    In(Duration),
    /// Never: to the dead letter set.
    Never,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// Done.
    Complete {
        /// The attempt.
        lease: Lease,
        /// What it returned, kept byte for byte.
        result: Option<Bytes>,
    },
    /// Failed.
    Fail {
        /// The attempt.
        lease: Lease,
        /// Why, for people; kept up to 8 KiB.
        error: Arc<str>,
        /// What next.
        retry: Retry,
    },
    /// Not started after all: back to the front of its queue, the attempt not counted.
    Release {
        /// The attempt.
        lease: Lease,
    },
}

impl Finish {
    /// The lease it ends.
    #[must_use]
    pub fn lease(&self) -> Lease {
        match self {
            Self::Complete { lease, .. } | Self::Fail { lease, .. } | Self::Release { lease } => *lease,
        }
    }
}

/// The answer to a fenced call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted, and as durable as the store's mode promises.
    Ok,
    /// The lease is not (or no longer) the running attempt's; nothing was changed.
    Stale,
}

/// A report from a running attempt. Not durable: a restart forgets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The attempt.
    pub lease: Lease,
    /// 0 to 1; clamped.
    pub progress: f64,
    /// A note for people, up to 1 KiB.
    pub note: Option<Arc<str>>,
}

/// The answer to a beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// How long the renewed leases last from now.
    pub lease: Duration,
    /// Leases whose job was cancelled or is past its deadline: stop working on them.
    pub cancelled: Vec<Lease>,
    /// Leases that are not yours (any more).
    pub stale: Vec<Lease>,
    /// Whether the queue is paused.
    pub paused: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_its_text_and_nothing_else_is_one() {
        let lease = Lease { queue: 7, number: 1 << 40, grant: u64::MAX };
        assert_eq!(lease.to_string().parse::<Lease>().unwrap(), lease);
        for bad in ["", "1", "1.2", "1.2.3.4", "1..3", "+1.2.3", "1.2.g", "100000000.1.1", "1.1.10000000000000000"] {
            assert!(bad.parse::<Lease>().is_err(), "{bad}");
        }
    }
}
