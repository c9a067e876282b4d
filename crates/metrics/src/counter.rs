//! A number that only grows.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::labels::Labels;
use crate::stripe::{STRIPES, Stripe};

/// A number that only grows. Cheap to clone; clones are the same series.
#[derive(Clone)]
pub struct Counter(Arc<Core>);

struct Core {
    labels: Labels,
    cells: [OnceLock<Box<Cell>>; STRIPES],
}

/// Alone on its pair of cache lines: the neighbour belongs to another thread.
#[derive(Default)]
#[repr(align(128))]
struct Cell(AtomicU64);

impl Counter {
    pub(crate) fn new(labels: Labels) -> Self {
        Self(Arc::new(Core { labels, cells: Default::default() }))
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.0.labels
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        let stripe = Stripe::current();
        let slot = &self.0.cells[stripe.index()];
        match slot.get() {
            Some(cell) => stripe.add(&cell.0, n),
            None => stripe.add(&slot.get_or_init(Box::default).0, n),
        }
    }

    /// The sum of everything added so far, by all threads; additions under way may or may not be in it.
    pub fn get(&self) -> u64 {
        self.0.cells.iter().filter_map(OnceLock::get).map(|cell| cell.0.load(Relaxed)).sum()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.get()).finish()
    }
}
