//! What `compute` is measured on, and the plain loops it is measured against.

use std::collections::BTreeSet;

/// A small generator with a fixed seed: every run measures the same numbers.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Uniform from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1_u64 << 53) as f64
    }
}

/// `count` uniform numbers from −1 to 1.
#[must_use]
pub fn uniform(count: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.unit() * 2.0 - 1.0).collect()
}

/// Rows that rate `per_row` of `items` items each, from 1 to 5.
#[must_use]
pub fn ratings(rows: usize, items: u64, per_row: usize) -> Vec<Vec<(u32, f64)>> {
    let mut random = Random::new(7);
    let mut row = |_| {
        let mut rated = BTreeSet::new();
        while rated.len() < per_row {
            rated.insert(random.below(items) as u32);
        }
        rated.into_iter().map(|item| (item, random.below(5) as f64 + 1.0)).collect()
    };
    (0..rows).map(&mut row).collect()
}

/// A ride of `count` seconds: watts that wander, with coasting.
#[must_use]
pub fn ride(count: usize) -> Vec<f64> {
    let mut random = Random::new(11);
    let mut watts: f64 = 200.0;
    let mut sample = |_| {
        watts = (watts + random.unit() * 60.0 - 30.0).clamp(0.0, 900.0);
        if random.below(20) == 0 { 0.0 } else { watts.round() }
    };
    (0..count).map(&mut sample).collect()
}

/// Three nested loops over row-major n × n matrices.
#[must_use]
pub fn naive_product(left: &[f64], right: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    for row in 0..n {
        for column in 0..n {
            out[row * n + column] = (0..n).map(|inner| left[row * n + inner] * right[inner * n + column]).sum();
        }
    }
    out
}

/// Pearson of all pairs of rows, one pair after the other, with the means and variances taken once per row.
#[must_use]
pub fn naive_pearson(values: &[f64], columns: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = values.chunks_exact(columns).collect();
    let mean = |row: &&[f64]| row.iter().sum::<f64>() / columns as f64;
    let means: Vec<f64> = rows.iter().map(mean).collect();
    let spread = |(row, mean): (&&[f64], &f64)| row.iter().map(|value| (value - mean).powi(2)).sum::<f64>().sqrt();
    let spreads: Vec<f64> = rows.iter().zip(&means).map(spread).collect();
    let mut out = Vec::with_capacity(rows.len() * (rows.len() - 1) / 2);
    for first in 0..rows.len() {
        for second in first + 1..rows.len() {
            let both = rows[first].iter().zip(rows[second]);
            let sum: f64 = both.map(|(a, b)| (a - means[first]) * (b - means[second])).sum();
            out.push(sum / (spreads[first] * spreads[second]));
        }
    }
    out
}

/// Cosine of the first `some` rows with all rows, by merging the two lists of each pair; the sum of all of them.
#[must_use]
pub fn naive_sparse_cosine(rows: &[Vec<(u32, f64)>], some: usize) -> f64 {
    let length = |row: &[(u32, f64)]| row.iter().map(|(_, value)| value * value).sum::<f64>().sqrt();
    let lengths: Vec<f64> = rows.iter().map(|row| length(row)).collect();
    let mut total = 0.0;
    for first in 0..some {
        for (second, other) in rows.iter().enumerate() {
            total += merged_product(&rows[first], other) / (lengths[first] * lengths[second]);
        }
    }
    total
}

fn merged_product(left: &[(u32, f64)], right: &[(u32, f64)]) -> f64 {
    let (mut a, mut b, mut sum) = (0, 0, 0.0);
    while a < left.len() && b < right.len() {
        match left[a].0.cmp(&right[b].0) {
            std::cmp::Ordering::Less => a += 1,
            std::cmp::Ordering::Greater => b += 1,
            std::cmp::Ordering::Equal => {
                sum += left[a].1 * right[b].1;
                a += 1;
                b += 1;
            }
        }
    }
    sum
}

/// Normalized power with one running sum that a window slides through.
#[must_use]
pub fn naive_normalized_power(samples: &[f64], window: usize) -> f64 {
    let mut sum: f64 = samples[..window].iter().sum();
    let mut powers = 0.0;
    for index in window..=samples.len() {
        powers += (sum / window as f64).powi(4);
        if index < samples.len() {
            sum = sum - samples[index - window] + samples[index];
        }
    }
    (powers / (samples.len() - window + 1) as f64).powf(0.25)
}
