//! Dense entities: rows are made ready once, then square tiles of the upper triangle are multiplied, finished and offered.

use faer::{MatMut, MatRef};

use super::keep::{Candidate, Floors, Keep};
use super::standard::{centred, sum, unit};
use super::{Algorithm, Options};
use crate::matrix::{Matrix, product_into};
use crate::scratch::Scratch;
use crate::{Control, Error};

/// 256 × 256 pairs: 0.5 ms of the kernel at 500 columns, and a tile (512 KiB) stays in the second-level cache.
const TILE: usize = 256;
/// Below this part of |a|² + |b|², |a|² + |b|² − 2ab has lost too many digits and the distance is taken from the rows themselves.
const CANCELLED: f64 = 1e-4;

/// Compares all rows. Also answers which place each rank has, rows without any similarity left out.
pub(super) fn compare(
    matrix: &Matrix,
    order: Vec<u32>,
    algorithm: Algorithm,
    options: &Options,
    control: &Control,
) -> Result<(Vec<u32>, Keep), Error> {
    let ready = Ready::new(matrix, order, algorithm, control)?;
    let keep = Keep::new(ready.order.len(), options);
    let blocks = ready.order.len().div_ceil(TILE);
    let scratch = Scratch::new();
    control.for_each_tile(blocks * (blocks + 1) / 2, |index| {
        let (above, beside) = triangle(index, blocks);
        let mut work = scratch.lend(Work::default);
        ready.offer_tile(above * TILE, beside * TILE, &mut work, &keep, control)
    })?;
    Ok((ready.order, keep))
}

/// Row and column of tile `index` in an upper triangle of `blocks` × `blocks` tiles, counted row by row.
fn triangle(index: usize, blocks: usize) -> (usize, usize) {
    let begin = |row: usize| row * (2 * blocks - row + 1) / 2;
    let (mut low, mut high) = (0, blocks);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if begin(middle) <= index { low = middle } else { high = middle }
    }
    (low, low + index - begin(low))
}

/// What one tile works in.
#[derive(Default)]
struct Work {
    tile: Vec<f64>,
    floors: Vec<f64>,
    found: Vec<Candidate>,
}

/// Rows in rank order, made such that their dot products tell the similarity.
struct Ready<'a> {
    matrix: &'a Matrix,
    rows: Vec<f64>,
    order: Vec<u32>,
    measure: Measure,
}

/// From a dot product to a similarity.
enum Measure {
    /// It is the similarity.
    Dot,
    /// It is |A ∩ B|; here are |A|.
    Jaccard(Vec<f64>),
    /// It is ab of centred columns; here are |a|².
    Euclidean(Vec<f64>),
}

impl<'a> Ready<'a> {
    fn new(matrix: &'a Matrix, order: Vec<u32>, algorithm: Algorithm, control: &Control) -> Result<Self, Error> {
        match algorithm {
            Algorithm::Pearson => Self::mapped(matrix, order, control, centred, |_| Measure::Dot),
            Algorithm::Cosine => Self::mapped(matrix, order, control, unit, |_| Measure::Dot),
            Algorithm::Jaccard => Self::mapped(matrix, order, control, presence, |rows| {
                Measure::Jaccard(rows.map(|row| sum(row, |value| value)).collect())
            }),
            Algorithm::Euclidean => {
                let means = column_means(matrix, control)?;
                let shifted = |row: &[f64], out: &mut [f64]| {
                    for ((out, value), mean) in out.iter_mut().zip(row).zip(&means) {
                        *out = value - mean;
                    }
                    true
                };
                Self::mapped(matrix, order, control, shifted, |rows| {
                    Measure::Euclidean(rows.map(|row| sum(row, |value| value * value)).collect())
                })
            }
        }
    }

