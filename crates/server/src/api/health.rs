//! Probes: is the process alive, is it ready for work.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::Routes;
use super::render::{Envelope, json};
use crate::app::App;
use crate::auth::Access;
use crate::error::{Code, Problem, ProblemBody};

pub(crate) fn router(routes: &mut Routes) {
    routes.get("/livez", Access::Public, live).get("/readyz", Access::Public, ready);
}

/// What the process says about itself.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// `alive`, `ready` or `draining`.
    status: &'static str,
    version: &'static str,
    /// Where jobs are kept: `embedded` or `redis`.
    backend: &'static str,
    /// What an acknowledgement promises: `sync`, `everysec` or `memory` embedded; on Redis what its settings say:
    /// `always`, `everysec`, `snapshots`, `none` or `unknown`.
    durability: &'static str,
    /// Since the start.
    uptime_ms: u64,
    /// Which Redis, when jobs are kept there.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisView>,
    /// What an operator should change, or why new jobs are refused at the moment although work goes on; left out when
    /// there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Which Redis.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RedisView {
    /// `redis 7.0.15` or `valkey 8.0.1`.
    version: String,
    /// `standalone`, `unix`, `sentinel` or `cluster`.
    topology: &'static str,
}

fn health(app: &App, status: &'static str) -> Health {
    Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        backend: app.backend.name(),
        durability: app.queues.durability(),
        uptime_ms: app.started.elapsed().as_millis() as u64,
        redis: None,
        warnings: Vec::new(),
    }
}

/// The process answers. Says nothing about what it depends on.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = Envelope<Health>)))]
pub(crate) async fn live(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &Envelope::new(health(&app, "alive")))
}

/// The process takes work: 503 while it drains, its store has failed or Redis cannot be reached. Nobody else is asked for
/// the answer, so it comes at once.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Envelope<Health>), (status = 503, description = "Draining, the store has failed, or Redis cannot be reached.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.is_draining() {
        let problem = Problem::new(Code::Draining, "The server finishes what it has and takes no more.");
        return Err(problem.retry_after(Duration::from_secs(1)));
    }
    let standing = app.backend.check()?;
    let redis = standing.redis.map(|(version, topology)| RedisView { version, topology });
    Ok(json(StatusCode::OK, &Envelope::new(Health { redis, warnings: standing.warnings, ..health(&app, "ready") })))
}
