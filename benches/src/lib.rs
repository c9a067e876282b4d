//! Workloads and baselines.

pub mod cache;
pub mod cache_memory;
pub mod cache_policies;
pub mod cache_races;
pub mod cache_redis;
pub mod compute;
pub mod events;
pub mod measure;
pub mod peers;
pub mod queue;
pub mod queue_raw;
pub mod queue_sqlite;
pub mod redis;
pub mod redis_queue;
