//! Percentiles of a whole set of samples that is at hand.
//!
//! Definition, here and everywhere in this crate: *nearest rank*. The p-th percentile of n samples is the sample of
//! rank `ceil(p/100 × n)` in ascending order, counted from 1; it is always one of the samples, never interpolated.

use std::cmp::Ordering;

/// The four percentiles shown everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// When to trade exactness for a single pass that leaves the samples in place.
#[derive(Clone, Debug)]
pub struct PercentileConfig {
    /// Whether large sets may be approximated at all.
    pub enable_approximation: bool,
    /// Sets with more samples than this are approximated. 10 000: below, the exact way takes well under 0.1 ms.
    pub approximation_threshold: usize,
}

impl Default for PercentileConfig {
    fn default() -> Self {
        Self { enable_approximation: true, approximation_threshold: 10_000 }
    }
}

impl PercentileConfig {
    /// Exact for every size.
    pub fn exact() -> Self {
        Self { enable_approximation: false, ..Self::default() }
    }
}

/// How [`percentiles`] came to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Each percentile is the sample of its rank.
    Exact,
    /// Each percentile is within 1 % (precisely 1/128 of its magnitude) of the sample of its rank.
    Approximate,
}

/// The answer of [`percentiles`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Samples that are numbers.
    pub count: usize,
    /// Samples that are NaN; they have no rank and were left out.
    pub ignored: usize,
    /// The smallest sample, exact with either method.
    pub min: f64,
    /// The largest sample, exact with either method.
    pub max: f64,
    /// The percentiles.
    pub percentiles: Percentiles,
    /// Whether `percentiles` is exact.
    pub method: Method,
}

/// Percentiles, minimum and maximum of `samples`; `None` when no sample is a number.
///
/// Exact up to [`PercentileConfig::approximation_threshold`] samples or when approximation is off: O(n), and reorders
/// `samples`. Approximate above: one pass, order kept, 2 MB of scratch memory, error below 1 % of the value whatever
/// the distribution (magnitudes under 1e-307 excepted: there the error is below 2e-310).
/// NaN is left out and counted in [`Summary::ignored`]; infinities are samples like any other; `-0.0` equals `0.0`.
///
/// ```
/// use tidegate_metrics::{percentiles, PercentileConfig};
///
/// let mut samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
/// let summary = percentiles(&mut samples, &PercentileConfig::default()).expect("there are samples");
/// assert_eq!((summary.min, summary.percentiles.p50, summary.percentiles.p99), (1.0, 100.0, 198.0));
/// ```
pub fn percentiles(samples: &mut [f64], config: &PercentileConfig) -> Option<Summary> {
    if config.enable_approximation && samples.len() > config.approximation_threshold {
        return approximate(samples);
    }
    let (numbers, ignored) = set_nan_aside(samples);
    exact(numbers, ignored)
}

/// The index, from 0, of the sample that is the p-th percentile of `count > 0` samples.
fn rank(percent: usize, count: usize) -> usize {
    // In two parts, because `percent × count` could overflow.
    let (hundreds, rest) = (count / 100, count % 100);
    (percent * hundreds + (percent * rest).div_ceil(100)).max(1) - 1
}

fn exact(samples: &mut [f64], ignored: usize) -> Option<Summary> {
    let count = samples.len();
    if count == 0 {
        return None;
    }
    // Downward: what lies above a found percentile need not be looked at again. The extremes lie beyond the outer two.
    let (p99, above) = select(samples, rank(99, count));
    let max = above.iter().fold(p99, |max, sample| max.max(*sample));
    let (p95, _) = select(&mut samples[..=rank(99, count)], rank(95, count));
    let (p90, _) = select(&mut samples[..=rank(95, count)], rank(90, count));
    let (p50, _) = select(&mut samples[..=rank(90, count)], rank(50, count));
    let min = smallest(&samples[..=rank(50, count)]);
    let percentiles = Percentiles { p50, p90, p95, p99 };
    Some(Summary { count, ignored, min, max, percentiles, method: Method::Exact })
}

