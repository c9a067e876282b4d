//! The figures of one timed operation, ready to be shown.

use std::time::Duration;

use crate::snapshot::Snapshot;

/// One timer's figures since it was made. Count, total, minimum, maximum and average are exact; percentiles are
/// nearest-rank and within 1 %. Everything is zero before the first recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationStats {
    /// The name the timer was asked for with.
    pub name: &'static str,
    /// Label names and values, ordered by name.
    pub labels: Vec<(&'static str, String)>,
    /// Recordings of every outcome.
    pub count: u64,
    /// How many of `count` failed.
    pub failed: u64,
    /// How many of `count` were dropped before they had an outcome.
    pub cancelled: u64,
    /// All durations together.
    pub total: Duration,
    /// The shortest duration.
    pub min: Duration,
    /// The longest duration.
    pub max: Duration,
    /// `total / count`.
    pub avg: Duration,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

impl OperationStats {
    pub(crate) fn new(name: &'static str, labels: Vec<(&'static str, String)>, snapshot: &Snapshot) -> Self {
        Self {
            name,
            labels,
            count: snapshot.count(),
            failed: snapshot.failed(),
            cancelled: snapshot.cancelled(),
            total: snapshot.total(),
            min: snapshot.min(),
            max: snapshot.max(),
            avg: snapshot.mean(),
            p50: snapshot.quantile(0.50),
            p90: snapshot.quantile(0.90),
            p95: snapshot.quantile(0.95),
            p99: snapshot.quantile(0.99),
        }
    }
}