    /// Maps every row; rows that map to nothing leave, with their rank.
    fn mapped(
        matrix: &'a Matrix,
        order: Vec<u32>,
        control: &Control,
        map: impl Fn(&[f64], &mut [f64]) -> bool + Sync,
        measure: impl FnOnce(std::slice::ChunksExact<'_, f64>) -> Measure,
    ) -> Result<Self, Error> {
        let width = matrix.columns();
        let mut rows = vec![0.0; order.len() * width];
        let lost = Scratch::<Vec<u32>>::new();
        control.for_each_part(&mut rows, TILE * width, |part, out| {
            let mut lost = lost.lend(Vec::new);
            for (rank, out) in (part * TILE..).zip(out.chunks_exact_mut(width)) {
                control.check()?;
                if !map(matrix.row(order[rank] as usize), out) {
                    lost.push(rank as u32);
                }
            }
            Ok(())
        })?;
        let mut ready = Self { matrix, rows, order, measure: Measure::Dot };
        ready.leave(lost.into_idle().concat());
        ready.measure = measure(ready.rows.chunks_exact(width));
        Ok(ready)
    }

    fn leave(&mut self, mut lost: Vec<u32>) {
        if lost.is_empty() {
            return;
        }
        lost.sort_unstable();
        let width = self.matrix.columns();
        let stays = |rank: usize| lost.binary_search(&(rank as u32)).is_err();
        let mut next = 0;
        for rank in (0..self.order.len()).filter(|rank| stays(*rank)) {
            self.rows.copy_within(rank * width..(rank + 1) * width, next * width);
            self.order[next] = self.order[rank];
            next += 1;
        }
        self.rows.truncate(next * width);
        self.order.truncate(next);
    }

    fn offer_tile(
        &self,
        above: usize,
        beside: usize,
        work: &mut Work,
        keep: &Keep,
        control: &Control,
    ) -> Result<(), Error> {
        let Work { tile, floors, found } = work;
        let (height, width) = (self.multiply(above, beside, tile, control)?, TILE.min(self.order.len() - beside));
        floors.clear();
        floors.extend((beside..beside + width).map(|rank| keep.floors().of(rank)));
        for (rank, row) in (above..above + height).zip(tile.chunks_exact_mut(width)) {
            let from = if above == beside { rank - above + 1 } else { 0 };
            let (row, floors, first) = (&mut row[from..], &floors[from..], beside + from);
            self.finish(rank, first, row, control)?;
            scan(rank, first, row, floors, keep.floors(), found);
        }
        keep.offer(found, control)
    }

    /// The dot products of two blocks of rows; answers how many rows the tile has.
    fn multiply(&self, above: usize, beside: usize, tile: &mut Vec<f64>, control: &Control) -> Result<usize, Error> {
        let columns = self.matrix.columns();
        let height = TILE.min(self.order.len() - above);
        let width = TILE.min(self.order.len() - beside);
        let left = MatRef::from_row_major_slice(&self.rows[above * columns..][..height * columns], height, columns);
        let right = MatRef::from_column_major_slice(&self.rows[beside * columns..][..width * columns], columns, width);
        tile.resize(height * width, 0.0);
        product_into(MatMut::from_row_major_slice_mut(tile, height, width), left, right, control)?;
        Ok(height)
    }

    /// Turns the dot products of `rank` with `first`, `first + 1`, … into similarities.
    fn finish(&self, rank: usize, first: usize, row: &mut [f64], control: &Control) -> Result<(), Error> {
        match &self.measure {
            Measure::Dot => row.iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0)),
            Measure::Jaccard(sizes) => {
                for (shared, size) in row.iter_mut().zip(&sizes[first..]) {
                    *shared /= sizes[rank] + size - *shared;
                }
            }
            Measure::Euclidean(squares) => {
                for (second, (dot, square)) in (first..).zip(row.iter_mut().zip(&squares[first..])) {
                    let both = squares[rank] + square;
                    let mut distance = both - 2.0 * *dot;
                    // Also if anything overflowed or underflowed: then no comparison holds.
                    let precise = distance > CANCELLED * both && both < f64::INFINITY;
                    if !precise {
                        control.check()?;
                        distance = self.distance_squared(rank, second);
                    }
                    *dot = 1.0 / (1.0 + distance.sqrt());
                }
            }
        }
        Ok(())
    }

    fn distance_squared(&self, first: usize, second: usize) -> f64 {
        let row = |rank: usize| self.matrix.row(self.order[rank] as usize);
        row(first).iter().zip(row(second)).map(|(a, b)| (a - b) * (a - b)).sum()
    }
}

/// 1 where a value is not 0. `false` for the empty set.
fn presence(row: &[f64], out: &mut [f64]) -> bool {
    for (out, value) in out.iter_mut().zip(row) {
        *out = f64::from(u8::from(*value != 0.0));
    }
    row.iter().any(|value| *value != 0.0)
}

fn column_means(matrix: &Matrix, control: &Control) -> Result<Vec<f64>, Error> {
    let mut means = vec![0.0; matrix.columns()];
    for row in 0..matrix.rows() {
        control.check()?;
        for (mean, value) in means.iter_mut().zip(matrix.row(row)) {
            *mean += value;
        }
    }
    means.iter_mut().for_each(|mean| *mean /= matrix.rows() as f64);
    Ok(means)
}

/// Collects what may matter: first eight at a time whether any does, which vectorises, and only then which.
fn scan(rank: usize, first: usize, row: &[f64], floors: &[f64], all: &Floors, found: &mut Vec<Candidate>) {
    let own = all.of(rank);
    let matters = |value: f64, floor: f64| value >= own.min(floor);
    for (chunk, (values, floors)) in row.chunks(8).zip(floors.chunks(8)).enumerate() {
        let any = values.iter().zip(floors).fold(false, |any, (value, floor)| any | matters(*value, *floor));
        if any {
            let hits = (first + chunk * 8..).zip(values.iter().zip(floors));
            let hits = hits.filter(|(_, (value, floor))| matters(**value, **floor));
            found.extend(hits.map(|(second, (value, _))| Candidate::new(*value, rank, second)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::triangle;

    #[test]
    fn every_tile_of_the_triangle_comes_once_and_in_order() {
        for blocks in 1..20 {
            let expected = (0..blocks).flat_map(|above| (above..blocks).map(move |beside| (above, beside)));
            assert!(expected.eq((0..blocks * (blocks + 1) / 2).map(|index| triangle(index, blocks))));
        }
    }
}
