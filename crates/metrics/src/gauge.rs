//! A number that goes up and down.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::labels::Labels;

/// A number that goes up and down. Cheap to clone; clones are the same series.
#[derive(Clone)]
pub struct Gauge(Arc<Core>);

struct Core {
    labels: Labels,
    /// An `f64` as bits. One cell for all threads, because `set` must win over earlier additions.
    bits: AtomicU64,
}

impl Gauge {
    pub(crate) fn new(labels: Labels) -> Self {
        Self(Arc::new(Core { labels, bits: AtomicU64::new(0.0f64.to_bits()) }))
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.0.labels
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, v: f64) {
        self.0.bits.store(v.to_bits(), Relaxed);
    }

    /// Adds `v`; concurrent additions are all kept.
    #[inline]
    pub fn add(&self, v: f64) {
        let mut seen = self.0.bits.load(Relaxed);
        loop {
            let next = (f64::from_bits(seen) + v).to_bits();
            match self.0.bits.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(current) => seen = current,
            }
        }
    }

    /// Subtracts `v`; concurrent subtractions are all kept.
    #[inline]
    pub fn sub(&self, v: f64) {
        self.add(-v);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.bits.load(Relaxed))
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauge").field(&self.get()).finish()
    }
}
