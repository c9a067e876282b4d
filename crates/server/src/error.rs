//! The one mapping from what went wrong to what a client is told: a status, a stable code, a sentence.
//!
//! Every 4xx and 5xx this server sends is a [`Problem`]: `application/problem+json` with the members of RFC 9457 and the
//! envelope's `"success": false`, so that one body serves readers of either.

use crate::api::wire::Status;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tidegate_cache as cache;
use tidegate_events as events;
use tidegate_queue as queue;
use tidegate_redis_ops as redis;

/// Media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $status:ident, $name:literal, $title:literal;)*) => {
        /// What went wrong, in a word that stays the same from release to release.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code there is, in the order of their statuses.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The HTTP status this code is sent with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The stable name, as in the body's `code`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The sentence that is the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    BadRequest = BAD_REQUEST, "bad_request", "The request cannot be understood.";
    MalformedJson = BAD_REQUEST, "malformed_json", "The body is not valid JSON.";
    JsonTooDeep = BAD_REQUEST, "json_too_deep", "The body's JSON is nested too deeply.";
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "A valid token is needed.";
    Forbidden = FORBIDDEN, "forbidden", "The token does not allow this.";
    CrossSiteRequest = FORBIDDEN, "cross_site_request", "Web pages of other sites may not do this.";
    NotFound = NOT_FOUND, "not_found", "There is nothing at this path.";
    JobNotFound = NOT_FOUND, "job_not_found", "There is no such job.";
    QueueNotFound = NOT_FOUND, "queue_not_found", "There is no such queue.";
    StreamNotFound = NOT_FOUND, "stream_not_found", "There is no such stream.";
    GroupNotFound = NOT_FOUND, "group_not_found", "There is no such group.";
    CacheMiss = NOT_FOUND, "cache_miss", "The cache has no value for this key.";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not know this method.";
    RequestTimeout = REQUEST_TIMEOUT, "request_timeout", "The request took too long to arrive.";
    Conflict = CONFLICT, "conflict", "The resource's state does not allow this.";
    IdempotencyMismatch = CONFLICT, "idempotency_mismatch", "The idempotency key was used for another request.";
    NotAStream = CONFLICT, "not_a_stream", "The key of this name on Redis holds something else than a stream.";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large.";
    ValueTooLarge = PAYLOAD_TOO_LARGE, "value_too_large", "The value is larger than the cache takes.";
    UriTooLong = URI_TOO_LONG, "uri_too_long", "The URI is too long.";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body's media type is not understood here.";
    HostNotAllowed = MISDIRECTED_REQUEST, "host_not_allowed", "This server does not answer for that host.";
    InvalidRequest = UNPROCESSABLE_ENTITY, "invalid_request", "The request is well-formed but not acceptable.";
    InvalidStreamName = UNPROCESSABLE_ENTITY, "invalid_stream_name", "This cannot be the name of a stream.";
    InvalidGroupName = UNPROCESSABLE_ENTITY, "invalid_group_name", "This cannot be the name of a group.";
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Requests come faster than they are taken.";
    TooManyQueues = TOO_MANY_REQUESTS, "too_many_queues", "There are as many queues as there may be.";
    TooManyStreams = TOO_MANY_REQUESTS, "too_many_streams", "There are as many streams as there may be.";
    TooManyGroups = TOO_MANY_REQUESTS, "too_many_groups", "The stream has as many groups as it may.";
    StreamsFull = TOO_MANY_REQUESTS, "streams_full", "The streams hold as many bytes as they may.";
    TooManyListeners = TOO_MANY_REQUESTS, "too_many_listeners", "The caller has as many event streams open as it may.";
    QueueFull = TOO_MANY_REQUESTS, "queue_full", "The queue is full.";
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The request's head is too large.";
    Internal = INTERNAL_SERVER_ERROR, "internal", "The server failed.";
    RedisNotPermitted = INTERNAL_SERVER_ERROR, "redis_not_permitted", "Redis does not let the server do what it must.";
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "The server is holding as much as it may.";
    TooManyConnections = SERVICE_UNAVAILABLE, "too_many_connections", "The server holds as many connections as it may.";
    Draining = SERVICE_UNAVAILABLE, "draining", "The server is shutting down.";
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Something the server needs is not available.";
    RedisUnavailable = SERVICE_UNAVAILABLE, "redis_unavailable", "Redis cannot be asked now; nothing was done.";
    RedisOutcomeUnknown = SERVICE_UNAVAILABLE, "redis_outcome_unknown", "The answer of Redis was lost; the request may have been carried out.";
    RedisOutOfMemory = SERVICE_UNAVAILABLE, "redis_out_of_memory", "Redis has used up its memory and takes nothing new.";
    VersionNotSupported = HTTP_VERSION_NOT_SUPPORTED, "version_not_supported", "This version of HTTP is not spoken here.";
}

