//! What is counted: [`Stats`] read the same counters that are exported.

use tidegate_metrics::{Counter, Gauge, Registry};

/// A snapshot of this process's part of a cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Reads that were given a value, from any tier.
    pub hits: u64,
    /// Reads that found none in any tier.
    pub misses: u64,
    /// Tier 1.
    pub memory: TierStats,
    /// Tier 2; `None` where there is none.
    pub redis: Option<TierStats>,
    /// Entries in tier 1.
    pub size: u64,
    /// Entries it may hold.
    pub size_max: u64,
    /// Bytes of tier 1: keys, values and what keeping them takes.
    pub bytes: u64,
    /// Bytes it may hold.
    pub bytes_max: u64,
    /// Loads begun.
    pub loads: u64,
    /// Loads that failed, timed out or panicked.
    pub load_failures: u64,
    /// Loads that run now.
    pub loading: u64,
    /// Callers who shared a load that ran already.
    pub coalesced: u64,
    /// Values given past their TTL, as asked for.
    pub stale_served: u64,
    /// Fills that were not kept because what they brought was invalidated meanwhile.
    pub raced: u64,
    /// Entries evicted because tier 1 was full.
    pub evictions: u64,
    /// Entries removed because they had expired.
    pub expirations: u64,
    /// Keys that Redis told were changed.
    pub invalidations: u64,
    /// Times everything in tier 1 was given up because nobody knew what others had changed, or everything had: lost links,
    /// `FLUSHALL`, another generation of the cache.
    pub flushes: u64,
    /// Reads that went past tier 1 because the link was not verified.
    pub bypassed: u64,
    /// Values on Redis that could not be read.
    pub unreadable: u64,
    /// Loaded values that were too large to be kept: each is loaded anew every time.
    pub too_large: u64,
}

/// Reads of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Reads that found a value there.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
}

impl Stats {
    /// Of all reads, the part that was given a value; zero while there was none.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }

    /// Entries of those there may be, 0 to 1.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        self.size as f64 / self.size_max.max(1) as f64
    }
}

impl TierStats {
    /// Of all reads of this tier, the part that found a value.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

fn rate(hits: u64, misses: u64) -> f64 {
    match hits + misses {
        0 => 0.0,
        all => hits as f64 / all as f64,
    }
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) memory_hits: Counter,
    pub(crate) memory_misses: Counter,
    pub(crate) redis_hits: Counter,
    pub(crate) redis_misses: Counter,
    pub(crate) size: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) loads: Counter,
    pub(crate) load_failures: Counter,
    pub(crate) loading: Gauge,
    pub(crate) coalesced: Counter,
    pub(crate) stale_served: Counter,
    pub(crate) raced: Counter,
    pub(crate) evictions: Counter,
    pub(crate) expirations: Counter,
    pub(crate) invalidations: Counter,
    pub(crate) flushes: Counter,
    pub(crate) bypassed: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) too_large: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, cache: &str) -> Self {
        let counter = |name, help| registry.counter_with(name, help, &[("cache", cache)]);
        let gauge = |name, help| registry.gauge_with(name, help, &[("cache", cache)]);
        let reads = |tier, result| {
            let help = "Reads of a tier of a cache, by what they found.";
            registry.counter_with(
                "tidegate_cache_reads_total",
                help,
                &[("cache", cache), ("tier", tier), ("result", result)],
            )
        };
        Self {
            memory_hits: reads("memory", "hit"),
            memory_misses: reads("memory", "miss"),
            redis_hits: reads("redis", "hit"),
            redis_misses: reads("redis", "miss"),
            size: gauge("tidegate_cache_entries", "Entries in memory."),
            bytes: gauge("tidegate_cache_bytes", "Bytes of entries in memory."),
            loads: counter("tidegate_cache_loads_total", "Loads begun."),
            load_failures: counter("tidegate_cache_load_failures_total", "Loads that failed, timed out or panicked."),
            loading: gauge("tidegate_cache_loading", "Loads that run now."),
            coalesced: counter("tidegate_cache_coalesced_total", "Callers who shared a load that ran already."),
            stale_served: counter("tidegate_cache_stale_served_total", "Values given past their TTL, as asked for."),
            raced: counter(
                "tidegate_cache_raced_total",
                "Fills not kept because what they brought was invalidated meanwhile.",
            ),
            evictions: counter("tidegate_cache_evictions_total", "Entries evicted because memory was full."),
            expirations: counter("tidegate_cache_expirations_total", "Entries removed because they had expired."),
            invalidations: counter("tidegate_cache_invalidations_total", "Keys that Redis told were changed."),
            flushes: counter("tidegate_cache_flushes_total", "Times everything in memory was given up."),
            bypassed: counter(
                "tidegate_cache_bypassed_total",
                "Reads that went past memory because the link was not verified.",
            ),
            unreadable: counter("tidegate_cache_unreadable_total", "Values on Redis that could not be read."),
            too_large: counter("tidegate_cache_too_large_total", "Loaded values that were too large to be kept."),
        }
    }
}
