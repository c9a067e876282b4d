//! Requests per second: a leaky bucket in one atomic number (GCRA), no lock, no timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A second's worth of requests may come at once, as they do after a pause.
const BURST_NS: u64 = 1_000_000_000;

/// A limit on how fast requests are taken.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    /// When the bucket will be empty, in nanoseconds since the start.
    empty_at_ns: AtomicU64,
}

impl Rate {
    /// 0 for no limit.
    pub(crate) fn new(per_second: u64) -> Self {
        Self { per_second, empty_at_ns: AtomicU64::new(0) }
    }

    pub(crate) fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Takes one request at `now` since the start, or says how long to wait.
    pub(crate) fn admit(&self, now: Duration) -> Result<(), Duration> {
        let Some(cost) = 1_000_000_000_u64.checked_div(self.per_second) else { return Ok(()) };
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let full = now + BURST_NS;
        let poured = |empty_at: u64| Some(empty_at.max(now) + cost).filter(|after| *after <= full);
        match self.empty_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, poured) {
            Ok(_) => Ok(()),
            Err(empty_at) => Err(Duration::from_nanos(empty_at + cost - full)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_a_second_passes_and_then_one_per_interval() {
        let rate = Rate::new(10);
        let now = Duration::from_secs(5);
        assert!((0..10).all(|_| rate.admit(now).is_ok()));
        assert_eq!(rate.admit(now), Err(Duration::from_millis(100)));
        assert!(rate.admit(now + Duration::from_millis(100)).is_ok());
        assert!(rate.admit(now + Duration::from_millis(150)).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let rate = Rate::new(0);
        assert!((0..10_000).all(|_| rate.admit(Duration::ZERO).is_ok()));
    }
}
