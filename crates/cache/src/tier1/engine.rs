//! The seam to the engine that decides what is evicted: quick_cache (S3-FIFO-like, sharded, nothing but a flag written
//! on a hit).
//!
//! Bytes and entries are both bounded by one capacity in bytes: an entry weighs what it takes, and at least its share if
//! there were as many entries as there may be.

use std::fmt;

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use tidegate_metrics::Counter;

use super::entry::Entry;
use crate::config::Config;
use crate::key::{Hashed, Key, KeyRef};
use crate::stats::Metrics;

/// What the engine and the allocator take for an entry besides key and value (bench `cache`, section `memory`).
pub(super) const ENTRY_BYTES: u64 = 160;
/// A shard holds at least this many of the largest values.
const LARGEST_PER_SHARD: u64 = 8;
/// Shards are no larger than this, so that walking one holds others up for a millisecond at most.
const SHARD_ENTRIES: usize = 65_536;

pub(super) struct Engine<V> {
    cache: Cache<Key, Entry<V>, Weigh, Hashed, Evicted>,
}

/// Bytes of an entry, or its least share.
#[derive(Clone, Debug)]
struct Weigh {
    least: u64,
}

impl<V> Weighter<Key, Entry<V>> for Weigh {
    fn weight(&self, key: &Key, entry: &Entry<V>) -> u64 {
        self.least.max(ENTRY_BYTES + key.text().len() as u64 + u64::from(entry.weight))
    }
}

/// Counts what is evicted, and drops it after the shard's lock is given back.
#[derive(Clone, Debug)]
struct Evicted(Counter);

impl<V> Lifecycle<Key, Entry<V>> for Evicted {
    type RequestState = [Option<(Key, Entry<V>)>; 2];

    fn begin_request(&self) -> Self::RequestState {
        [None, None]
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: Key, entry: Entry<V>) {
        self.0.inc();
        if let Some(free) = state.iter_mut().find(|place| place.is_none()) {
            *free = Some((key, entry));
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
        let options = OptionsBuilder::new()
            .estimated_items_capacity(entries)
            .weight_capacity(config.bytes_max)
            .shards(shards)
            .build()
            .expect("all that is needed is given");
        let least = config.bytes_max / entries as u64;
        let cache = Cache::with_options(options, Weigh { least }, Hashed, Evicted(metrics.evictions.clone()));
        Self { cache }
    }

    #[inline]
    pub(super) fn get(&self, key: &KeyRef<'_>) -> Option<Entry<V>> {
        self.cache.get(key)
    }

    pub(super) fn insert(&self, key: KeyRef<'_>, entry: Entry<V>) {
        self.cache.insert(key.to_key(), entry);
    }

    pub(super) fn remove(&self, key: &KeyRef<'_>) -> Option<Entry<V>> {
        self.cache.remove(key).map(|(_, entry)| entry)
    }

    /// Walks all entries, shard by shard, and keeps those that are to be kept. Takes a while: never on an async thread.
    pub(super) fn retain(&self, keep: impl Fn(&Key, &Entry<V>) -> bool) {
        self.cache.retain(keep);
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// What its entries weigh.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

impl<V> fmt::Debug for Engine<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}
