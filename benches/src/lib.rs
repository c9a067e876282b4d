//! Workloads and baselines.

pub mod compute;
pub mod queue;
pub mod queue_raw;
pub mod queue_sqlite;
