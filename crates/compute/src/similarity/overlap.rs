//! What two sparse rows share, added up item by item, and the similarity that follows from it.

use super::standard::{centred, sum, unit};
use crate::matrix::SparseMatrix;

/// What two rows share so far.
pub(super) trait Shared: Copy + Default + Send {
    fn is_empty(&self) -> bool;
    /// One more shared item, with the weight each side gives it.
    fn add(&mut self, own: f64, other: f64);
}

/// A measure over shared items. Ranks are places in id order.
pub(super) trait Measure: Sync {
    type Shared: Shared;
    /// From ratings to weights; `false` if the row has no similarity with anything.
    fn weights(&self, ratings: &[f64], weights: &mut [f64]) -> bool;
    fn similarity(&self, shared: &Self::Shared, first: usize, second: usize) -> Option<f64>;
}

/// A count and one sum.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    count: u32,
    sum: f64,
}

/// Weights are ratings by the row's length.
pub(super) struct Cosine;

impl Shared for Sum {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, own: f64, other: f64) {
        self.count += 1;
        self.sum += own * other;
    }
}

impl Measure for Cosine {
    type Shared = Sum;

    fn weights(&self, ratings: &[f64], weights: &mut [f64]) -> bool {
        unit(ratings, weights)
    }

    fn similarity(&self, shared: &Sum, _: usize, _: usize) -> Option<f64> {
        Some(shared.sum.clamp(-1.0, 1.0))
    }
}

/// Only counts.
#[derive(Clone, Copy, Default)]
pub(super) struct Count(u32);

/// Weights do not matter.
pub(super) struct Jaccard<'a> {
    pub(super) matrix: &'a SparseMatrix,
    pub(super) order: &'a [u32],
}

impl Shared for Count {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }

    fn add(&mut self, _: f64, _: f64) {
        self.0 += 1;
    }
}

impl Measure for Jaccard<'_> {
    type Shared = Count;

    fn weights(&self, _: &[f64], _: &mut [f64]) -> bool {
        true
    }

    fn similarity(&self, shared: &Count, first: usize, second: usize) -> Option<f64> {
        let size = |rank: usize| self.matrix.row(self.order[rank] as usize).0.len();
        let both = size(first) + size(second) - shared.0 as usize;
        Some(f64::from(shared.0) / both as f64)
    }
}

/// A count and the squared distance.
#[derive(Clone, Copy, Default)]
pub(super) struct Distance {
    count: u32,
    squared: f64,
}

/// Weights are the ratings.
pub(super) struct Euclidean;

impl Shared for Distance {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, own: f64, other: f64) {
        self.count += 1;
        self.squared += (own - other) * (own - other);
    }
}

impl Measure for Euclidean {
    type Shared = Distance;

    fn weights(&self, ratings: &[f64], weights: &mut [f64]) -> bool {
        weights.copy_from_slice(ratings);
        true
    }

    fn similarity(&self, shared: &Distance, _: usize, _: usize) -> Option<f64> {
        Some(1.0 / (1.0 + shared.squared.sqrt()))
    }
}

/// The sums of a correlation.
#[derive(Clone, Copy, Default)]
pub(super) struct Moments {
    count: f64,
    own: f64,
    other: f64,
    own_squared: f64,
    other_squared: f64,
    product: f64,
}

/// Weights are ratings centred on the mean of the whole row: shifting a row changes no correlation, but it keeps the sums short.
pub(super) struct Pearson<'a> {
    pub(super) matrix: &'a SparseMatrix,
    pub(super) order: &'a [u32],
}

/// Below this part of the sum of squares, the variance has lost too many digits (or is 0) and both rows are read again.
const CANCELLED: f64 = 1e-3;

impl Shared for Moments {
    fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    fn add(&mut self, own: f64, other: f64) {
        self.count += 1.0;
        self.own += own;
        self.other += other;
        self.own_squared += own * own;
        self.other_squared += other * other;
        self.product += own * other;
    }
}

impl Measure for Pearson<'_> {
    type Shared = Moments;

    fn weights(&self, ratings: &[f64], weights: &mut [f64]) -> bool {
        centred(ratings, weights)
    }

    fn similarity(&self, shared: &Moments, first: usize, second: usize) -> Option<f64> {
        if shared.count < 2.0 {
            return None;
        }
        let own = shared.own_squared - shared.own * shared.own / shared.count;
        let other = shared.other_squared - shared.other * shared.other / shared.count;
        if own > CANCELLED * shared.own_squared && other > CANCELLED * shared.other_squared {
            let covariance = shared.product - shared.own * shared.other / shared.count;
            return Some((covariance / own.sqrt() / other.sqrt()).clamp(-1.0, 1.0));
        }
        self.two_passes(first, second)
    }
}

impl Pearson<'_> {
    /// The correlation over shared items in two passes.
    #[cold]
    fn two_passes(&self, first: usize, second: usize) -> Option<f64> {
        let (own, other) = self.shared_ratings(first, second);
        let (mut left, mut right) = (vec![0.0; own.len()], vec![0.0; own.len()]);
        if !centred(&own, &mut left) || !centred(&other, &mut right) {
            return None;
        }
        left.iter_mut().zip(right).for_each(|(left, right)| *left *= right);
        Some(sum(&left, |product| product).clamp(-1.0, 1.0))
    }

    fn shared_ratings(&self, first: usize, second: usize) -> (Vec<f64>, Vec<f64>) {
        let row = |rank: usize| self.matrix.row(self.order[rank] as usize);
        let ((columns, ratings), (others, other_ratings)) = (row(first), row(second));
        let mut next = 0;
        let shared = columns.iter().zip(ratings).filter_map(|(column, rating)| {
            next += others[next..].partition_point(|other| other < column);
            (others.get(next) == Some(column)).then(|| (*rating, other_ratings[next]))
        });
        shared.unzip()
    }
}