/// One field that was not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Path of the field in the body, or name of the parameter: `options.priority`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
}

/// A [`Problem`] as it is written.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Always `false`.
    success: bool,
    /// `urn:tidegate:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The same for every occurrence of this code.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// Stable name for programs to branch on.
    code: &'a str,
    /// The fields at fault, when the code is `invalid_request`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

/// Why one item of a list was refused.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ItemProblem {
    /// Stable name, as of a problem.
    code: &'static str,
    /// What happened.
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem of kind `code`; `detail` is a full sentence about this occurrence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    /// One unacceptable field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Several unacceptable fields; the detail names them all.
    pub fn fields(mut errors: Vec<FieldError>) -> Self {
        for error in &mut errors {
            clip(&mut error.field);
            clip(&mut error.message);
        }
        let detail =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>().join("; ");
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// Asks the client to come back after `wait` (rounded up to whole seconds, at least one).
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The same kind of problem with `detail` instead of all that was said about it.
    #[must_use]
    pub(crate) fn in_short(self, detail: &str) -> Self {
        Self { detail: detail.to_owned(), errors: Vec::new(), ..self }
    }

    /// The fields at fault.
    pub(crate) fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// What kind of problem it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence about this occurrence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The value of `Retry-After`, if there is one.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| (wait.as_millis().div_ceil(1000) as u64).max(1))
    }

    /// What a list says about one of its items.
    pub(crate) fn item(&self) -> ItemProblem {
        ItemProblem {
            code: self.code.name(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
            retry_after_ms: self.retry_after.map(|wait| wait.as_millis() as u64),
        }
    }

    /// The body, as it goes over the wire.
    pub(crate) fn body(&self) -> Bytes {
        let body = ProblemBody {
            success: false,
            kind: format!("urn:tidegate:problem:{}", self.code.name()),
            title: self.code.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            code: self.code.name(),
            errors: &self.errors,
        };
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate\""));
        }
        response
    }
}

/// 5 s: what a store needs to write out a backlog; a full disk needs longer, but asking costs nothing.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(5);
/// 60 s: queues go away with their last record, not from one second to the next.
const QUEUES_RETRY_AFTER: Duration = Duration::from_secs(60);

impl From<queue::Error> for Problem {
    fn from(error: queue::Error) -> Self {
        use queue::Error as E;
        let told = sentence(&error);
        match error {
            E::Rejected(rejected) => rejected.into(),
            E::JobNotFound { .. } | E::BadJobId { .. } => Self::new(Code::JobNotFound, told),
            E::QueueNotFound { .. } => Self::new(Code::QueueNotFound, told),
            E::BadQueueName { .. } => Self::field("queue", told),
            E::BadLease { .. } => Self::field("lease", told),
            E::Invalid { field, reason } => Self::field(camel_case(field), reason),
            E::Conflict { id, state, verb } => {
                let status = Status::from(state).word();
                Self::new(Code::Conflict, format!("Job {id} is {status}, which does not allow {verb}."))
            }
            E::TooManyQueues { .. } => Self::new(Code::TooManyQueues, told).retry_after(QUEUES_RETRY_AFTER),
            E::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch, told),
            E::Draining => Self::new(Code::Draining, told).retry_after(STORE_RETRY_AFTER),
            E::Store(ref store) => {
                if !store.is_retryable() {
                    tracing::error!(error = %store, "the store failed");
                }
                Self::new(Code::Unavailable, told).retry_after(STORE_RETRY_AFTER)
            }
            E::Redis(error) => error.into(),
            other => {
                tracing::error!(error = %other, "a queue failed");
                Self::new(Code::Internal, told)
            }
        }
    }
}

