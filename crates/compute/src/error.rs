//! What can be wrong with the input, as facts. Rows, columns and samples are counted from 0.

/// Why a computation gave no answer. Each message finishes the phrase "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's [`Control`](crate::Control) was cancelled.
    #[error("finish: the computation was cancelled")]
    Cancelled,
    /// There is nothing to compute on.
    #[error("compute on {what}: there are none")]
    Empty {
        /// What is absent, in the plural.
        what: &'static str,
    },
    /// A row is longer or shorter than the first one.
    #[error("read row {row}: it has {actual} values, the rows before it have {expected}")]
    Ragged {
        /// The row.
        row: usize,
        /// Values in it.
        actual: usize,
        /// Values in the first row.
        expected: usize,
    },
    /// A list is not as long as what it describes.
    #[error("match {what}: {actual} were given where {expected} are needed")]
    Length {
        /// What the list holds, in the plural.
        what: &'static str,
        /// How many were given.
        actual: usize,
        /// How many are needed.
        expected: usize,
    },
    /// The left matrix needs as many columns as the right one has rows.
    #[error("multiply a matrix of {left_columns} columns by one of {right_rows} rows: the two must be equal")]
    Dimensions {
        /// Columns of the left matrix.
        left_columns: usize,
        /// Rows of the right matrix.
        right_rows: usize,
    },
    /// A value is infinite or not a number.
    #[error("use the value in row {row}, column {column}: it is not a finite number")]
    NotFinite {
        /// The value's row.
        row: usize,
        /// The value's column; among ratings, the place in the row.
        column: usize,
    },
    /// A sample is infinite. (A sample that is not a number is a missing one.)
    #[error("use sample {index}: it is infinite")]
    InfiniteSample {
        /// The sample's place in the series.
        index: u64,
    },
    /// A result left the range of a 64-bit float.
    #[error("represent the result in row {row}: it is beyond the range of a 64-bit float")]
    Overflow {
        /// The result's row.
        row: usize,
    },
    /// Two entities carry one id.
    #[error("tell entities {first} and {second} apart: they have the same id")]
    DuplicateId {
        /// The place of the first.
        first: usize,
        /// The place of the second.
        second: usize,
    },
    /// A row names one column, or rates one item, twice.
    #[error("read row {row}: entry {entry} repeats a column or item of that row")]
    DuplicateEntry {
        /// The row.
        row: usize,
        /// The place in the row where the repetition stands.
        entry: usize,
    },
    /// A sparse row names a column that the matrix does not have.
    #[error("read row {row}: it names column {column} of {columns}")]
    ColumnOutOfRange {
        /// The row.
        row: usize,
        /// The column it names.
        column: usize,
        /// How many there are.
        columns: usize,
    },
    /// Input or result is larger than the caller, or a 32-bit index, allows.
    #[error("hold {what}: there would be {asked}, the limit is {limit}")]
    TooLarge {
        /// What there would be too many of.
        what: &'static str,
        /// How many there would be, saturating.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// A rolling window of no samples.
    #[error("roll a window of 0 samples: it needs at least 1")]
    WindowEmpty,
    /// `min_similarity` is not a number.
    #[error("compare with min_similarity: it is not a number")]
    MinSimilarityNan,
}
