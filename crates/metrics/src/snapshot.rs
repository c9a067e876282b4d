//! A distribution as it was at one moment: read from a timer, subtracted, merged, asked for quantiles.

use std::time::Duration;

use crate::buckets;

/// What a timer had recorded when it was read, or between two readings.
///
/// Quantiles are nearest-rank and within 1 % of the sample of that rank. Count, sum, minimum and maximum are exact,
/// except the minimum and maximum after [`Snapshot::since`]. Holds 16 bytes per bucket that was ever touched, a few
/// hundred for most operations and never more than 2880.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Touched buckets and their counts, ascending, none zero.
    pub(crate) counts: Vec<(u16, u64)>,
    pub(crate) count: u64,
    /// Nanoseconds, as the next two.
    pub(crate) sum: u128,
    /// `u64::MAX` while empty.
    pub(crate) min: u64,
    /// 0 while empty.
    pub(crate) max: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { counts: Vec::new(), count: 0, sum: 0, min: u64::MAX, max: 0, failed: 0, cancelled: 0 }
    }
}

impl Snapshot {
    /// Recordings of every outcome.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Recordings that ended in failure.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Recordings that ended without an outcome.
    pub fn cancelled(&self) -> u64 {
        self.cancelled
    }

    /// All recorded durations together.
    pub fn total(&self) -> Duration {
        duration(self.sum)
    }

    /// The shortest recording; zero when there is none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(if self.count == 0 { 0 } else { self.min })
    }

    /// The longest recording; zero when there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The mean; zero when there is no recording.
    pub fn mean(&self) -> Duration {
        duration(self.sum.checked_div(u128::from(self.count)).unwrap_or(0))
    }

    /// The recording of rank `ceil(quantile × count)`, at least 1; zero when there is none. `quantile` is clamped to
    /// `0..=1`; the first and the last rank are the exact minimum and maximum.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        Duration::from_nanos(self.at_rank(rank.clamp(1, self.count.max(1))))
    }

    /// What was recorded after `earlier`, a snapshot of the same timer. Its minimum and maximum are exact when they are
    /// new records of the timer, otherwise edges of the outermost buckets (at most 1.6 % outside).
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.counts.iter().copied().peekable();
        let fresh = self.counts.iter().filter_map(|&(index, count)| {
            while before.next_if(|(other, _)| *other < index).is_some() {}
            let known = before.next_if(|(other, _)| *other == index).map_or(0, |(_, known)| known);
            let fresh = count.saturating_sub(known);
            (fresh > 0).then_some((index, fresh))
        });
        let counts: Vec<_> = fresh.collect();
        let lowest = counts.first().map_or(u64::MAX, |(index, _)| buckets::lowest(usize::from(*index)));
        let highest = counts.last().map_or(0, |(index, _)| buckets::highest(usize::from(*index)));
        Self {
            count: counts.iter().map(|(_, count)| count).sum(),
            sum: self.sum.saturating_sub(earlier.sum),
            min: if self.min < earlier.min { self.min } else { lowest.max(self.min) },
            max: if self.max > earlier.max { self.max } else { highest.min(self.max) },
            failed: self.failed.saturating_sub(earlier.failed),
            cancelled: self.cancelled.saturating_sub(earlier.cancelled),
            counts,
        }
    }

    /// Both distributions as one, for example of two periods or of all label sets of one name.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut counts = Vec::with_capacity(self.counts.len() + other.counts.len());
        let (mut left, mut right) = (self.counts.iter().copied().peekable(), other.counts.iter().copied().peekable());
        while let Some(index) = left.peek().into_iter().chain(right.peek()).map(|(index, _)| *index).min() {
            let mut count = 0;
            for side in [&mut left, &mut right] {
                count += side.next_if(|(other, _)| *other == index).map_or(0, |(_, count)| count);
            }
            counts.push((index, count));
        }
        Self {
            counts,
            count: self.count + other.count,
            sum: self.sum + other.sum,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    fn at_rank(&self, rank: u64) -> u64 {
        if rank >= self.count {
            return self.max;
        }
        if rank == 1 {
            return self.min;
        }
        let mut below = 0;
        let bucket = self.counts.iter().find(|(_, count)| {
            below += count;
            below >= rank
        });
        bucket.map_or(self.max, |(index, _)| buckets::middle(usize::from(*index)).clamp(self.min, self.max))
    }
}

fn duration(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
    Duration::new(seconds, (nanos % 1_000_000_000) as u32)
}
