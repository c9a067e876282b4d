//! All figures of the process: Prometheus text, or JSON for those who ask for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use tidegate_metrics::OperationStats;
use tidegate_redis_ops::PoolStats;

use super::Routes;
use super::render::{instant, json};
use crate::app::App;
use crate::auth::{Access, Scope};

/// 2 s: a scrape must say that Redis is gone, not wait for it. Scrapers give up after 10 s.
const STATS_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn router(routes: &mut Routes) {
    routes.get("/metrics", Access::Needs(Scope::Read), metrics);
}

/// Figures as JSON.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    timestamp: String,
    blocking_pool: BlockingPool,
    operations: Vec<Operation>,
}

/// Redis connections for blocking reads; all zero on the embedded store.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockingPool {
    total: usize,
    in_use: usize,
    available: usize,
    waiting: usize,
}

impl From<PoolStats> for BlockingPool {
    fn from(stats: PoolStats) -> Self {
        let PoolStats { total, in_use, available, waiting } = stats;
        Self { total, in_use, available, waiting }
    }
}

/// One timed operation; durations in milliseconds.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operation {
    name: String,
    count: u64,
    failed: u64,
    cancelled: u64,
    total_duration: f64,
    min_duration: f64,
    max_duration: f64,
    avg_duration: f64,
    p50_duration: f64,
    p95_duration: f64,
    p99_duration: f64,
    /// Always empty: samples are not kept.
    recent_durations: [f64; 0],
}

impl From<OperationStats> for Operation {
    fn from(stats: OperationStats) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let labels: Vec<_> = stats.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let name =
            if labels.is_empty() { stats.name.to_owned() } else { format!("{}{{{}}}", stats.name, labels.join(",")) };
        Self {
            name,
            count: stats.count,
            failed: stats.failed,
            cancelled: stats.cancelled,
            total_duration: ms(stats.total),
            min_duration: ms(stats.min),
            max_duration: ms(stats.max),
            avg_duration: ms(stats.avg),
            p50_duration: ms(stats.p50),
            p95_duration: ms(stats.p95),
            p99_duration: ms(stats.p99),
            recent_durations: [],
        }
    }
}

/// Figures of everything: Prometheus text by default, JSON with `Accept: application/json`.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text format 0.0.4, or JSON.", content((String = "text/plain"), (Figures = "application/json")))))]
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    bring_up_to_date(&app).await;
    if prefers_json(&headers) {
        let now = jiff::Timestamp::now().as_millisecond();
        let operations =
            app.registry.operations().into_iter().filter(|stats| stats.count > 0).map(Operation::from).collect();
        return json(
            StatusCode::OK,
            &Figures { timestamp: instant(now), blocking_pool: app.backend.blocking_pool().into(), operations },
        );
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.registry.render_prometheus())
        .into_response()
}

/// Gauges that are cheaper to read when asked than to keep.
async fn bring_up_to_date(app: &App) {
    // Asking every queue for its figures also sets its gauges.
    match tokio::time::timeout(STATS_PATIENCE, app.queues.stats()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "failed to read the figures of the queues"),
        Err(_) => tracing::warn!("the figures of the queues are old: they did not come in time"),
    }
    app.cache.export(&app.registry);
    app.backend.export_warnings(&app.registry);
    let gauge = |name, help, value: f64| app.registry.gauge(name, help).set(value);
    gauge("tidegate_http_requests", "Requests being answered now.", app.requests.load(Ordering::Relaxed) as f64);
    gauge("tidegate_http_bodies_bytes", "Bytes of request bodies held now.", app.bodies.held_bytes() as f64);
    gauge(
        "tidegate_http_answers_bytes",
        "Bytes of answers held for clients that have not read them.",
        app.answers.held_bytes() as f64,
    );
    gauge("tidegate_http_waiting_claims", "Claims waiting for a job now.", app.waiting_claims.taken() as f64);
    gauge("tidegate_http_listeners", "Event streams open now.", app.listeners.open() as f64);
    gauge("tidegate_uptime_seconds", "Time since the start.", app.started.elapsed().as_secs_f64());
}

fn prefers_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let position = |kind: &str| accept.find(kind);
    match (position("application/json"), position("text/plain")) {
        (Some(json), Some(text)) => json < text,
        (json, _) => json.is_some(),
    }
}
