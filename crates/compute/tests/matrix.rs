//! Products against three nested loops.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use tidegate_compute::matrix::{ELEMENTS_MAX, Matrix, SparseMatrix, multiply, multiply_sparse};
use tidegate_compute::{Control, Error};

fn naive(left: &Matrix, right: &Matrix) -> Vec<f64> {
    let mut values = Vec::new();
    for row in 0..left.rows() {
        for column in 0..right.columns() {
            let product = |inner: usize| left.row(row)[inner] * right.row(inner)[column];
            values.push((0..left.columns()).map(product).sum());
        }
    }
    values
}

/// Values that look random and are exact in products, so that any order of adding gives the same sum.
fn whole(rows: usize, columns: usize, seed: u32) -> Matrix {
    let value = |index: usize| f64::from((index as u32 ^ seed).wrapping_mul(2_654_435_761) >> 24) - 128.0;
    Matrix::from_flat(rows, columns, (0..rows * columns).map(value).collect()).unwrap()
}

fn sparse_of(dense: &Matrix) -> SparseMatrix {
    let row = |row: usize| {
        let entries = dense.row(row).iter().enumerate().filter(|(_, value)| **value != 0.0);
        entries.map(|(column, value)| (column as u32, *value)).rev().collect::<Vec<_>>()
    };
    SparseMatrix::from_rows(dense.columns(), &(0..dense.rows()).map(row).collect::<Vec<_>>()).unwrap()
}

fn dense_of(sparse: &SparseMatrix) -> Matrix {
    let mut values = vec![0.0; sparse.rows() * sparse.columns()];
    for row in 0..sparse.rows() {
        let (columns, entries) = sparse.row(row);
        assert!(columns.is_sorted_by(|a, b| a < b));
        columns
            .iter()
            .zip(entries)
            .for_each(|(column, value)| values[row * sparse.columns() + *column as usize] = *value);
    }
    Matrix::from_flat(sparse.rows(), sparse.columns(), values).unwrap()
}

