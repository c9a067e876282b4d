//! The entities to compare: ids, and a dense or sparse row for each.

use std::collections::HashMap;
use std::hash::Hash;

use crate::Error;
use crate::matrix::{Matrix, SparseMatrix};

/// Entities with distinct ids, all dense or all sparse. `I` is whatever the caller names them by; its order breaks ties.
#[derive(Debug, Clone)]
pub struct Entities<I> {
    ids: Vec<I>,
    rows: Rows,
    /// Places in `ids`, least id first.
    order: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum Rows {
    Dense(Matrix),
    Sparse(SparseMatrix),
}

impl<I: Ord> Entities<I> {
    /// Entities with a value in every column.
    ///
    /// # Errors
    /// `Empty`, `Ragged`, `NotFinite` or `DuplicateId`, with places counted in the order of `entities`.
    pub fn dense<V: AsRef<[f64]>>(entities: impl IntoIterator<Item = (I, V)>) -> Result<Self, Error> {
        let (ids, rows): (Vec<I>, Vec<V>) = entities.into_iter().unzip();
        if ids.is_empty() {
            return Err(Error::Empty { what: "entities" });
        }
        Self::from_matrix(ids, Matrix::from_rows(&rows)?)
    }

    /// Entities that rate some items each; one without ratings is allowed and forms no pair.
    ///
    /// # Errors
    /// `Empty`, `DuplicateEntry` (an item rated twice by one entity), `NotFinite`, `DuplicateId`.
    pub fn sparse<J, R>(entities: impl IntoIterator<Item = (I, R)>) -> Result<Self, Error>
    where
        J: Eq + Hash,
        R: IntoIterator<Item = (J, f64)>,
    {
        let mut columns: HashMap<J, u32> = HashMap::new();
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for (id, ratings) in entities {
            let mut row = Vec::new();
            for (item, rating) in ratings {
                let next = columns.len();
                let limit = u32::MAX as usize;
                let new = u32::try_from(next).map_err(|_| Error::TooLarge { what: "items", asked: next, limit })?;
                row.push((*columns.entry(item).or_insert(new), rating));
            }
            ids.push(id);
            rows.push(row);
        }
        if ids.is_empty() {
            return Err(Error::Empty { what: "entities" });
        }
        Self::from_sparse(ids, SparseMatrix::from_rows(columns.len().max(1), &rows)?)
    }

    /// Names the rows of a dense matrix.
    ///
    /// # Errors
    /// `Length` unless there is one id per row, `DuplicateId`.
    pub fn from_matrix(ids: Vec<I>, matrix: Matrix) -> Result<Self, Error> {
        Self::named(ids, matrix.rows(), Rows::Dense(matrix))
    }

    /// Names the rows of a sparse matrix.
    ///
    /// # Errors
    /// `Length` unless there is one id per row, `DuplicateId`.
    pub fn from_sparse(ids: Vec<I>, matrix: SparseMatrix) -> Result<Self, Error> {
        Self::named(ids, matrix.rows(), Rows::Sparse(matrix))
    }

    fn named(ids: Vec<I>, expected: usize, rows: Rows) -> Result<Self, Error> {
        if ids.len() != expected {
            return Err(Error::Length { what: "ids", actual: ids.len(), expected });
        }
        let limit = u32::MAX as usize;
        let count = u32::try_from(ids.len()).map_err(|_| Error::TooLarge { what: "entities", asked: ids.len(), limit });
        let mut order: Vec<u32> = (0..count?).collect();
        order.sort_by(|a, b| ids[*a as usize].cmp(&ids[*b as usize]));
        let same = |two: &&[u32]| ids[two[0] as usize] == ids[two[1] as usize];
        if let Some(two) = order.windows(2).find(same) {
            return Err(Error::DuplicateId { first: two[0] as usize, second: two[1] as usize });
        }
        Ok(Self { ids, rows, order })
    }

    /// How many there are; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The id at a place.
    ///
    /// # Panics
    /// If there is no such place.
    #[must_use]
    pub fn id(&self, place: usize) -> &I {
        &self.ids[place]
    }

    /// Places, least id first: the order in which everything inside works, so that a rank compares as its id does.
    pub(super) fn in_id_order(&self) -> Vec<u32> {
        self.order.clone()
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }
}
