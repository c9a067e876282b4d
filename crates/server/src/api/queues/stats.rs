//! A queue as it is shown.

use serde::Serialize;
use tidegate_queue::{QueueStats, State};

/// How a queue stands.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueView {
    name: String,
    counts: CountsView,
    paused: bool,
    /// How long the job at the head has been available.
    oldest_wait_ms: Option<u64>,
    /// Bytes of unfinished jobs.
    bytes: u64,
    limits: LimitsView,
    rates: RatesView,
    /// Claims waiting for a job at this server.
    waiting_claims: u64,
}

/// Jobs by status.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CountsView {
    scheduled: u64,
    queued: u64,
    running: u64,
    retrying: u64,
    completed: u64,
    cancelled: u64,
    failed: u64,
}

/// Bounds of a queue; null for none.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitsView {
    jobs: u64,
    bytes: u64,
    running: Option<u32>,
    running_per_key: Option<u32>,
}

/// Over the last minute.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RatesView {
    enqueued_per_second: f64,
    finished_per_second: f64,
}

impl From<QueueStats> for QueueView {
    fn from(stats: QueueStats) -> Self {
        let of = |state| stats.counts.of(state);
        Self {
            name: stats.name.to_string(),
            counts: CountsView {
                scheduled: of(State::Scheduled),
                queued: of(State::Available),
                running: of(State::Running),
                retrying: of(State::Retryable),
                completed: of(State::Completed),
                cancelled: of(State::Cancelled),
                failed: of(State::Discarded),
            },
            paused: stats.paused,
            oldest_wait_ms: stats.oldest_wait.map(|wait| wait.as_millis() as u64),
            bytes: stats.bytes,
            limits: LimitsView {
                jobs: stats.jobs_max,
                bytes: stats.bytes_max,
                running: stats.running_limit,
                running_per_key: stats.key_limit,
            },
            rates: RatesView {
                enqueued_per_second: stats.enqueued_per_second,
                finished_per_second: stats.finished_per_second,
            },
            waiting_claims: stats.waiting_claims,
        }
    }
}
