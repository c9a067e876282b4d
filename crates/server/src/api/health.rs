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
    /// Where jobs are kept: `embedded`.
    backend: &'static str,
    /// What an acknowledgement promises: `sync`, `everysec` or `memory`.
    durability: &'static str,
    /// Since the start.
    uptime_ms: u64,
    /// Why new jobs are refused at the moment, if they are; work in progress goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

fn health(app: &App, status: &'static str) -> Health {
    Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        backend: "embedded",
        durability: app.queues.durability(),
        uptime_ms: app.started.elapsed().as_millis() as u64,
        warning: None,
    }
}

/// The process answers. Says nothing about what it depends on.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = Envelope<Health>)))]
pub(crate) async fn live(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &Envelope::new(health(&app, "alive")))
}

/// The process takes work: 503 while it drains or its store has failed.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Envelope<Health>), (status = 503, description = "Draining, or the store has failed.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.is_draining() {
        let problem = Problem::new(Code::Draining, "The server finishes what it has and takes no more.");
        return Err(problem.retry_after(Duration::from_secs(1)));
    }
    app.store.check().map_err(tidegate_queue::Error::from)?;
    let warning = app.store.check_growth().err().map(|error| error.to_string());
    Ok(json(StatusCode::OK, &Envelope::new(Health { warning, ..health(&app, "ready") })))
}