impl From<events::Error> for Problem {
    fn from(error: events::Error) -> Self {
        use events::Error as E;
        let told = sentence(&error);
        match error {
            E::BadStreamName { .. } | E::ReservedName { .. } => Self::new(Code::InvalidStreamName, told),
            E::BadGroupName { .. } => Self::new(Code::InvalidGroupName, told),
            E::BadEventId { .. } => Self::field("id", told),
            E::BadCursor { .. } => Self::field("after", told),
            E::BadPattern { .. } => Self::field("streams", told),
            E::Invalid { field, reason } => Self::field(camel_case(field), reason),
            E::StreamNotFound { .. } => Self::new(Code::StreamNotFound, told),
            E::GroupNotFound { .. } => Self::new(Code::GroupNotFound, told),
            E::NotAStream { .. } => Self::new(Code::NotAStream, told),
            E::TooMany { what: "streams", .. } => Self::new(Code::TooManyStreams, told).retry_after(QUEUES_RETRY_AFTER),
            E::TooMany { what: "groups", .. } => Self::new(Code::TooManyGroups, told).retry_after(QUEUES_RETRY_AFTER),
            E::TooMany { what, capacity } => Self::field("streams", format!("more than {capacity} {what}")),
            E::Full { retry_after, .. } => Self::new(Code::StreamsFull, told).retry_after(retry_after),
            E::Draining => Self::new(Code::Draining, "The server is shutting down.").retry_after(STORE_RETRY_AFTER),
            E::Store(ref store) => {
                if !store.is_retryable() {
                    tracing::error!(error = %store, "the store failed");
                }
                Self::new(Code::Unavailable, told).retry_after(STORE_RETRY_AFTER)
            }
            E::Redis(error) if error.class() == redis::Class::Ambiguous => {
                let detail = format!(
                    "The request was sent to Redis and its answer did not come ({}): it may have been carried out. \
                     Publishing again is safe for events that carry an `id` of yours.",
                    error.code()
                );
                Self::new(Code::RedisOutcomeUnknown, detail).retry_after(error.retry_after())
            }
            E::Redis(error) => error.into(),
            other => {
                tracing::error!(error = %other, "a stream failed");
                Self::new(Code::Internal, told)
            }
        }
    }
}

impl From<cache::Error> for Problem {
    fn from(error: cache::Error) -> Self {
        use cache::Error as E;
        let (told, wait) = (sentence(&error), error.retry_after());
        match error {
            E::Invalid { field, reason } => Self::field(camel_case(field), reason),
            E::TooLarge { .. } => Self::new(Code::ValueTooLarge, told),
            E::Overloaded { .. } => Self::new(Code::Overloaded, told).retry_after(wait),
            E::Closed => Self::new(Code::Draining, "The server is shutting down.").retry_after(STORE_RETRY_AFTER),
            E::Redis(error) if error.class() == redis::Class::Ambiguous => {
                let detail = format!(
                    "The request was sent to Redis and its answer did not come ({}): it may have been carried out. \
                     Repeating it does no harm.",
                    error.code()
                );
                Self::new(Code::RedisOutcomeUnknown, detail).retry_after(wait)
            }
            E::Redis(error) => error.into(),
            E::Late => Self::new(Code::RedisUnavailable, "Redis got the request too late, and did nothing.")
                .retry_after(STORE_RETRY_AFTER),
            other => {
                tracing::error!(error = %other, "the cache failed");
                Self::new(Code::Internal, told)
            }
        }
    }
}

impl From<redis::Error> for Problem {
    fn from(error: redis::Error) -> Self {
        let code = error.code();
        match (error.class(), code) {
            (redis::Class::Transient, _) | (_, "MISCONF" | "NOREPLICAS") => {
                let detail = format!("{} Nothing was done; the request can be repeated.", unavailable(&error));
                Self::new(Code::RedisUnavailable, detail).retry_after(error.retry_after())
            }
            (redis::Class::Ambiguous, _) => {
                let detail = format!(
                    "The request was sent to Redis and its answer did not come ({code}): it may have been carried out. \
                     Repeating it with the same Idempotency-Key is safe."
                );
                Self::new(Code::RedisOutcomeUnknown, detail).retry_after(error.retry_after())
            }
            (_, "OOM") => {
                let detail = "Redis has reached its maxmemory. Nothing was done; purge finished jobs, trim streams, clear the cache, or give Redis more memory.";
                Self::new(Code::RedisOutOfMemory, detail).retry_after(error.retry_after())
            }
            (_, "NOPERM") => {
                tracing::error!(%error, "Redis refuses its user a command; `tidegate redis acl` prints what is needed");
                Self::new(Code::RedisNotPermitted, "The server's log says what Redis must allow.")
            }
            _ => {
                tracing::error!(%error, "Redis failed");
                Self::new(Code::Internal, format!("Redis cannot be used as it is ({code})."))
            }
        }
    }
}

/// Why Redis does nothing at the moment, as a sentence.
fn unavailable(error: &redis::Error) -> String {
    let reason = match error.code() {
        "LOADING" => "Redis has started and loads its data.",
        "BUSY" => "Redis is busy with a script.",
        "READONLY" => "The Redis asked is a replica: a failover is under way.",
        "MASTERDOWN" => "The Redis asked is a replica that has lost its primary.",
        "CLUSTERDOWN" => "The Redis cluster serves no requests: some of its slots have no primary.",
        "MISCONF" => "Redis cannot write its data to disk and takes no writes.",
        "NOREPLICAS" => "Redis has fewer replicas than it needs to take writes.",
        "BREAKER_OPEN" => "Redis failed too often just now and is left alone for a moment.",
        "BACKPRESSURE" => "Redis is behind: too many requests wait for its answers.",
        "CLOSED" => "The server is letting go of Redis.",
        "DISCONNECTED" => "There is no connection to Redis.",
        code => return format!("Redis cannot do it now ({code})."),
    };
    reason.to_owned()
}