fn thinned(matrix: Matrix) -> Matrix {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let values = matrix.into_values().into_iter().map(|value| if value % 3.0 == 0.0 { value } else { 0.0 });
    Matrix::from_flat(rows, columns, values.collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_shape_equals_the_nested_loops(rows in 1..90_usize, depth in 1..90_usize, columns in 1..90_usize, seed: u32) {
        let (left, right) = (whole(rows, depth, seed), whole(depth, columns, !seed));
        let product = multiply(&left, &right, ELEMENTS_MAX, &Control::new()).unwrap();
        prop_assert_eq!((product.rows(), product.columns()), (rows, columns));
        prop_assert_eq!(product.values(), naive(&left, &right));
    }

    #[test]
    fn sparse_products_equal_dense_ones(rows in 1..150_usize, depth in 1..60_usize, columns in 1..60_usize, seed: u32) {
        let (left, right) = (thinned(whole(rows, depth, seed)), thinned(whole(depth, columns, !seed)));
        let product = multiply_sparse(&sparse_of(&left), &sparse_of(&right), ELEMENTS_MAX, &Control::new()).unwrap();
        prop_assert_eq!(dense_of(&product).into_values(), naive(&left, &right));
        prop_assert!((0..rows).all(|row| product.row(row).1.iter().all(|value| *value != 0.0)), "no explicit zeros");
    }
}

#[test]
fn products_larger_than_a_tile_in_every_direction_are_whole() {
    for (rows, depth, columns) in [(530, 40, 700), (300, 1100, 30), (1, 1300, 1100), (1025, 1, 17)] {
        let (left, right) = (whole(rows, depth, 1), whole(depth, columns, 2));
        let control = Control::new();
        let product = multiply(&left, &right, ELEMENTS_MAX, &control).unwrap();
        assert_eq!(product.values(), naive(&left, &right), "{rows} × {depth} × {columns}");
        assert_eq!(control.progress().fraction(), 1.0);
    }
}

#[test]
fn malformed_matrices_are_refused_with_their_place() {
    let rows = |rows: &[Vec<f64>]| Matrix::from_rows(rows).unwrap_err();
    assert_eq!(rows(&[]), Error::Empty { what: "rows" });
    assert_eq!(rows(&[vec![], vec![]]), Error::Empty { what: "columns" });
    assert_eq!(rows(&[vec![1.0, 2.0], vec![3.0]]), Error::Ragged { row: 1, actual: 1, expected: 2 });
    assert_eq!(rows(&[vec![1.0, 2.0], vec![3.0, f64::NAN]]), Error::NotFinite { row: 1, column: 1 });
    assert_eq!(
        rows(&[vec![0.0; 9], [vec![0.0; 8], vec![f64::INFINITY]].concat()]),
        Error::NotFinite { row: 1, column: 8 }
    );
    let flat = Matrix::from_flat(usize::MAX, 2, vec![1.0]).unwrap_err();
    assert_eq!(flat, Error::Length { what: "values", actual: 1, expected: usize::MAX });
    let sparse = |columns: usize, rows: &[Vec<(u32, f64)>]| SparseMatrix::from_rows(columns, rows).unwrap_err();
    assert_eq!(sparse(3, &[]), Error::Empty { what: "rows" });
    assert_eq!(sparse(0, &[vec![]]), Error::Empty { what: "columns" });
    assert_eq!(sparse(3, &[vec![], vec![(3, 1.0)]]), Error::ColumnOutOfRange { row: 1, column: 3, columns: 3 });
    assert_eq!(sparse(3, &[vec![(2, 1.0), (0, 1.0), (2, 2.0)]]), Error::DuplicateEntry { row: 0, entry: 2 });
    assert_eq!(sparse(3, &[vec![(2, f64::NAN)]]), Error::NotFinite { row: 0, column: 0 });
}

#[test]
fn products_that_do_not_fit_are_refused() {
    let (left, right) = (whole(3, 4, 0), whole(3, 4, 0));
    let control = Control::new();
    let mismatch = Error::Dimensions { left_columns: 4, right_rows: 3 };
    assert_eq!(multiply(&left, &right, ELEMENTS_MAX, &control), Err(mismatch.clone()));
    assert_eq!(multiply_sparse(&sparse_of(&left), &sparse_of(&right), ELEMENTS_MAX, &control), Err(mismatch));
    let square = whole(3, 3, 0);
    let too_large = Error::TooLarge { what: "elements of the product", asked: 9, limit: 8 };
    assert_eq!(multiply(&square, &square, 8, &control), Err(too_large));
    let ones = sparse_of(&Matrix::from_flat(3, 3, vec![1.0; 9]).unwrap());
    let too_large = Error::TooLarge { what: "entries of the product", asked: 9, limit: 8 };
    assert_eq!(multiply_sparse(&ones, &ones, 8, &control), Err(too_large));
    assert_eq!(multiply_sparse(&ones, &ones, 9, &control).unwrap().entries(), 9);
}

#[test]
fn a_result_beyond_the_range_of_a_float_is_an_error_not_an_infinity() {
    let huge = Matrix::from_rows(&[[1.0, 1.0], [1e200, 1.0]]).unwrap();
    assert_eq!(multiply(&huge, &huge, 4, &Control::new()).unwrap().rows(), 2);
    let huge = Matrix::from_rows(&[[1.0, 0.0], [0.0, 1e200]]).unwrap();
    assert_eq!(multiply(&huge, &huge, 4, &Control::new()), Err(Error::Overflow { row: 1 }));
    let sparse = sparse_of(&huge);
    assert_eq!(multiply_sparse(&sparse, &sparse, 4, &Control::new()), Err(Error::Overflow { row: 1 }));
}

#[test]
fn a_column_number_costs_nothing_in_a_sparse_product() {
    let last = u32::MAX - 1;
    let left = SparseMatrix::from_rows(1, &[vec![(0, 2.0)]]).unwrap();
    let right = SparseMatrix::from_rows(u32::MAX as usize, &[vec![(last, 3.0)]]).unwrap();
    let product = multiply_sparse(&left, &right, 1, &Control::new()).unwrap();
    assert_eq!(product.row(0), (&[last][..], &[6.0][..]));
}

#[test]
fn a_cancelled_product_gives_no_result() {
    let control = Control::new();
    control.clone().cancel();
    let square = whole(3, 3, 0);
    assert_eq!(multiply(&square, &square, ELEMENTS_MAX, &control), Err(Error::Cancelled));
    let sparse = sparse_of(&square);
    assert_eq!(multiply_sparse(&sparse, &sparse, ELEMENTS_MAX, &control), Err(Error::Cancelled));
}
