//! Queues: how they stand, pause, resume, purge; and the worker protocol in `work`.

mod stats;
mod work;

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_queue::{Queue, QueueName};

use super::Routes;
use super::parameters::{Path, Query};
use super::render::{Envelope, Success, ok};
use super::wire::Status;
use crate::app::App;
use crate::auth::{Access, Scope};
use crate::error::{Code, Problem, ProblemBody};
use stats::QueueView;

pub(crate) use work::{
    __path_beat, __path_claim, __path_complete, __path_fail, __path_progress, __path_release, beat, claim, complete,
    fail, progress, release,
};

pub(crate) fn router(routes: &mut Routes) {
    const READ: Access = Access::Needs(Scope::Read);
    const WORK: Access = Access::Needs(Scope::Submit);
    const ADMIN: Access = Access::Needs(Scope::Admin);
    routes
        .get("/api/queues", READ, list)
        .get("/api/queues/{queue}", READ, queue)
        .post("/api/queues/{queue}/pause", ADMIN, pause)
        .post("/api/queues/{queue}/resume", ADMIN, resume)
        .delete("/api/queues/{queue}/jobs", ADMIN, purge)
        .post("/api/queues/{queue}/claim", WORK, claim)
        .post("/api/queues/{queue}/beat", WORK, beat)
        .post("/api/queues/{queue}/complete", WORK, complete)
        .post("/api/queues/{queue}/fail", WORK, fail)
        .post("/api/queues/{queue}/progress", WORK, progress)
        .post("/api/queues/{queue}/release", WORK, release);
}

/// All queues.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Queues {
    queues: Vec<QueueView>,
}

/// Whether a queue hands out jobs.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Pausing {
    queue: String,
    paused: bool,
}

/// What was deleted.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Purged {
    deleted: u64,
}

/// What to delete.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Purge {
    /// Jobs in this state; running ones cannot be purged.
    status: Status,
}

fn name(name: &str) -> Result<QueueName, Problem> {
    QueueName::new(name).map_err(|error| Problem::field("queue", error.to_string()))
}

async fn find(app: &App, queue: &str) -> Result<Queue, Problem> {
    let name = name(queue)?;
    app.queues.find(&name).await?.ok_or_else(|| {
        Problem::new(Code::QueueNotFound, format!("There is no queue {name}; one is made by its first job or claim."))
    })
}

/// Every queue and how it stands.
#[utoipa::path(get, path = "/api/queues", operation_id = "list_queues", tag = "queues", responses((status = 200, body = Envelope<Queues>)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Success<Queues>, Problem> {
    let queues = app.queues.stats().await?.into_iter().map(QueueView::from).collect();
    Ok(ok(Queues { queues }))
}

/// How one queue stands.
#[utoipa::path(get, path = "/api/queues/{queue}", tag = "queues", params(("queue" = String, Path, description = "The queue's name.")),
    responses((status = 200, body = Envelope<QueueView>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn queue(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
) -> Result<Success<QueueView>, Problem> {
    Ok(ok(find(&app, &queue).await?.stats().await?.into()))
}

/// Holds off claims until it is resumed; running jobs go on. Survives a restart.
#[utoipa::path(post, path = "/api/queues/{queue}/pause", tag = "queues", params(("queue" = String, Path, description = "The queue's name.")),
    responses((status = 200, body = Envelope<Pausing>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn pause(State(app): State<Arc<App>>, Path(queue): Path<String>) -> Result<Success<Pausing>, Problem> {
    find(&app, &queue).await?.pause().await?;
    Ok(ok(Pausing { queue, paused: true }))
}

/// Lets claims through again.
#[utoipa::path(post, path = "/api/queues/{queue}/resume", tag = "queues", params(("queue" = String, Path, description = "The queue's name.")),
    responses((status = 200, body = Envelope<Pausing>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
) -> Result<Success<Pausing>, Problem> {
    find(&app, &queue).await?.resume().await?;
    Ok(ok(Pausing { queue, paused: false }))
}

/// Deletes all jobs in one state for good.
#[utoipa::path(delete, path = "/api/queues/{queue}/jobs", tag = "queues", params(("queue" = String, Path, description = "The queue's name."), Purge),
    responses((status = 200, body = Envelope<Purged>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn purge(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    Query(purge): Query<Purge>,
) -> Result<Success<Purged>, Problem> {
    let deleted = find(&app, &queue).await?.purge(purge.status.state()).await?;
    tracing::info!(queue, status = ?purge.status, deleted, "purged");
    Ok(ok(Purged { deleted }))
}
