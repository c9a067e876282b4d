//! What every request passes, whatever its route: guards before, figures and form after.
//!
//! [`Gate`] stands around the router: host and cross-site guards, the limit on requests at once, and the promise that
//! every error leaves as a problem. [`pass`] stands around each route: its scope, its figures, and a net for panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, header};
use tidegate_metrics::{Counter, Registry, Timer};
use tower::ServiceExt;

use crate::accept::Answer;
use crate::answers::Again;
use crate::app::App;
use crate::auth::Access;
use crate::error::{self, Code, PROBLEM_JSON, Problem};
use crate::rate::Rate;

/// 1 s: most requests are answered in milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The outermost part of the server that sees requests.
pub(crate) struct Gate {
    app: Arc<App>,
    router: Router,
    unmatched: Figures,
    overloaded: Counter,
    rate: Rate,
    limited: Counter,
}

impl Gate {
    pub(crate) fn new(app: Arc<App>, router: Router) -> Self {
        let unmatched = Figures::new(&app.registry, "", "unmatched");
        let overloaded = app.registry.counter(
            "tidegate_http_overloaded_total",
            "Requests refused because too many were being answered, or too many answers were not read.",
        );
        let limited = app
            .registry
            .counter("tidegate_http_rate_limited_total", "Requests refused because too many came in a second.");
        let rate = Rate::new(app.config.requests_per_second_max as u64);
        Self { app, router, unmatched, overloaded, rate, limited }
    }

    fn guard(&self, request: &Request) -> Result<Place<'_>, Problem> {
        self.app.hosts.allow(request)?;
        let place = Place::take(&self.app.requests);
        let limit = self.app.config.requests_max;
        // Probes must hear from a busy server: it is alive.
        if is_probe(request) {
            return Ok(place);
        }
        if place.number > limit {
            self.overloaded.inc();
            let detail = format!("The server is already answering {limit} requests, its limit.");
            return Err(Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER));
        }
        self.app.answers.admit().inspect_err(|_| self.overloaded.inc())?;
        if let Err(wait) = self.rate.admit(self.app.started.elapsed()) {
            self.limited.inc();
            let detail = format!("More than {} requests a second are not taken.", self.rate.per_second());
            return Err(Problem::new(Code::RateLimited, detail).retry_after(wait));
        }
        Ok(place)
    }
}

impl Answer for Gate {
    async fn answer(&self, request: Request) -> Response {
        // Other methods' answers tell what was done, and probes must be heard.
        let may_ask_again =
            if request.method() == Method::GET && !is_probe(&request) { Again::May } else { Again::MayNot };
        let response = match self.guard(&request) {
            Ok(_place) => match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(problem) => problem.into_response(),
        };
        if response.extensions().get::<Measured>().is_none() {
            self.unmatched.count(response.status());
        }
        self.app.answers.hold(as_promised(response), may_ask_again).unwrap_or_else(|problem| {
            self.overloaded.inc();
            as_promised(problem.into_response())
        })
    }
}

fn is_probe(request: &Request) -> bool {
    matches!(request.uri().path(), "/livez" | "/readyz")
}

/// A request's place among those being answered.
struct Place<'a> {
    taken: &'a AtomicUsize,
    number: usize,
}

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize) -> Self {
        Self { taken, number: taken.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes sure that an error is a problem, and adds what every response carries.
fn as_promised(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    let mut response = if is_error && !is_problem { replaced(&response, status) } else { response };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn replaced(response: &Response, status: StatusCode) -> Response {
    let allow = response.headers().get(header::ALLOW).cloned();
    let problem = match &allow {
        Some(allow) => {
            Problem::new(Code::MethodNotAllowed, format!("Allowed here: {}.", allow.to_str().unwrap_or_default()))
        }
        None => error::of_status(status),
    };
    let mut replaced = problem.into_response();
    *replaced.status_mut() = status;
    if let Some(allow) = allow {
        replaced.headers_mut().insert(header::ALLOW, allow);
    }
    replaced
}

/// A path, what it asks of callers, and its figures.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    figures: Figures,
    panics: Counter,
}

impl Route {
    pub(crate) fn new(method: &'static str, path: &'static str, access: Access, registry: &Registry) -> Self {
        let panics =
            registry.counter("tidegate_http_panics_total", "Handlers that panicked; each was answered with 500.");
        Self { method, path, access, figures: Figures::new(registry, method, path), panics }
    }
}

/// Figures of one route.
struct Figures {
    time: Timer,
    /// Responses by class: 1xx … 5xx.
    responses: [Counter; 5],
}

impl Figures {
    fn new(registry: &Registry, method: &'static str, path: &'static str) -> Self {
        let route = ("route", path);
        let method = ("method", method);
        let time = registry.timer_with(
            "tidegate_http_request_seconds",
            "Time from a request's head to its response's head.",
            &[method, route],
        );
        let responses = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| {
            registry.counter_with(
                "tidegate_http_responses_total",
                "Responses by route and class of status.",
                &[method, route, ("status", class)],
            )
        });
        Self { time, responses }
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].inc();
    }
}

/// Marks a response whose route has counted it.
#[derive(Debug, Clone, Copy)]
struct Measured;

/// Lets a request through to its route's handler, measures it, and catches its panic.
pub(crate) async fn pass(
    State((app, route)): State<(Arc<App>, Arc<Route>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let running = route.figures.time.start();
    let mut response = match app.auth.allow(route.access, request.headers()) {
        Ok(token) => {
            if let Some(token) = token {
                request.extensions_mut().insert(token);
            }
            caught(&route, next.run(request)).await
        }
        Err(problem) => problem.into_response(),
    };
    let status = response.status();
    if status.is_server_error() {
        running.fail();
    } else {
        running.succeed();
    }
    route.figures.count(status);
    response.extensions_mut().insert(Measured);
    response
}

async fn caught(route: &Route, handler: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            route.panics.inc();
            let reason =
                panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(
                method = route.method,
                path = route.path,
                reason = reason.unwrap_or("unknown"),
                "a handler panicked"
            );
            Problem::new(Code::Internal, "The server failed while answering; the failure was logged.").into_response()
        }
    }
}

/// For paths that no route knows.
pub(crate) async fn unknown(request: Request<Body>) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let hint = if path.starts_with("/api/streams/") { " A `/` in a stream's name is written `%2F`." } else { "" };
    Problem::new(Code::NotFound, format!("There is nothing at {path}.{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_bare_error_becomes_a_problem_and_keeps_allow() {
        let bare = Response::builder().status(405).header("allow", "GET,HEAD").body(Body::empty()).unwrap();
        let promised = as_promised(bare);
        assert_eq!(promised.status(), 405);
        assert_eq!(promised.headers()["content-type"], PROBLEM_JSON);
        assert_eq!(promised.headers()["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_panic_is_answered_counted_and_not_passed_on() {
        let registry = Registry::new();
        let route = Route::new("GET", "/x", Access::Public, &registry);
        let response = caught(&route, async { panic!("planted") }).await;
        assert_eq!(response.status(), 500);
        assert_eq!(route.panics.get(), 1);
    }
}
