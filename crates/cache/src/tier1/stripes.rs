//! Epochs of keys: each change of a key moves the epoch of its stripe.

use parking_lot::{Mutex, MutexGuard};

/// More stripes only make it rarer that the change of one key refuses a running fill of another. 16 384: 256 KiB, and at
/// ten thousand changes a second one fill of 16 ms in a hundred is refused for nothing.
const STRIPES_MAX: usize = 16_384;

/// Alone each epoch is 16 bytes; neighbours on a cache line are no hot spot, as keys are spread by their hash.
#[derive(Debug)]
pub(super) struct Stripes(Box<[Mutex<u64>]>);

impl Stripes {
    pub(super) fn new(entries_max: usize) -> Self {
        let count = entries_max.next_power_of_two().clamp(256, STRIPES_MAX);
        Self((0..count).map(|_| Mutex::new(0)).collect())
    }

    /// The epoch of a key, held while what depends on it is done.
    #[inline]
    pub(super) fn lock(&self, hash: u64) -> MutexGuard<'_, u64> {
        // The upper half: the engine takes the lower for its shards.
        let index = (hash >> 32) as usize & (self.0.len() - 1);
        self.0[index].lock()
    }
}
