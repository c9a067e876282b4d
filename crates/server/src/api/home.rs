//! The page at `/`: what runs here, in plain HTML. No script, nothing from elsewhere.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract;
use axum::response::{IntoResponse, Response};
use http::header;

use tidegate_queue::State;

use super::Routes;
use super::wire::Status;
use crate::app::App;
use crate::auth::Access;

const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1a2a33;background:#fff}\
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;border-bottom:1px solid #cdd8dd;text-align:right}\
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}a{color:#00607a}\
@media(prefers-color-scheme:dark){body{color:#dbe6ea;background:#10191e}th,td{border-color:#33454e}a{color:#6fd0ea}}";

/// 2 s: a page for people must come when Redis does not.
const STATS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

pub(crate) fn router(routes: &mut Routes) {
    routes.get("/", Access::Public, page).get("/home.css", Access::Public, style);
}

/// A page for people: version, durability, queues, where to go next.
#[utoipa::path(get, path = "/", tag = "health", responses((status = 200, description = "A page for people.", content_type = "text/html", body = String)))]
pub(crate) async fn page(extract::State(app): extract::State<Arc<App>>) -> Response {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">",
    );
    let state = if app.is_draining() { "draining" } else { "ready" };
    let _ = write!(
        page,
        "<title>Tidegate</title><link rel=\"stylesheet\" href=\"/home.css\"><h1>Tidegate {}</h1><p>{state}, {}, durability <b>{}</b>.</p>",
        env!("CARGO_PKG_VERSION"),
        if app.backend.name() == "redis" { "jobs on Redis" } else { "embedded store" },
        app.queues.durability(),
    );
    queues(&app, &mut page).await;
    cache(&app, &mut page);
    page.push_str("<p><a href=\"/openapi.json\">OpenAPI document</a> · <a href=\"/metrics\">metrics</a> · <a href=\"/readyz\">readiness</a></p></html>");
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ],
        page,
    )
        .into_response()
}

/// The queues with their counts; not shown to everybody where tokens are asked for.
async fn queues(app: &App, page: &mut String) {
    if app.auth.is_required() {
        page.push_str("<p>Queues are shown to holders of a token: <code>GET /api/queues</code>.</p>");
        return;
    }
    let Ok(Ok(queues)) = tokio::time::timeout(STATS_PATIENCE, app.queues.stats()).await else {
        page.push_str("<p>The queues cannot be asked at the moment: see readiness.</p>");
        return;
    };
    if queues.is_empty() {
        page.push_str("<p>No queues yet: one is made by its first job.</p>");
        return;
    }
    page.push_str("<div class=\"wide\"><table><tr><th>queue");
    for state in State::ALL {
        let _ = write!(page, "<th>{}", format!("{:?}", Status::from(state)).to_lowercase());
    }
    for queue in queues {
        // A name has no character that means something in HTML.
        let _ = write!(page, "<tr><td>{}{}", queue.name, if queue.paused { " (paused)" } else { "" });
        for state in State::ALL {
            let _ = write!(page, "<td>{}", queue.counts.of(state));
        }
    }
    page.push_str("</table></div>");
}

/// How much the cache holds and how often it helps.
fn cache(app: &App, page: &mut String) {
    if app.auth.is_required() {
        return;
    }
    let stats = app.cache.values.stats();
    let (reads, percent) = (stats.hits + stats.misses, stats.hit_rate() * 100.0);
    let _ = write!(page, "<p>Cache: {} of {} values in memory, {} reads", stats.size, stats.size_max, reads);
    if reads > 0 {
        let _ = write!(page, ", {percent:.1} % of them given a value");
    }
    page.push_str(".</p>");
}

/// The page's style sheet.
#[utoipa::path(get, path = "/home.css", tag = "health", responses((status = 200, description = "The page's style sheet.", content_type = "text/css", body = String)))]
pub(crate) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "max-age=3600")], STYLE).into_response()
}
