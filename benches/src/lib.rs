//! Workloads and baselines.

pub mod compute;
