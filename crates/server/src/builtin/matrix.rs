//! `matrix_multiplication`: the product of two matrices given as lists of rows.

use serde::{Deserialize, Serialize};
use tidegate_compute::Control;
use tidegate_compute::matrix::{Matrix, multiply};

use super::{Failure, Limits, input, output};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    matrix_a: Vec<Vec<f64>>,
    matrix_b: Vec<Vec<f64>>,
}

#[derive(Serialize)]
struct Output<'a> {
    matrix: Vec<&'a [f64]>,
    rows: usize,
    columns: usize,
}

pub(super) fn run(data: &[u8], limits: &Limits, control: &Control) -> Result<Vec<u8>, Failure> {
    let Input { matrix_a, matrix_b } = input(data)?;
    let (left, right) = (Matrix::from_rows(&matrix_a)?, Matrix::from_rows(&matrix_b)?);
    drop((matrix_a, matrix_b));
    // An element takes four bytes at least ("0.0,"), so more of them could not be written anyway.
    let product = multiply(&left, &right, limits.result_bytes_max / 4, control)?;
    let matrix = (0..product.rows()).map(|row| product.row(row)).collect();
    output(&Output { matrix, rows: product.rows(), columns: product.columns() }, limits)
}
