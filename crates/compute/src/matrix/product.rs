//! The dense product: faer's single-threaded kernel in tiles of rows, spread over the current pool.
//!
//! faer's own threads collapse on small matrices (123 to 33 GFLOP/s at n = 64); a tile that never splits further does not.

use faer::linalg::matmul::matmul;
use faer::prelude::ReborrowMut;
use faer::{Accum, MatMut, MatRef, Par};

use super::{Matrix, all_finite};
use crate::{Control, Error};

/// 256 rows: the kernel is at full speed and a 1024-row product still has four tiles to share.
const TILE_ROWS: usize = 256;
/// 2 M multiply-adds, 30 µs: below it a visit to the pool costs more than it brings.
const ALONE_MAX: usize = 2 << 20;
/// One kernel call is at most 256 × 512 × 512 multiply-adds, about a millisecond at 125 GFLOP/s, so that a cancel is seen within two.
const STEP_COLUMNS: usize = 512;
const STEP_DEPTH: usize = 512;

/// `left × right`.
///
/// Runs on the current pool, one tile of rows at a time; a cancel is seen within about a millisecond.
///
/// # Errors
/// `Dimensions` if the inner sizes differ, `TooLarge` if the result would have more than `elements_max` elements
/// (nothing is allocated then), `Overflow` if an element leaves the range of a float, `Cancelled`.
pub fn multiply(left: &Matrix, right: &Matrix, elements_max: usize, control: &Control) -> Result<Matrix, Error> {
    let (rows, depth, columns) = (left.rows(), left.columns(), right.columns());
    if depth != right.rows() {
        return Err(Error::Dimensions { left_columns: depth, right_rows: right.rows() });
    }
    let elements = rows.saturating_mul(columns);
    if elements > elements_max {
        return Err(Error::TooLarge { what: "elements of the product", asked: elements, limit: elements_max });
    }
    let mut values = vec![0.0; elements];
    let tile_rows = tile_rows(rows, depth, columns);
    let right = MatRef::from_row_major_slice(right.values(), depth, columns);
    let tile = |first_row: usize, out: &mut [f64]| {
        let tile_rows = out.len() / columns;
        let left = &left.values()[first_row * depth..][..tile_rows * depth];
        let left = MatRef::from_row_major_slice(left, tile_rows, depth);
        product_into(MatMut::from_row_major_slice_mut(out, tile_rows, columns), left, right, control)?;
        if all_finite(out) { Ok(()) } else { Err(overflow(first_row, out, columns)) }
    };
    control.for_each_part(&mut values, tile_rows * columns, |index, out| tile(index * tile_rows, out))?;
    Ok(Matrix { rows, columns, values })
}

/// `out = left × right`, in steps short enough to notice a cancel between them.
///
/// The depth is cut first: that costs nothing, the kernel walks it in blocks anyway.
pub(crate) fn product_into(
    mut out: MatMut<'_, f64>,
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
    control: &Control,
) -> Result<(), Error> {
    let (depth, columns) = (left.ncols(), right.ncols());
    let step_depth = even_step(depth, STEP_DEPTH);
    let step_columns = even_step(columns, STEP_COLUMNS);
    for column in (0..columns).step_by(step_columns) {
        let width = step_columns.min(columns - column);
        for inner in (0..depth).step_by(step_depth) {
            control.check()?;
            let height = step_depth.min(depth - inner);
            let accumulate = if inner == 0 { Accum::Replace } else { Accum::Add };
            let (left, right) = (left.subcols(inner, height), right.submatrix(inner, column, height, width));
            matmul(out.rb_mut().subcols_mut(column, width), accumulate, left, right, 1.0, Par::Seq);
        }
    }
    Ok(())
}

/// The size of equal steps of at most `step_max`, so that the last one is not a sliver.
fn even_step(length: usize, step_max: usize) -> usize {
    length.div_ceil(length.div_ceil(step_max))
}

/// Rows per tile. It depends on the shape alone, never on the pool, so that results do not either.
fn tile_rows(rows: usize, depth: usize, columns: usize) -> usize {
    if rows.saturating_mul(depth).saturating_mul(columns) <= ALONE_MAX {
        return rows;
    }
    rows.div_ceil(4).next_multiple_of(16).min(TILE_ROWS)
}

#[cold]
fn overflow(first_row: usize, out: &[f64], columns: usize) -> Error {
    let place = out.iter().position(|value| !value.is_finite()).unwrap_or(0);
    Error::Overflow { row: first_row + place / columns }
}
