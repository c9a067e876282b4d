//! What a timer recorded recently: made by the reader, from differences of snapshots. No timer ticks for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::packed::Packed;
use crate::snapshot::Snapshot;
use crate::timer::Timer;

/// Cuts per span. 2: windows of 10 s, 1 min and 5 min and their busy series fit into 20 KB; 4 would need 24.
const CUTS: u32 = 2;

/// The last 10 seconds, minute, … of one timer.
///
/// Each [`Window::read`] looks back at least the span, once the window is that old, and at most half of the span
/// further if it is read at least that often. Read less often it covers the time since an earlier reading;
/// [`Recent::covered`] always tells. Recording knows nothing of windows and costs the same with any number of them.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use tidegate_metrics::{Registry, Window};
/// let timer = Registry::new().timer("job_run_seconds", "Time in handlers.");
/// let opened = Instant::now();
/// let mut minute = Window::new(&timer, Duration::from_secs(60), opened);
/// timer.record(Duration::from_millis(3));
/// let recent = minute.read(opened + Duration::from_secs(10));
/// assert_eq!((recent.distribution.count(), recent.rate()), (1, 0.1));
/// ```
#[derive(Debug)]
pub struct Window {
    timer: Timer,
    span: Duration,
    /// Everything up to the last cut; what the timer has beyond it is fresh.
    latest: Packed,
    latest_at: Instant,
    /// What was recorded before each earlier cut, oldest first. At most [`CUTS`] + 1.
    slices: VecDeque<Slice>,
}

#[derive(Debug)]
struct Slice {
    from: Instant,
    recorded: Packed,
}

/// One reading of a [`Window`].
#[derive(Clone, Debug)]
pub struct Recent {
    /// How far the reading looks back.
    pub covered: Duration,
    /// What was recorded in that time.
    pub distribution: Snapshot,
}

impl Recent {
    /// Recordings per second; zero for an instant.
    pub fn rate(&self) -> f64 {
        let seconds = self.covered.as_secs_f64();
        if seconds > 0.0 { self.distribution.count() as f64 / seconds } else { 0.0 }
    }
}

impl Window {
    /// A window that starts empty at `now` and grows to `span`.
    pub fn new(timer: &Timer, span: Duration, now: Instant) -> Self {
        let latest = Packed::new(&timer.snapshot());
        Self { timer: timer.clone(), span, latest, latest_at: now, slices: VecDeque::new() }
    }

    /// What was recorded within the span before `now`. Cost: one snapshot and at most three merges.
    pub fn read(&mut self, now: Instant) -> Recent {
        let current = self.timer.snapshot();
        let fresh = current.since(&self.latest.unpack());
        self.forget(now);
        let distribution = self.slices.iter().fold(fresh.clone(), |sum, slice| sum.merge(&slice.recorded.unpack()));
        let from = self.slices.front().map_or(self.latest_at, |slice| slice.from);
        if now.saturating_duration_since(self.latest_at) >= self.span / CUTS {
            self.slices.push_back(Slice { from: self.latest_at, recorded: Packed::new(&fresh) });
            self.latest = Packed::new(&current);
            self.latest_at = now;
        }
        Recent { covered: now.saturating_duration_since(from), distribution }
    }

    /// Heap and inline bytes this window holds, beside its timer.
    pub fn memory_bytes(&self) -> usize {
        let slices: usize = self.slices.iter().map(|slice| slice.recorded.heap_bytes()).sum();
        size_of::<Self>() + self.latest.heap_bytes() + self.slices.capacity() * size_of::<Slice>() + slices
    }

    /// Drops slices without which the rest still covers the span.
    fn forget(&mut self, now: Instant) {
        let Some(horizon) = now.checked_sub(self.span) else { return };
        while !self.slices.is_empty() {
            let next = self.slices.get(1).map_or(self.latest_at, |slice| slice.from);
            if next > horizon {
                return;
            }
            self.slices.pop_front();
        }
    }
}
