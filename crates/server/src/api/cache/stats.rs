//! How the cache stands.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use tidegate_cache::{Stats, TierStats};

use crate::api::render::{Envelope, Success, ok};
use crate::app::App;

/// The figures of this server's part of the cache, since its start.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheStats {
    /// Reads that were given a value.
    hits: u64,
    /// Reads that found none.
    misses: u64,
    /// Hits of all reads, 0 to 1.
    hit_rate: f64,
    /// Values in memory.
    size: u64,
    /// Values there may be (`cache_entries_max`).
    max_size: u64,
    /// `size` of `maxSize`, 0 to 1.
    utilization: f64,
    /// Bytes in memory: keys, values and what keeping them takes.
    memory_usage: u64,
    /// Bytes there may be (`cache_bytes_max`).
    max_memory: u64,
    tiers: Tiers,
    /// Loads begun. Loads are made by users of the library, none over HTTP.
    loads: u64,
    /// Loads that failed.
    load_failures: u64,
    /// Loads that run now.
    loading: u64,
    /// Callers who shared a load that ran already.
    coalesced: u64,
    /// Values given past their TTL, as a load asked for.
    stale_served: u64,
    /// Values not kept because they were invalidated while they were fetched.
    raced: u64,
    /// Values evicted from memory because it was full.
    evictions: u64,
    /// Values removed from memory because they had expired.
    expirations: u64,
    /// Keys that other processes changed.
    invalidations: u64,
    /// Times everything in memory was given up: clears, a lost link to Redis, `FLUSHALL`.
    flushes: u64,
    /// Reads that went past memory because the link to Redis was not verified.
    bypassed: u64,
    /// Values on Redis that could not be read.
    unreadable: u64,
    queue: InvalidationQueueStats,
}

/// Reads by tier.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tiers {
    memory: Tier,
    /// Absent without a Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Tier>,
}

/// Reads of one tier.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tier {
    hits: u64,
    misses: u64,
    /// Hits of all reads of this tier, 0 to 1.
    hit_rate: f64,
}

/// The queue of invalidations.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InvalidationQueueStats {
    /// Invalidations put in.
    queued: u64,
    /// Invalidations that wait.
    waiting: u64,
    /// Invalidations applied one by one.
    applied: u64,
    /// Invalidations dropped because the queue was full, each covered by invalidating everything.
    dropped: u64,
    /// How often everything was invalidated for those.
    coarsened: u64,
    /// `cache_queue_max`
    max_queue_size: u64,
    /// `cache_queue_drop`: `oldest` or `newest`.
    queue_drop_policy: &'static str,
    /// `cache_auto_invalidate`
    auto_invalidate: bool,
}

impl From<TierStats> for Tier {
    fn from(stats: TierStats) -> Self {
        Self { hits: stats.hits, misses: stats.misses, hit_rate: stats.hit_rate() }
    }
}

impl CacheStats {
    fn new(stats: &Stats, queue: InvalidationQueueStats) -> Self {
        Self {
            hits: stats.hits,
            misses: stats.misses,
            hit_rate: stats.hit_rate(),
            size: stats.size,
            max_size: stats.size_max,
            utilization: stats.utilization(),
            memory_usage: stats.bytes,
            max_memory: stats.bytes_max,
            tiers: Tiers { memory: stats.memory.into(), redis: stats.redis.map(Tier::from) },
            loads: stats.loads,
            load_failures: stats.load_failures,
            loading: stats.loading,
            coalesced: stats.coalesced,
            stale_served: stats.stale_served,
            raced: stats.raced,
            evictions: stats.evictions,
            expirations: stats.expirations,
            invalidations: stats.invalidations,
            flushes: stats.flushes,
            bypassed: stats.bypassed,
            unreadable: stats.unreadable,
            queue,
        }
    }
}

impl InvalidationQueueStats {
    pub(super) fn of(app: &App) -> Self {
        let stats = app.cache.invalidations.stats();
        Self {
            queued: stats.queued,
            waiting: stats.waiting,
            applied: stats.applied,
            dropped: stats.dropped,
            coarsened: stats.coarsened,
            max_queue_size: app.config.cache_queue_max as u64,
            queue_drop_policy: app.config.cache_queue_drop.name(),
            auto_invalidate: app.config.cache_auto_invalidate,
        }
    }
}

/// How the cache stands, seen from this server.
#[utoipa::path(get, path = "/api/performance/cache/stats", operation_id = "cache_stats", tag = "cache",
    responses((status = 200, body = Envelope<CacheStats>)))]
pub(crate) async fn stats(State(app): State<Arc<App>>) -> Success<CacheStats> {
    ok(CacheStats::new(&app.cache.values.stats(), InvalidationQueueStats::of(&app)))
}
