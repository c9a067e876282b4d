//! Time as the queue sees it: milliseconds since 1970, read from a clock that tests can hold still.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An instant in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Later than anything that happens.
    pub const NEVER: Self = Self(i64::MAX);

    /// This instant plus `duration`, or [`NEVER`](Self::NEVER) when that is out of range.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Where a queue reads the time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's wall clock without its steps: when somebody sets the clock, leases and delays in progress keep
    /// their length to within a tenth, and what this shows draws level with the wall clock bit by bit.
    #[default]
    System,
    /// A clock that stands still until it is moved; for tests.
    Manual(ManualClock),
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => {
                static STEADY: OnceLock<Mutex<Steady>> = OnceLock::new();
                let steady = STEADY.get_or_init(|| Mutex::new(Steady { at: Instant::now(), shows: wall() }));
                // A panic leaves at worst a reading that is not the newest.
                UnixMillis(
                    steady.lock().unwrap_or_else(PoisonError::into_inner).read(Instant::now(), wall()) / 1_000_000,
                )
            }
            Self::Manual(clock) => clock.now(),
        }
    }
}

/// Nanoseconds since 1970 by the wall clock.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A clock that goes as the monotonic one does and follows the wall clock at a tenth of its pace.
#[derive(Debug)]
struct Steady {
    at: Instant,
    /// What it showed then, in nanoseconds.
    shows: i64,
}

impl Steady {
    fn read(&mut self, at: Instant, wall: i64) -> i64 {
        let passed = i64::try_from(at.saturating_duration_since(self.at).as_nanos()).unwrap_or(i64::MAX / 2);
        let shows = self.shows.saturating_add(passed);
        let behind = wall.saturating_sub(shows).clamp(-passed / 10, passed / 10);
        self.at = self.at.max(at);
        self.shows = shows.saturating_add(behind);
        self.shows
    }
}

/// A clock moved by hand; clones share the hand.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: UnixMillis) -> Self {
        Self(Arc::new(AtomicI64::new(start.0)))
    }

    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_set_clock_neither_jumps_nor_stands_still_and_draws_level() {
        let start = Instant::now();
        for step in [-3600, 3600] {
            let mut steady = Steady { at: start, shows: 1000 * SECOND };
            let after = |seconds: u64| start + Duration::from_secs(seconds);
            let wall = |seconds: i64| (1000 + seconds + step) * SECOND;
            let tenth = SECOND * step.signum() / 10;
            assert_eq!(steady.read(after(10), wall(10)), 1010 * SECOND + 10 * tenth);
            assert_eq!(steady.read(after(10), wall(10)), 1010 * SECOND + 10 * tenth, "read twice, it shows the same");
            assert_eq!(steady.read(after(40_000), wall(40_000)), wall(40_000), "level after ten times the step");
            assert_eq!(steady.read(after(40_001), wall(40_001)), wall(40_001));
        }
    }
}