/// The sample of this rank; smaller ones are moved before it, larger ones behind it and returned.
fn select(samples: &mut [f64], rank: usize) -> (f64, &[f64]) {
    let (_, nth, above) = samples.select_nth_unstable_by(rank, ascending);
    (*nth, above)
}

/// The minimum, in eight lanes so that it runs on vector registers.
fn smallest(samples: &[f64]) -> f64 {
    let lower = |left: f64, right: f64| if right < left { right } else { left };
    let (blocks, rest) = samples.as_chunks::<8>();
    let mut lanes = [f64::INFINITY; 8];
    for block in blocks {
        for (lane, sample) in lanes.iter_mut().zip(block) {
            *lane = lower(*lane, *sample);
        }
    }
    lanes.iter().chain(rest).copied().fold(f64::INFINITY, lower)
}

/// A plain comparison: cheaper than `total_cmp`, and enough once NaN is set aside.
fn ascending(left: &f64, right: &f64) -> Ordering {
    if left < right {
        Ordering::Less
    } else if left > right {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Moves NaN to the end; returns the numbers and how many NaN there were.
fn set_nan_aside(samples: &mut [f64]) -> (&mut [f64], usize) {
    // Blocks without early exit run on vector registers; most sets have no NaN at all.
    let has_nan = |block: &[f64]| block.iter().fold(false, |any, sample| any | sample.is_nan());
    let mut numbers = samples.len();
    if samples.chunks(1024).any(has_nan) {
        numbers = 0;
        for index in 0..samples.len() {
            if !samples[index].is_nan() {
                samples.swap(index, numbers);
                numbers += 1;
            }
        }
    }
    let ignored = samples.len() - numbers;
    (&mut samples[..numbers], ignored)
}

/// Sign, exponent and the first 6 of 52 mantissa bits: 64 buckets per power of two.
const KEY_BITS: u32 = 1 + 11 + 6;
const KEY_SHIFT: u32 = 64 - KEY_BITS;

fn approximate(samples: &[f64]) -> Option<Summary> {
    let mut counts = vec![0u64; 1 << KEY_BITS];
    let (mut min, mut max, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0);
    for &sample in samples.iter().filter(|sample| !sample.is_nan()) {
        counts[key(sample)] += 1;
        min = if sample < min { sample } else { min };
        max = if sample > max { sample } else { max };
        count += 1;
    }
    if count == 0 {
        return None;
    }
    let [p50, p90, p95, p99] = at_ranks(&counts[..=key(max)], key(min), [50, 90, 95, 99].map(|p| rank(p, count)));
    let percentiles = Percentiles {
        p50: p50.clamp(min, max),
        p90: p90.clamp(min, max),
        p95: p95.clamp(min, max),
        p99: p99.clamp(min, max),
    };
    Some(Summary { count, ignored: samples.len() - count, min, max, percentiles, method: Method::Approximate })
}

/// The middle of the bucket that holds each of the ascending ranks.
fn at_ranks<const N: usize>(counts: &[u64], first: usize, ranks: [usize; N]) -> [f64; N] {
    let (mut bucket, mut through) = (first, counts[first]);
    ranks.map(|rank| {
        while through <= rank as u64 {
            bucket += 1;
            through += counts[bucket];
        }
        middle(bucket)
    })
}

/// Ascends with the value, over negative and positive numbers alike.
fn key(sample: f64) -> usize {
    let bits = sample.to_bits();
    let ordered = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    (ordered >> KEY_SHIFT) as usize
}

fn middle(key: usize) -> f64 {
    let ordered = (key as u64) << KEY_SHIFT | 1 << (KEY_SHIFT - 1);
    let middle = f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered });
    // The buckets of the infinities hold nothing else, but their middle would be NaN.
    if middle.is_nan() { f64::INFINITY.copysign(middle) } else { middle }
}
