//! Jobs: submit, look at, list, cancel, retry, follow.

mod events;
mod list;
mod submit;
mod view;

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use tidegate_queue::JobId;

use super::Routes;
use super::parameters::Path;
use super::render::{Envelope, Success, accepted, ok};
use super::wire::Status;
use crate::app::App;
use crate::auth::{Access, Scope};
use crate::error::{Code, Problem, ProblemBody};
pub(crate) use view::JobView;

pub(crate) use events::{__path_events, events};
pub(crate) use list::{__path_list, list};
pub(crate) use submit::{__path_submit, __path_submit_many, submit, submit_many};

pub(crate) fn router(routes: &mut Routes) {
    const READ: Access = Access::Needs(Scope::Read);
    const SUBMIT: Access = Access::Needs(Scope::Submit);
    routes
        .post("/api/performance/async/job", SUBMIT, submit)
        .post("/api/performance/async/jobs", SUBMIT, submit_many)
        .get("/api/performance/async/jobs", READ, list)
        .get("/api/performance/async/job/{id}", READ, job)
        .delete("/api/performance/async/job/{id}", SUBMIT, cancel)
        .post("/api/performance/async/job/{id}/retry", SUBMIT, retry)
        .get("/api/performance/async/job/{id}/events", READ, events);
}

/// A job and where it stands.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    job_id: String,
    status: Status,
}

fn identity(id: &str) -> Result<JobId, Problem> {
    // An id that cannot be is of no job, and says no more than that.
    id.parse().map_err(|_| {
        Problem::new(Code::JobNotFound, format!("There is no job {:?}.", id.chars().take(100).collect::<String>()))
    })
}

/// What is known about a job.
#[utoipa::path(get, path = "/api/performance/async/job/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, body = Envelope<JobView>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Success<JobView>, Problem> {
    let job = app.queues.job(&identity(&id)?).await?;
    Ok(ok(JobView::whole(job, app.queues.durability())))
}

/// Calls a job off: a waiting one at once, a running one is told to stop (`cancelling`).
#[utoipa::path(delete, path = "/api/performance/async/job/{id}", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, body = Envelope<Standing>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "It has ended already.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Success<Standing>, Problem> {
    let job = app.queues.cancel(&identity(&id)?).await?;
    Ok(ok(Standing { job_id: job.id.to_string(), status: Status::of(&job) }))
}

/// Puts a failed or cancelled job back to its queue with all its attempts.
#[utoipa::path(post, path = "/api/performance/async/job/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 202, body = Envelope<Standing>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "It has neither failed nor been cancelled.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Success<Standing>, Problem> {
    let job = app.queues.retry(&identity(&id)?).await?;
    Ok(accepted(Standing { job_id: job.id.to_string(), status: Status::of(&job) }))
}
