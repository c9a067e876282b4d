//! When requests are due: a fixed rate that nobody's slowness bends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Hands out the moments at which requests are due, each once, to any number of threads.
pub(super) struct Schedule {
    start: Instant,
    rate: f64,
    total: u64,
    next: AtomicU64,
}

impl Schedule {
    /// `total` moments, `rate` per second, the first being `start`.
    pub(super) fn new(start: Instant, rate: f64, total: u64) -> Self {
        Self { start, rate, total, next: AtomicU64::new(0) }
    }

    /// The next request and when it is due, which may be past; `None` after the last.
    pub(super) fn take(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.total).then(|| (number, self.due(number)))
    }

    /// When a request should leave. It does not depend on when any other left.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// Returns at `moment`, at once when it is past.
pub(super) fn wait_until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_due_by_the_rate_however_late_they_are_taken() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 4.0, 5);
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take()).collect();
        let expected: Vec<_> = (0..5).map(|number| (number, start + Duration::from_millis(250 * number))).collect();
        assert_eq!(taken, expected);
        assert_eq!(schedule.take(), None);
    }

    #[test]
    fn waiting_ends_no_sooner_than_the_moment() {
        let moment = Instant::now() + Duration::from_millis(2);
        wait_until(moment);
        assert!(Instant::now() >= moment);
    }
}
