//! A sparse matrix: of each row, the columns that hold something.

use std::ops::Range;

use crate::Error;

/// A sparse matrix of finite 64-bit floats in compressed rows (CSR), columns ascending within a row.
///
/// An entry may be 0: for ratings, "rated 0" is not "not rated".
#[derive(Debug, Clone, PartialEq)]
pub struct SparseMatrix {
    pub(super) columns: usize,
    /// Where each row begins in the two lists below; one more than there are rows.
    pub(super) offsets: Vec<usize>,
    pub(super) indices: Vec<u32>,
    pub(super) values: Vec<f64>,
}

impl SparseMatrix {
    /// Copies rows of `(column, value)` entries, in any order within a row. A row may be empty; the matrix may not.
    ///
    /// # Errors
    /// `Empty` without rows or columns, `ColumnOutOfRange`, `DuplicateEntry`, `NotFinite` (`column` is the place in the row),
    /// `TooLarge` beyond 2³² − 1 columns.
    pub fn from_rows<R: AsRef<[(u32, f64)]>>(columns: usize, rows: &[R]) -> Result<Self, Error> {
        if rows.is_empty() {
            return Err(Error::Empty { what: "rows" });
        }
        if columns == 0 {
            return Err(Error::Empty { what: "columns" });
        }
        if columns > u32::MAX as usize {
            return Err(Error::TooLarge { what: "columns", asked: columns, limit: u32::MAX as usize });
        }
        let mut matrix = Self { columns, offsets: vec![0], indices: Vec::new(), values: Vec::new() };
        for (row, entries) in rows.iter().map(AsRef::as_ref).enumerate() {
            matrix.push_row(row, entries)?;
        }
        Ok(matrix)
    }

    fn push_row(&mut self, row: usize, entries: &[(u32, f64)]) -> Result<(), Error> {
        if let Some(place) = entries.iter().position(|(_, value)| !value.is_finite()) {
            return Err(Error::NotFinite { row, column: place });
        }
        if let Some(&(column, _)) = entries.iter().find(|(column, _)| *column as usize >= self.columns) {
            return Err(Error::ColumnOutOfRange { row, column: column as usize, columns: self.columns });
        }
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_unstable_by_key(|&place| (entries[place].0, place));
        if let Some(twice) = order.windows(2).find(|two| entries[two[0]].0 == entries[two[1]].0) {
            return Err(Error::DuplicateEntry { row, entry: twice[1] });
        }
        self.indices.extend(order.iter().map(|&place| entries[place].0));
        self.values.extend(order.iter().map(|&place| entries[place].1));
        self.offsets.push(self.indices.len());
        Ok(())
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// How many columns there are.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.indices.len()
    }

    /// The columns and the values of one row, columns ascending.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u32], &[f64]) {
        let range = self.range(row);
        (&self.indices[range.clone()], &self.values[range])
    }

    /// The columns that hold anything, ascending, and for each entry the place of its column among them.
    ///
    /// Working memory per column is then bounded by the entries, however many columns a caller declares.
    pub(crate) fn used_columns(&self) -> (Vec<u32>, Vec<u32>) {
        if self.columns > 4 * self.entries() + 1024 {
            return self.used_of_many_columns();
        }
        let mut place = vec![0; self.columns];
        self.indices.iter().for_each(|column| place[*column as usize] = 1);
        let used: Vec<u32> = (0..self.columns as u32).filter(|column| place[*column as usize] == 1).collect();
        (0..).zip(&used).for_each(|(next, column)| place[*column as usize] = next);
        let places = self.indices.iter().map(|column| place[*column as usize]).collect();
        (used, places)
    }

    fn used_of_many_columns(&self) -> (Vec<u32>, Vec<u32>) {
        let mut used = self.indices.clone();
        used.sort_unstable();
        used.dedup();
        let place = |column: &u32| used.partition_point(|known| known < column) as u32;
        let places = self.indices.iter().map(place).collect();
        (used, places)
    }

    /// Where a row's entries stand in lists that hold one thing per entry.
    pub(crate) fn range(&self, row: usize) -> Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }
}
