//! Listing jobs, page by page, over one queue or all.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_queue::{JobFilter, Queue, QueueName};

use super::view::JobView;
use crate::api::parameters::Query;
use crate::api::render::{Envelope, Success, ok};
use crate::api::wire::Status;
use crate::app::App;
use crate::error::{Problem, ProblemBody};

const LIMIT_MAX: usize = 1000;
/// 50: a page people can look at.
const LIMIT: usize = 50;
/// Pages that filters may leave nearly empty before we answer with what there is and a cursor.
const LOOKS_MAX: usize = 32;
/// Bytes of results on one page: a thousand results of 16 MiB must not meet in one answer.
const RESULT_BYTES_MAX: usize = 16 << 20;

/// Which jobs to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only of this queue.
    queue: Option<String>,
    /// Only in this state.
    status: Option<Status>,
    /// Only of this kind.
    job_type: Option<String>,
    /// Only of this fairness key.
    key: Option<String>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// At most this many, 1 to 1000; 50 by default.
    limit: Option<usize>,
}

/// A page of jobs.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct JobPage {
    jobs: Vec<JobView>,
    /// Where the next page starts; null on the last one. A page may be short although there is a next one.
    cursor: Option<String>,
}

/// Where a page starts: a queue, and a place in it.
struct Cursor {
    queue: QueueName,
    after: Option<u64>,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Problem> {
        let bad = || Problem::field("cursor", "not a cursor of this list");
        let (place, queue) = text.split_once('~').ok_or_else(bad)?;
        let after = if place.is_empty() { None } else { Some(u64::from_str_radix(place, 16).map_err(|_| bad())?) };
        Ok(Self { queue: QueueName::new(queue).map_err(|_| bad())?, after })
    }

    fn render(queue: &QueueName, after: Option<u64>) -> String {
        after.map_or_else(|| format!("~{queue}"), |place| format!("{place:x}~{queue}"))
    }
}

/// Lists jobs in order of submission, queue by queue.
#[utoipa::path(get, path = "/api/performance/async/jobs", operation_id = "list_jobs", tag = "jobs", params(Wanted),
    responses((status = 200, body = Envelope<JobPage>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(wanted): Query<Wanted>,
) -> Result<Success<JobPage>, Problem> {
    let limit = wanted.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::field("limit", format!("1 to {LIMIT_MAX}")));
    }
    let cursor = wanted.cursor.as_deref().map(Cursor::parse).transpose()?;
    let queues = queues(&app, wanted.queue.as_deref(), cursor.as_ref()).await?;
    let mut filter = JobFilter {
        state: wanted.status.map(Status::state),
        kind: wanted.job_type.map(Into::into),
        key: wanted.key.map(Into::into),
        after: None,
        limit,
    };
    let (mut jobs, mut looks, mut bytes) = (Vec::new(), 0, 0);
    for queue in &queues {
        filter.after = cursor.as_ref().filter(|cursor| cursor.queue == *queue.name()).and_then(|cursor| cursor.after);
        loop {
            if jobs.len() == limit || looks == LOOKS_MAX || bytes >= RESULT_BYTES_MAX {
                return Ok(ok(JobPage { jobs, cursor: Some(Cursor::render(queue.name(), filter.after)) }));
            }
            filter.limit = limit - jobs.len();
            let page = queue.jobs(filter.clone()).await?;
            looks += 1;
            bytes += page.jobs.iter().map(|job| job.result.as_ref().map_or(0, bytes::Bytes::len)).sum::<usize>();
            jobs.extend(page.jobs.into_iter().map(|job| JobView::new(job, app.queues.durability())));
            match page.next {
                Some(next) => filter.after = Some(next),
                None => break,
            }
        }
    }
    Ok(ok(JobPage { jobs, cursor: None }))
}

/// The queues to look into, from the cursor's on.
async fn queues(app: &App, only: Option<&str>, cursor: Option<&Cursor>) -> Result<Vec<Queue>, Problem> {
    if let Some(only) = only {
        let name = QueueName::new(only).map_err(|error| Problem::field("queue", error.to_string()))?;
        if cursor.is_some_and(|cursor| cursor.queue != name) {
            return Err(Problem::field("cursor", "belongs to another queue"));
        }
        return Ok(app.queues.find(&name).await?.into_iter().collect());
    }
    let mut queues = app.queues.list().await?;
    queues.retain(|queue| cursor.is_none_or(|cursor| *queue.name() >= cursor.queue));
    Ok(queues)
}
