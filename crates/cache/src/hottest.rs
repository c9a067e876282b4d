//! The keys asked for most, by sampling: every 64th hit of a thread is looked at.

use std::cell::Cell;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

/// Of so many hits one is looked at.
const SAMPLE: u32 = 64;
/// Keys that are counted at most; when there are more, all counts are halved and the rarest forgotten.
const KEYS_MAX: usize = 8192;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(SAMPLE) };
}

/// Counts of sampled keys.
#[derive(Debug, Default)]
pub(crate) struct Hottest(Mutex<HashMap<Box<str>, u32, RandomState>>);

impl Hottest {
    /// A key was asked for.
    #[inline]
    pub(crate) fn hit(&self, key: &str) {
        let left = LEFT.get();
        if left > 1 {
            LEFT.set(left - 1);
            return;
        }
        LEFT.set(SAMPLE);
        self.count(key);
    }

    #[cold]
    fn count(&self, key: &str) {
        // Whoever finds it busy lets it be: it is a sample.
        let Some(mut counts) = self.0.try_lock() else { return };
        *counts.entry_ref(key).or_insert(0) += 1;
        while counts.len() > KEYS_MAX {
            counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }

    /// The hottest keys first, `most` at most.
    pub(crate) fn top(&self, most: usize) -> Vec<Box<str>> {
        let mut keys: Vec<(u32, Box<str>)> = self.0.lock().iter().map(|(key, &count)| (count, key.clone())).collect();
        keys.sort_unstable_by(|one, other| other.cmp(one));
        keys.into_iter().take(most).map(|(_, key)| key).collect()
    }
}
