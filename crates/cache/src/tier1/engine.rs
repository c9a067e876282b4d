//! The seam to the engine that decides what is evicted: quick_cache (S3-FIFO-like, sharded, nothing but a flag written
//! on a hit).
//!
//! Bytes and entries are both bounded by one capacity in bytes: an entry weighs what it takes, and at least its share if
//! there were as many entries as there may be.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter};
use tidegate_metrics::Counter;

use super::entry::{Entry, Terms};
use crate::config::Config;
use crate::key::{Hashed, Key, KeyRef};
use crate::stats::Metrics;

/// What the engine and the allocator take for an entry besides key and value (bench `cache`, section `memory`).
pub(super) const ENTRY_BYTES: u64 = 176;
/// What the engine takes to remember an entry it evicted.
const GHOST_BYTES: u64 = 128;
/// Of the bytes there may be, at most this part is spent on those.
const GHOSTS_PART: u64 = 32;
/// This part of the bytes is left to what the allocator rounds up and the engine's tables grow by.
const SPARE_PART: u64 = 32;
/// A shard holds at least this many of the largest values.
const LARGEST_PER_SHARD: u64 = 8;
/// Shards are no larger than this, so that walking one holds others up for a millisecond at most.
const SHARD_ENTRIES: usize = 65_536;

pub(super) struct Engine<V> {
    cache: Cache<Kept, Option<V>, Weigh, Hashed, Evicted>,
    /// Bytes its entries take.
    held: Arc<AtomicU64>,
}

/// A key and the terms of its value. The engine copies a value out under its lock, and all a reader is shown before is the
/// key: terms that lie there are judged in place, so that a hit copies nothing but the value.
struct Kept {
    key: Key,
    terms: Terms,
    held: Arc<AtomicU64>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        ENTRY_BYTES + self.key.text().len() as u64 + u64::from(self.terms.weight)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// A key that is looked up, and what is to be told of the terms found there.
struct Asked<'a, F> {
    key: KeyRef<'a>,
    judge: F,
}

impl<F> Hash for Asked<'_, F> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl<F: Fn(&Terms)> Equivalent<Kept> for Asked<'_, F> {
    #[inline]
    fn equivalent(&self, kept: &Kept) -> bool {
        let is_it = self.key.equivalent(&kept.key);
        if is_it {
            (self.judge)(&kept.terms);
        }
        is_it
    }
}

/// Bytes of an entry, or its least share.
#[derive(Clone, Debug)]
struct Weigh {
    least: u64,
}

impl<V> Weighter<Kept, Option<V>> for Weigh {
    fn weight(&self, kept: &Kept, _: &Option<V>) -> u64 {
        self.least.max(kept.bytes())
    }
}

/// Counts what is evicted (not what is replaced), and drops either after the shard's lock is given back.
#[derive(Clone, Debug)]
struct Evicted(Counter);

impl<V> Lifecycle<Kept, Option<V>> for Evicted {
    type RequestState = [Option<(Kept, Option<V>)>; 2];

    fn begin_request(&self) -> Self::RequestState {
        [None, None]
    }

    fn before_evict(&self, _: &mut Self::RequestState, _: &Kept, _: &mut Option<V>) {
        self.0.inc();
    }

    fn on_evict(&self, state: &mut Self::RequestState, kept: Kept, value: Option<V>) {
        if let Some(free) = state.iter_mut().find(|place| place.is_none()) {
            *free = Some((kept, value));
        }
    }
}

impl<V: Clone> Engine<V> {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Self {
        let entries = config.entries_max;
        let largest = ENTRY_BYTES + (config.value_bytes_max + config.key_bytes_max) as u64;
        let fit = usize::try_from(config.bytes_max / (largest * LARGEST_PER_SHARD)).unwrap_or(usize::MAX).max(1);
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let shards = (cores * 4).max(entries / SHARD_ENTRIES).min(fit).min((entries / 256).max(1));
        // The engine takes the next power of two.
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        // The engine remembers hashes of what it evicted, each in a place of its own: they count as well.
        let ghosts = (entries as u64 / 2).min(config.bytes_max / GHOSTS_PART / GHOST_BYTES);
        let capacity = config.bytes_max - ghosts * GHOST_BYTES - config.bytes_max / SPARE_PART;
        let fitting = usize::try_from(config.bytes_max / (ENTRY_BYTES + 64)).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(entries.min(fitting).max(1))
            .ghost_allocation((ghosts as f64 / entries.min(fitting).max(1) as f64).clamp(0.0, 0.5))
            .weight_capacity(capacity)
            .shards(shards)
            .build()
            .expect("all that is needed is given");
        let least = capacity / entries as u64;
        let cache = Cache::with_options(options, Weigh { least }, Hashed, Evicted(metrics.evictions.clone()));
        Self { cache, held: Arc::default() }
    }

    /// The value of a key, after `judge` was told its terms.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>, judge: impl Fn(&Terms)) -> Option<Option<V>> {
        self.cache.get(&Asked { key, judge })
    }

    pub(super) fn insert(&self, key: KeyRef<'_>, entry: Entry<V>) {
        let kept = Kept { key: key.to_key(), terms: entry.terms, held: self.held.clone() };
        self.held.fetch_add(kept.bytes(), Ordering::Relaxed);
        self.cache.insert(kept, entry.value);
    }

    pub(super) fn remove(&self, key: KeyRef<'_>) -> Option<Entry<V>> {
        let (kept, value) = self.cache.remove(&Asked { key, judge: |_: &Terms| () })?;
        Some(Entry { value, terms: kept.terms.clone() })
    }

    /// Walks all entries, shard by shard, and keeps those that are to be kept. Takes a while: never on an async thread.
    pub(super) fn retain(&self, keep: impl Fn(&Key, &Terms, &Option<V>) -> bool) {
        self.cache.retain(|kept, value| keep(&kept.key, &kept.terms, value));
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// Bytes its entries take.
    pub(super) fn bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl<V> fmt::Debug for Engine<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}
