//! Filling a cache before it is asked.

/// How far warming is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Keys to be warmed.
    pub total: usize,
    /// Keys done, whatever came of them.
    pub done: usize,
}

/// What came of warming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Keys that have a value in memory now.
    pub warmed: usize,
    /// Keys without a value, on Redis or for the loader.
    pub missing: usize,
    /// Keys whose load failed.
    pub failed: usize,
}
