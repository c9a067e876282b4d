//! Matrices and their products: dense row-major, and sparse by rows.
//!
//! ```
//! use tidegate_compute::{Control, matrix::{self, Matrix}};
//!
//! let left = Matrix::from_rows(&[[1.0, 2.0], [3.0, 4.0]])?;
//! let right = Matrix::from_rows(&[[5.0], [6.0]])?;
//! let product = matrix::multiply(&left, &right, matrix::ELEMENTS_MAX, &Control::new())?;
//! assert_eq!(product.values(), [17.0, 39.0]);
//! # Ok::<(), tidegate_compute::Error>(())
//! ```

mod product;
mod sparse;
mod sparse_product;

pub use product::multiply;
pub(crate) use product::product_into;
pub use sparse::SparseMatrix;
pub use sparse_product::multiply_sparse;

use crate::Error;

/// 16 Mi elements, 128 MiB: a product of two 4096 × 4096 matrices, about a second of work on one core.
pub const ELEMENTS_MAX: usize = 1 << 24;

/// A dense matrix of finite 64-bit floats, row after row. It has at least one row and one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Copies rows of equal length.
    ///
    /// # Errors
    /// `Empty`, `Ragged` or `NotFinite`.
    pub fn from_rows<R: AsRef<[f64]>>(rows: &[R]) -> Result<Self, Error> {
        let columns = rows.first().map_or(0, |row| row.as_ref().len());
        let mut values = Vec::with_capacity(rows.len().saturating_mul(columns));
        for (row, found) in rows.iter().map(AsRef::as_ref).enumerate() {
            if found.len() != columns {
                return Err(Error::Ragged { row, actual: found.len(), expected: columns });
            }
            values.extend_from_slice(found);
        }
        Self::from_flat(rows.len(), columns, values)
    }

    /// Takes `rows × columns` values, row after row.
    ///
    /// # Errors
    /// `Empty`, `Length` or `NotFinite`.
    pub fn from_flat(rows: usize, columns: usize, values: Vec<f64>) -> Result<Self, Error> {
        if rows == 0 {
            return Err(Error::Empty { what: "rows" });
        }
        if columns == 0 {
            return Err(Error::Empty { what: "columns" });
        }
        let expected = rows.saturating_mul(columns);
        if values.len() != expected {
            return Err(Error::Length { what: "values", actual: values.len(), expected });
        }
        match first_not_finite(&values) {
            Some(place) => Err(Error::NotFinite { row: place / columns, column: place % columns }),
            None => Ok(Self { rows, columns, values }),
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    /// All values, row after row.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All values, row after row, without a copy.
    #[must_use]
    pub fn into_values(self) -> Vec<f64> {
        self.values
    }
}

/// The place of the first value that is infinite or not a number.
fn first_not_finite(values: &[f64]) -> Option<usize> {
    if all_finite(values) { None } else { values.iter().position(|value| !value.is_finite()) }
}

/// Whether every value is finite: x · 0 is 0 for a finite x and NaN otherwise, and sums keep the NaN. Eight lanes, so that it vectorises.
fn all_finite(values: &[f64]) -> bool {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value * 0.0;
        }
    }
    lanes.iter().all(|lane| *lane == 0.0) && rest.iter().all(|value| value.is_finite())
}
