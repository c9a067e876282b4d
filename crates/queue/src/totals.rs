//! Live jobs of all queues of a process together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Config, Rejected};

/// Live jobs and bytes of all queues together.
#[derive(Default)]
pub(crate) struct Totals {
    jobs: AtomicU64,
    bytes: AtomicU64,
}

impl Totals {
    pub(crate) fn change(&self, before: (u64, u64), after: (u64, u64)) {
        // Wrapping, so that a smaller `after` subtracts.
        self.jobs.fetch_add(after.0.wrapping_sub(before.0), Ordering::Relaxed);
        self.bytes.fetch_add(after.1.wrapping_sub(before.1), Ordering::Relaxed);
    }

    /// Why nothing more fits, if so. Calls at the same time may go over by what each of them brings.
    pub(crate) fn full(&self, config: &Config) -> Option<Rejected> {
        let (jobs, bytes) = (self.jobs.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let retry_after = Duration::from_secs(1);
        if jobs >= config.jobs_max {
            return Some(Rejected::Full { depth: jobs, capacity: config.jobs_max, retry_after });
        }
        (bytes >= config.bytes_max).then_some(Rejected::FullBytes { bytes, capacity: config.bytes_max, retry_after })
    }
}
