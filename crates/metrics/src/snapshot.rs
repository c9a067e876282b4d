//! A distribution as it was at one moment: read from a timer, subtracted, merged, asked for quantiles.

use std::time::Duration;

use crate::buckets;

/// What a timer had recorded when it was read.
///
/// Quantiles are nearest-rank and within 1 % of the sample of that rank; count, sum, minimum and maximum are exact.
/// Holds 16 bytes per bucket that was ever touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Touched buckets and their counts, ascending.
    counts: Vec<(u16, u64)>,
    count: u64,
    sum: u128,
    /// `u64::MAX` while empty.
    min: u64,
    max: u64,
    failed: u64,
    cancelled: u64,
}

impl Snapshot {
    pub(crate) fn new(counts: Vec<(u16, u64)>, sum: u128, min: u64, max: u64, failed: u64, cancelled: u64) -> Self {
        let count = counts.iter().map(|(_, count)| count).sum();
        Self { counts, count, sum, min, max, failed, cancelled }
    }

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
        Duration::from_nanos_u128(self.sum)
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
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos_u128(mean)
    }

    /// The recording of rank `ceil(quantile × count)`; zero when there is none. `quantile` is clamped to `0..=1`.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        Duration::from_nanos(self.at_rank(rank.clamp(1, self.count.max(1))))
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
