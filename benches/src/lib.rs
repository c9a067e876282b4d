//! Workloads and baselines.
