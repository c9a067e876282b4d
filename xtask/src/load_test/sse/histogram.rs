//! Counts of durations in buckets that grow with their values: any number of samples in fixed memory, off by under 1 %.

use std::time::Duration;

/// 128 steps from each power of two to the next.
const STEP_BITS: u32 = 7;
const STEPS: usize = 1 << STEP_BITS;
const BUCKETS: usize = (64 - STEP_BITS as usize + 1) * STEPS;

/// Microseconds, log-linear.
#[derive(Clone)]
pub(super) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), count: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, microseconds: u64) {
        self.buckets[bucket(microseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(microseconds);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, part)| *sum += part);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The value below or at which `fraction` of all samples lie (nearest rank); `None` without samples.
    pub(super) fn at(&self, fraction: f64) -> Option<Duration> {
        let rank = ((fraction * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += count;
            seen >= rank
        };
        let at = (self.count > 0).then(|| self.buckets.iter().position(reaches)).flatten()?;
        Some(Duration::from_micros(highest(at).min(self.max)))
    }
}

fn bucket(value: u64) -> usize {
    let value = value.max(1);
    let power = value.ilog2();
    if power < STEP_BITS {
        return value as usize;
    }
    let shift = power - STEP_BITS;
    (shift as usize + 1) * STEPS + ((value >> shift) as usize - STEPS)
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let (row, step) = (bucket / STEPS, bucket % STEPS);
    match row.checked_sub(1) {
        None => step as u64,
        Some(shift) => (((STEPS + step) as u64) << shift) + ((1u64 << shift) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_one_percent() {
        for power in 0..63 {
            for value in [1u64 << power, (1 << power) + 1, (1 << power) * 2 - 1, (1 << power) + (1 << power) / 3] {
                let told = highest(bucket(value));
                assert!(told >= value && (told - value) as f64 <= value as f64 / 100.0, "{value} told as {told}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_follow_the_samples() {
        let mut low = Histogram::default();
        assert_eq!(low.at(0.5), None);
        (1..=900).for_each(|value| low.record(value));
        let mut high = Histogram::default();
        (901..=1000).for_each(|value| high.record(value));
        low.add(&high);
        let near = |fraction: f64, expected: f64| {
            let told = low.at(fraction).unwrap().as_micros() as f64;
            (told - expected).abs() <= expected / 100.0
        };
        assert!(near(0.5, 500.0) && near(0.99, 990.0) && near(0.001, 1.0));
        assert_eq!(low.at(1.0), Some(Duration::from_micros(1000)));
        assert_eq!(low.count(), 1000);
    }
}
