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
    /// The system's wall clock. When somebody sets it, or the machine was suspended, leases and deadlines in progress
    /// move along and keep their length; all other times are the wall clock's.
    #[default]
    System,
    /// A clock that stands still until it is moved; for tests.
    Manual(ManualClock),
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.read().0
    }

    /// The time now, and the sum of all steps so far in milliseconds: how much further the clock has come than time
    /// has passed.
    pub(crate) fn read(&self) -> (UnixMillis, i64) {
        match self {
            Self::System => {
                static WALL: OnceLock<Mutex<Wall>> = OnceLock::new();
                let wall = WALL.get_or_init(|| Mutex::new(Wall { at: Instant::now(), showed: wall(), steps: 0 }));
                // A panic leaves at worst a reading that is not the newest.
                wall.lock().unwrap_or_else(PoisonError::into_inner).read(Instant::now(), self::wall())
            }
            Self::Manual(clock) => (clock.now(), clock.0.1.load(Ordering::SeqCst)),
        }
    }
}

/// Nanoseconds since 1970 by the wall clock.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The wall clock beside the monotonic one.
#[derive(Debug)]
struct Wall {
    at: Instant,
    /// What the wall clock showed then, in nanoseconds.
    showed: i64,
    steps: i64,
}

impl Wall {
    /// A larger difference is a step, a smaller one the clock being slewed. 250 ms: far above what slewing makes
    /// between two readings of a server at work, far below a lease.
    const STEP: i64 = 250_000_000;

    fn read(&mut self, at: Instant, wall: i64) -> (UnixMillis, i64) {
        let passed = i64::try_from(at.saturating_duration_since(self.at).as_nanos()).unwrap_or(i64::MAX);
        let step = wall.saturating_sub(self.showed.saturating_add(passed));
        if step.abs() > Self::STEP {
            self.steps = self.steps.saturating_add(step / 1_000_000);
        }
        (self.at, self.showed) = (self.at.max(at), wall);
        (UnixMillis(wall / 1_000_000), self.steps)
    }
}

/// A clock moved by hand; clones share the hand.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<(AtomicI64, AtomicI64)>);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: UnixMillis) -> Self {
        Self(Arc::new((AtomicI64::new(start.0), AtomicI64::new(0))))
    }

    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.0.0.load(Ordering::SeqCst))
    }

    /// Moves it forward, as time does.
    pub fn advance(&self, by: Duration) {
        self.0.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
    }

    /// Sets it forward or back without time passing, as somebody with a wrong watch does.
    pub fn step(&self, by_ms: i64) {
        self.0.0.fetch_add(by_ms, Ordering::SeqCst);
        self.0.1.fetch_add(by_ms, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_is_told_from_one_that_is_slewed() {
        const SECOND: i64 = 1_000_000_000;
        let start = Instant::now();
        let mut wall = Wall { at: start, showed: 1000 * SECOND, steps: 0 };
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(wall.read(after(10), 1010 * SECOND + SECOND / 10), (UnixMillis(1_010_100), 0));
        assert_eq!(wall.read(after(20), 4620 * SECOND + SECOND / 10), (UnixMillis(4_620_100), 3_600_000));
        assert_eq!(wall.read(after(30), 1030 * SECOND + SECOND / 10), (UnixMillis(1_030_100), 0));
    }
}
