//! A job as it is shown.

use serde::Serialize;
use tidegate_queue::{Job, UnixMillis};

use crate::api::render::instant;
use crate::api::wire::{Raw, Status};

/// What is known about a job.
#[derive(utoipa::ToSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    job_id: String,
    job_type: String,
    queue: String,
    status: Status,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Attempts started so far.
    attempt: u16,
    max_attempts: u16,
    /// 0 to 1, or null when the running attempt has not said.
    progress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_note: Option<String>,
    /// What the handler returned, byte for byte.
    #[schema(value_type = Option<Value>)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw")]
    result: Option<bytes::Bytes>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    created_at: String,
    /// When it will be available, while it waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    /// What its acknowledgement promised.
    durability: &'static str,
    /// The argument, byte for byte; left out of lists and events.
    #[schema(value_type = Option<Value>)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw")]
    data: Option<bytes::Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_key: Option<String>,
    /// How long one attempt may take, in ms.
    timeout: u64,
}

fn raw<S: serde::Serializer>(bytes: &Option<bytes::Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(Raw).serialize(serializer)
}

impl JobView {
    pub(crate) fn new(job: Job, durability: &'static str) -> Self {
        let text = |text: std::sync::Arc<str>| text.to_string();
        let at = |at: UnixMillis| instant(at.0);
        Self {
            job_id: job.id.to_string(),
            job_type: text(job.kind.clone()),
            queue: job.id.queue().to_string(),
            status: Status::of(&job),
            priority: job.priority,
            key: job.key.map(text),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            progress: job.progress,
            progress_note: job.progress_note.map(text),
            result: job.result,
            error: job.error.map(text),
            created_at: at(job.created_at),
            run_at: job.run_at.map(at),
            expires_at: job.expires_at.map(at),
            started_at: job.started_at.map(at),
            finished_at: job.finished_at.map(at),
            durability,
            data: None,
            dedup_key: job.dedup_key.map(text),
            timeout: job.timeout.as_millis() as u64,
        }
    }

    /// Everything, the argument too.
    pub(crate) fn whole(job: Job, durability: &'static str) -> Self {
        let data = job.data.clone();
        Self { data, ..Self::new(job, durability) }
    }
}
