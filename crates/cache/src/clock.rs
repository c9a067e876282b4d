//! The time a cache reads: milliseconds that only go forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where to read the time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The clock of the machine, as coarse as its timer (4 ms on most): a finer one costs more than a hit.
    #[default]
    System,
    /// A clock that stands until it is told, for tests.
    Manual(ManualClock),
}

/// A clock that stands until it is told.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock {
    /// Milliseconds since an instant that stays the same while the process lives.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match self {
            Self::System => system_now(),
            Self::Manual(clock) => clock.0.load(Ordering::SeqCst),
        }
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn system_now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    // Neither part is ever negative on this clock.
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(not(target_os = "linux"))]
fn system_now() -> u64 {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    millis(START.elapsed())
}

/// A duration in whole milliseconds, as long as there are.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
