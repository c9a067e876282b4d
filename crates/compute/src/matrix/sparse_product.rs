//! The sparse product, row by row (Gustavson): the rows of the right matrix that a left row names are added up.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::SparseMatrix;
use crate::scratch::Scratch;
use crate::{Control, Error};

/// 64 rows: enough work to hide the pool, few enough that uneven rows spread.
const TILE_ROWS: usize = 64;

/// `left × right`, sparse; entries that cancel to exactly 0 are left out.
///
/// Runs on the current pool, one tile of rows at a time; a cancel is seen between two rows of the right matrix.
/// Working memory per thread is 13 bytes for each column of `right` that holds anything.
///
/// # Errors
/// `Dimensions` if the inner sizes differ, `TooLarge` once the result has more than `entries_max` entries,
/// `Overflow` if an element leaves the range of a float, `Cancelled`.
pub fn multiply_sparse(
    left: &SparseMatrix,
    right: &SparseMatrix,
    entries_max: usize,
    control: &Control,
) -> Result<SparseMatrix, Error> {
    if left.columns() != right.rows() {
        return Err(Error::Dimensions { left_columns: left.columns(), right_rows: right.rows() });
    }
    let (used, places) = right.used_columns();
    let scratch = Scratch::new();
    let entries = AtomicUsize::new(0);
    let tiles: Vec<Mutex<Tile>> = (0..left.rows().div_ceil(TILE_ROWS)).map(|_| Mutex::default()).collect();
    control.for_each_tile(tiles.len(), |index| {
        let mut sums = scratch.lend(|| Sums::new(used.len()));
        let mut tile = Tile::default();
        let first = index * TILE_ROWS;
        for row in first..(first + TILE_ROWS).min(left.rows()) {
            // A cancel may leave sums behind: no tile runs after it.
            sums.add_row(left.row(row), right, &places, control)?;
            tile.finish_row(row, &mut sums, &used)?;
            let asked = entries.fetch_add(tile.last_row_entries(), Relaxed) + tile.last_row_entries();
            if asked > entries_max {
                return Err(Error::TooLarge { what: "entries of the product", asked, limit: entries_max });
            }
        }
        *tiles[index].lock().unwrap_or_else(PoisonError::into_inner) = tile;
        Ok(())
    })?;
    Ok(join(right.columns(), tiles))
}

/// One row of the result while it is added up.
struct Sums {
    sum: Vec<f64>,
    touched: Vec<bool>,
    order: Vec<u32>,
}

impl Sums {
    fn new(columns: usize) -> Self {
        Self { sum: vec![0.0; columns], touched: vec![false; columns], order: Vec::new() }
    }

    fn add_row(
        &mut self,
        (columns, values): (&[u32], &[f64]),
        right: &SparseMatrix,
        places: &[u32],
        control: &Control,
    ) -> Result<(), Error> {
        for (&inner, &factor) in columns.iter().zip(values) {
            control.check()?;
            let (from, to) = (right.offsets[inner as usize], right.offsets[inner as usize + 1]);
            for (&place, &value) in places[from..to].iter().zip(&right.values[from..to]) {
                self.sum[place as usize] += factor * value;
                if !std::mem::replace(&mut self.touched[place as usize], true) {
                    self.order.push(place);
                }
            }
        }
        Ok(())
    }
}

/// The finished rows of one tile.
#[derive(Default)]
struct Tile {
    ends: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f64>,
}

impl Tile {
    /// Moves the sums into this tile and leaves them clear for the next row.
    fn finish_row(&mut self, row: usize, sums: &mut Sums, used: &[u32]) -> Result<(), Error> {
        sums.order.sort_unstable();
        let mut finite = true;
        for place in sums.order.drain(..) {
            let value = std::mem::take(&mut sums.sum[place as usize]);
            sums.touched[place as usize] = false;
            finite &= value.is_finite();
            if value != 0.0 {
                self.indices.push(used[place as usize]);
                self.values.push(value);
            }
        }
        self.ends.push(self.indices.len());
        if finite { Ok(()) } else { Err(Error::Overflow { row }) }
    }

    /// How many entries the last finished row added.
    fn last_row_entries(&self) -> usize {
        match *self.ends {
            [.., before, end] => end - before,
            [end] => end,
            [] => 0,
        }
    }
}

fn join(columns: usize, tiles: Vec<Mutex<Tile>>) -> SparseMatrix {
    let mut matrix = SparseMatrix { columns, offsets: vec![0], indices: Vec::new(), values: Vec::new() };
    for tile in tiles {
        let tile = tile.into_inner().unwrap_or_else(PoisonError::into_inner);
        let before = matrix.indices.len();
        matrix.offsets.extend(tile.ends.iter().map(|end| before + end));
        matrix.indices.extend(tile.indices);
        matrix.values.extend(tile.values);
    }
    matrix
}