impl From<queue::Rejected> for Problem {
    fn from(rejected: queue::Rejected) -> Self {
        use queue::Rejected as R;
        let told = sentence(&rejected);
        match rejected {
            R::Full { retry_after, .. } | R::FullBytes { retry_after, .. } => {
                Self::new(Code::QueueFull, told).retry_after(retry_after)
            }
            R::Invalid { field, reason } => Self::field(field_of_submission(field), reason),
            R::Expired => Self::field("options.expiresIn", told),
        }
    }
}

/// Where a submission carries what the queue calls by this name.
fn field_of_submission(field: &str) -> String {
    match field {
        "kind" | "jobType" => "jobType".into(),
        "data" | "payload" => "data".into(),
        other => format!("options.{}", camel_case(other)),
    }
}

/// `max_attempts` as it is written on the wire.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

/// 500 bytes: what a caller wrote is quoted to him, but not at any length.
const QUOTED_BYTES_MAX: usize = 500;

fn clip(text: &mut String) {
    if text.len() > QUOTED_BYTES_MAX {
        let end = (0..=QUOTED_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
}

/// A library's message as a sentence.
fn sentence(error: &impl std::fmt::Display) -> String {
    let message = error.to_string();
    let mut letters = message.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(std::iter::once('.')).collect()
}

/// The problem for an error response that somebody else made (a library's rejection), by its status.
pub(crate) fn of_status(status: StatusCode) -> Problem {
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidRequest,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::BadRequest,
        _ => Code::Internal,
    };
    Problem::new(code, code.title())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_the_standard_members_and_the_envelope() {
        let body = Problem::new(Code::JobNotFound, "There is no job \"a\".").body();
        let text = std::str::from_utf8(&body).unwrap();
        assert_eq!(
            text,
            r#"{"success":false,"type":"urn:tidegate:problem:job_not_found","title":"There is no such job.","status":404,"detail":"There is no job \"a\".","code":"job_not_found"}"#
        );
    }

    #[test]
    fn codes_are_unique_words() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn the_queues_fields_are_named_as_on_the_wire() {
        let rejected = queue::Rejected::Invalid { field: "max_attempts", reason: "1 to 1000".into() };
        assert_eq!(Problem::from(rejected).detail(), "options.maxAttempts: 1 to 1000");
        let rejected = queue::Rejected::Invalid { field: "kind", reason: "1 to 200 bytes".into() };
        assert_eq!(Problem::from(rejected).detail(), "jobType: 1 to 200 bytes");
        let rejected = queue::Rejected::Invalid { field: "backoff.cap", reason: "0 to 7 days".into() };
        assert_eq!(Problem::from(rejected).detail(), "options.backoff.cap: 0 to 7 days");
    }

    #[test]
    fn what_redis_says_becomes_what_a_caller_can_act_on() {
        let answer = |code: &str| redis::Error::Answer { code: code.into(), message: format!("{code} secret").into() };
        let not_sent = |code| redis::Error::NotSent { code, detail: "x".into(), retry_after: Duration::from_secs(2) };
        let lost = redis::Error::Lost { code: "TIMEOUT", detail: "no reply".into() };
        let cases = [
            (not_sent("DISCONNECTED"), 503, "redis_unavailable"),
            (not_sent("BREAKER_OPEN"), 503, "redis_unavailable"),
            (lost, 503, "redis_outcome_unknown"),
            (answer("OOM"), 503, "redis_out_of_memory"),
            (answer("READONLY"), 503, "redis_unavailable"),
            (answer("LOADING"), 503, "redis_unavailable"),
            (answer("BUSY"), 503, "redis_unavailable"),
            (answer("MASTERDOWN"), 503, "redis_unavailable"),
            (answer("CLUSTERDOWN"), 503, "redis_unavailable"),
            (answer("MISCONF"), 503, "redis_unavailable"),
            (answer("NOPERM"), 500, "redis_not_permitted"),
            (answer("WRONGTYPE"), 500, "internal"),
        ];
        for (error, status, code) in cases {
            let problem = Problem::from(queue::Error::Redis(error.clone()));
            assert_eq!((problem.status().as_u16(), problem.code().name()), (status, code), "{error}");
            assert_eq!(problem.retry_after_seconds().is_some(), status == 503, "{error}");
            assert!(!problem.detail().contains("secret"), "{error}: {}", problem.detail());
        }
    }

    #[test]
    fn refusals_for_load_say_when_to_come_back() {
        let response = Problem::new(Code::QueueFull, "full").retry_after(Duration::from_millis(1200)).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
    }
}
