//! Workloads and baselines.

pub mod compute;
pub mod events;
pub mod measure;
pub mod peers;
pub mod queue;
pub mod queue_raw;
pub mod queue_sqlite;
pub mod redis;
pub mod redis_queue;
