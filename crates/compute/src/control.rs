//! How a caller stops long work and sees how far it is.
//!
//! ```
//! use tidegate_compute::{Control, Error, matrix::{self, Matrix}};
//!
//! let control = Control::new();
//! control.cancel(); // from any thread, at any time
//! let unit = Matrix::from_rows(&[[1.0, 0.0], [0.0, 1.0]])?;
//! assert_eq!(matrix::multiply(&unit, &unit, matrix::ELEMENTS_MAX, &control), Err(Error::Cancelled));
//! # Ok::<(), Error>(())
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use crate::Error;

/// A cancel flag and a progress counter for one piece of work; clones share both.
///
/// Work looks at the flag after each tile of about a millisecond, never waits for it, and answers
/// [`Error::Cancelled`]. A cancelled control stays cancelled: take a new one for the next piece of work.
#[derive(Debug, Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

/// How much of the work is done, in steps of roughly equal cost. `total` is 0 until the work has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps finished.
    pub done: u64,
    /// Steps there are.
    pub total: u64,
}

impl Progress {
    /// The part that is done, from 0 to 1; 0 before the work has begun.
    #[must_use]
    pub fn fraction(self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.done as f64 / self.total as f64).min(1.0) }
    }
}

impl Control {
    /// A control that is not cancelled and has seen no work.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop at its next tile.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called on this control or a clone of it.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Relaxed)
    }

    /// How far the work is; cheap enough to poll.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { done: self.shared.done.load(Relaxed), total: self.shared.total.load(Relaxed) }
    }

    /// `Err(Cancelled)` once the work was asked to stop.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Runs `tile` for 0, 1, … `count` on the current pool, looking at the flag before each and counting each as a step.
    pub(crate) fn for_each_tile(
        &self,
        count: usize,
        tile: impl Fn(usize) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        self.begin(count);
        match count {
            1 => self.step(|| tile(0)), // small work never pays for a visit to the pool
            _ => (0..count).into_par_iter().with_max_len(1).try_for_each(|index| self.step(|| tile(index))),
        }
    }

    /// The same over parts of a slice, `length` elements each, the last one perhaps shorter.
    pub(crate) fn for_each_part<T: Send>(
        &self,
        parts: &mut [T],
        length: usize,
        part: impl Fn(usize, &mut [T]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        self.begin(parts.len().div_ceil(length));
        if parts.len() <= length {
            return self.step(|| part(0, parts));
        }
        let parts = parts.par_chunks_mut(length).enumerate().with_max_len(1);
        parts.try_for_each(|(index, values)| self.step(|| part(index, values)))
    }

    fn begin(&self, count: usize) {
        self.shared.done.store(0, Relaxed);
        self.shared.total.store(count as u64, Relaxed);
    }

    fn step(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.check()?;
        work()?;
        self.shared.done.fetch_add(1, Relaxed);
        Ok(())
    }
}
