//! Submitting jobs, one or many, so that repeating a call is safe.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tidegate_queue::{Backoff, Idempotency, NewJob, Pushed, QueueName, UnixMillis};

use crate::api::render::{Envelope, Success, accepted};
use crate::api::wire::{self, FAR_MS, Status, Whole};
use crate::app::{App, DEFAULT_QUEUE};
use crate::body::{JsonBody, parse};
use crate::builtin;
use crate::error::{Code, FieldError, ItemProblem, Problem, ProblemBody};

/// 255 bytes, as much as the queue remembers.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// 20: more at once nobody mends.
const ERRORS_MAX: usize = 20;
/// 100 items of one call are told all that is wrong with them: an answer must not be a hundred times its request.
const ITEMS_TOLD_MAX: usize = 100;

/// A job to be submitted.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Submission<'a> {
    /// What to do: selects the handler.
    #[serde(borrow)]
    #[schema(value_type = String)]
    job_type: Cow<'a, str>,
    /// The argument: any JSON, handed over byte for byte.
    #[serde(borrow)]
    #[schema(value_type = Value)]
    data: &'a RawValue,
    options: Option<SubmitOptions>,
}

/// A day in milliseconds.
const DAY: u64 = 86_400_000;

/// How a job is to be run. Durations are in milliseconds.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubmitOptions {
    /// `builtin` for built-in kinds, `default` for others.
    queue: Option<String>,
    /// 0 first, 255 last; 100 by default.
    #[schema(value_type = Option<u8>)]
    priority: Option<Whole<0, 255>>,
    /// One attempt may take this long; 1 800 000 by default.
    #[schema(value_type = Option<u64>)]
    timeout: Option<Whole<1, { 30 * DAY }>>,
    /// Not before this long from now.
    #[schema(value_type = Option<u64>)]
    delay: Option<Whole<0, FAR_MS>>,
    /// Not before this instant (RFC 3339).
    run_at: Option<String>,
    /// Attempts in all; 4 by default.
    #[schema(value_type = Option<u16>)]
    max_attempts: Option<Whole<1, 1000>>,
    backoff: Option<BackoffOptions>,
    /// Jobs of one key share a lane: fair between keys.
    key: Option<String>,
    /// While a job with this key is live, submitting another answers with it.
    dedup_key: Option<String>,
    /// How long `dedupKey` holds off others at most.
    #[schema(value_type = Option<u64>)]
    dedup_window: Option<Whole<1, { 365 * DAY }>>,
    /// Fails when it has not started this long after its submission.
    #[schema(value_type = Option<u64>)]
    expires_in: Option<Whole<1, FAR_MS>>,
    /// How long the finished record is kept; 86 400 000 by default.
    #[schema(value_type = Option<u64>)]
    retention: Option<Whole<0, { 365 * DAY }>>,
}

/// Wait between attempts: random up to `base` doubled per attempt, never above `cap`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackoffOptions {
    /// 1000 by default.
    #[schema(value_type = Option<u64>)]
    base: Option<Whole<0, { 7 * DAY }>>,
    /// 300 000 by default.
    #[schema(value_type = Option<u64>)]
    cap: Option<Whole<0, { 7 * DAY }>>,
}

/// Jobs to be submitted together.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submissions<'a> {
    /// At most 10 000.
    #[serde(borrow, deserialize_with = "wire::list")]
    #[schema(value_type = Vec<Submission<'static>>)]
    jobs: Vec<&'a RawValue>,
}

/// An accepted job.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    job_id: String,
    status: Status,
    /// `true` when a live job with the same `dedupKey` was found instead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl From<Pushed> for Accepted {
    fn from(pushed: Pushed) -> Self {
        Self { job_id: pushed.id.to_string(), status: pushed.state.into(), duplicate: pushed.duplicate }
    }
}

/// What became of one job of many.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum Answer {
    Accepted(Accepted),
    Refused { error: ItemProblem },
}

/// What became of each, in order.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Answers {
    jobs: Vec<Answer>,
}

impl<'a> Submission<'a> {
    /// Reads a submission; every option that is wrong is named, not only the first.
    fn read(text: &'a str) -> Result<Self, Problem> {
        parse(text).map_err(|problem| match bad_options(text) {
            errors if errors.is_empty() => problem,
            errors => {
                let others = problem.errors().iter().filter(|error| !error.field.starts_with("options")).cloned();
                Problem::fields(others.chain(errors).collect())
            }
        })
    }

    /// The job and the queue it is for.
    fn job(self, body: &JsonBody) -> Result<(QueueName, NewJob), Problem> {
        let options = self.options.unwrap_or_default();
        let usual = if builtin::find(&self.job_type).is_some() { builtin::QUEUE } else { DEFAULT_QUEUE };
        let queue = QueueName::new(options.queue.as_deref().unwrap_or(usual))
            .map_err(|error| Problem::field("options.queue", error.to_string()))?;
        let mut job = NewJob::new(&*self.job_type, body.payload(self.data));
        options.apply(&mut job)?;
        Ok((queue, job))
    }
}

/// What is wrong with each option, looked at one by one.
fn bad_options(text: &str) -> Vec<FieldError> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        options: BTreeMap<Cow<'a, str>, &'a RawValue>,
    }
    let Ok(outer) = serde_json::from_str::<Outer<'_>>(text) else { return Vec::new() };
    let alone = |(name, value): (Cow<'_, str>, &RawValue)| {
        let name = serde_json::to_string(&name).ok()?;
        parse::<SubmitOptions>(&format!("{{{name}:{value}}}")).err()
    };
    let problems = outer.options.into_iter().filter_map(alone);
    let errors = problems.flat_map(|problem| problem.errors().to_vec());
    let under_options = |error: FieldError| {
        let field = if error.field == "body" { "options".to_owned() } else { format!("options.{}", error.field) };
        FieldError { field, ..error }
    };
    errors.map(under_options).take(ERRORS_MAX).collect()
}

impl SubmitOptions {
    fn apply(self, job: &mut NewJob) -> Result<(), Problem> {
        if self.delay.is_some() && self.run_at.is_some() {
            return Err(Problem::field("options.runAt", "give either delay or runAt"));
        }
        job.priority = self.priority.map_or(job.priority, |priority| priority.get() as u8);
        job.timeout = self.timeout.map_or(job.timeout, ms);
        job.delay = self.delay.map_or(job.delay, ms);
        job.run_at = self.run_at.map(|text| run_at(&text)).transpose()?;
        job.max_attempts = self.max_attempts.map_or(job.max_attempts, |attempts| attempts.get() as u16);
        if let Some(backoff) = self.backoff {
            let usual = Backoff::default();
            let cap = backoff.cap.map_or(usual.cap, ms);
            job.backoff = Backoff { base: backoff.base.map_or(usual.base.min(cap), ms), cap };
        }
        job.key = self.key.map(Into::into);
        job.dedup_key = self.dedup_key.map(Into::into);
        job.dedup_window = self.dedup_window.map(ms);
        job.expires_in = self.expires_in.map(ms);
        job.retention = self.retention.map_or(job.retention, ms);
        Ok(())
    }
}

fn ms<const MIN: u64, const MAX: u64>(number: Whole<MIN, MAX>) -> Duration {
    Duration::from_millis(number.get())
}

fn run_at(text: &str) -> Result<UnixMillis, Problem> {
    let instant: jiff::Timestamp = text
        .parse()
        .map_err(|_| Problem::field("options.runAt", "not an RFC 3339 instant such as 2030-01-31T08:00:00.000Z"))?;
    Ok(UnixMillis(instant.as_millisecond()))
}

/// Submits a job.
#[utoipa::path(post, path = "/api/performance/async/job", tag = "jobs", request_body = Submission<'static>,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating a call with the same key within 24 h answers with its job.")),
    responses((status = 202, description = "Accepted: it will not be lost.", body = Envelope<Accepted>),
        (status = 200, description = "A live duplicate by `dedupKey`.", body = Envelope<Accepted>),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "The queue is full.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (name, job) = Submission::read(body.text())?.job(&body)?;
    let idempotency = idempotency(&headers, &body)?;
    let queue = app.queues.queue(&name).await?;
    let pushed = queue.push_many(vec![job], idempotency).await?.pop();
    let pushed = pushed.ok_or_else(|| Problem::new(Code::Internal, "The queue gave no answer."))??;
    let status = if pushed.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(Success(status, Accepted::from(pushed)).into_response())
}

/// Submits up to 10 000 jobs; each is accepted or refused by itself, answered in order.
#[utoipa::path(post, path = "/api/performance/async/jobs", tag = "jobs", request_body = Submissions<'static>,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating a call with the same key within 24 h answers with its jobs.")),
    responses((status = 202, body = Envelope<Answers>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn submit_many(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Success<Answers>, Problem> {
    let submissions = body.parse::<Submissions<'_>>()?.jobs;
    let idempotency = idempotency(&headers, &body)?;
    let mut answers: Vec<Option<Result<Pushed, Problem>>> = Vec::new();
    let mut by_queue: BTreeMap<QueueName, (Vec<usize>, Vec<NewJob>)> = BTreeMap::new();
    let mut told = Told::default();
    for (place, submission) in submissions.into_iter().enumerate() {
        match Submission::read(submission.get()).and_then(|submission| submission.job(&body)) {
            Ok((queue, job)) => {
                let (places, jobs) = by_queue.entry(queue).or_default();
                places.push(place);
                jobs.push(job);
                answers.push(None);
            }
            Err(problem) => answers.push(Some(Err(told.tell(problem)))),
        }
    }
    let pushes = by_queue.into_iter().map(|(name, (places, jobs))| push(&app, name, places, jobs, idempotency.clone()));
    for (place, answer) in join_all(pushes).await.into_iter().flatten() {
        answers[place] = Some(answer);
    }
    render(
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(Problem::new(Code::Internal, "The queue gave no answer."))))
            .collect(),
    )
}

/// Pushes the jobs of one queue; the answers with the places they belong to.
async fn push(
    app: &App,
    name: QueueName,
    places: Vec<usize>,
    jobs: Vec<NewJob>,
    idempotency: Option<Idempotency>,
) -> Vec<(usize, Result<Pushed, Problem>)> {
    let pushed = async { app.queues.queue(&name).await?.push_many(jobs, idempotency).await };
    match pushed.await.map_err(Problem::from) {
        Ok(pushed) => places.into_iter().zip(pushed.into_iter().map(|one| one.map_err(Problem::from))).collect(),
        Err(problem) => places.into_iter().map(|place| (place, Err(problem.clone()))).collect(),
    }
}

/// The answers; but when nothing was accepted, for a reason that concerns the call as a whole, that reason.
fn render(answers: Vec<Result<Pushed, Problem>>) -> Result<Success<Answers>, Problem> {
    let concerns_all = |code| {
        matches!(
            code,
            Code::IdempotencyMismatch
                | Code::Unavailable
                | Code::Draining
                | Code::QueueFull
                | Code::TooManyQueues
                | Code::RedisUnavailable
                | Code::RedisOutcomeUnknown
                | Code::RedisOutOfMemory
                | Code::RedisNotPermitted
        )
    };
    if answers.iter().all(Result::is_err) {
        let mut concerning = answers.iter().filter_map(|answer| answer.as_ref().err());
        // One whose fate is unknown makes the fate of the call unknown, whatever became of the others.
        let unknown = concerning.clone().find(|problem| problem.code() == Code::RedisOutcomeUnknown);
        if let Some(problem) = unknown.or_else(|| concerning.find(|problem| concerns_all(problem.code()))) {
            return Err(problem.clone());
        }
    }
    let mut told = Told::default();
    let answer = |answer: Result<Pushed, Problem>| match answer {
        Ok(pushed) => Answer::Accepted(pushed.into()),
        Err(problem) => Answer::Refused { error: told.tell(problem).item() },
    };
    Ok(accepted(Answers { jobs: answers.into_iter().map(answer).collect() }))
}

/// How many items were told what is wrong with them.
#[derive(Default)]
struct Told(usize);

impl Told {
    /// The problem; in few words when many were told before.
    fn tell(&mut self, problem: Problem) -> Problem {
        self.0 += 1;
        if self.0 <= ITEMS_TOLD_MAX { problem } else { problem.in_short("See the errors before.") }
    }
}

fn idempotency(headers: &HeaderMap, body: &JsonBody) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    let key = key.ok_or_else(|| {
        Problem::field("Idempotency-Key", format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"))
    })?;
    let digest: [u8; 32] = Sha256::digest(body.bytes()).into();
    let fingerprint = u64::from_be_bytes(digest[..8].try_into().unwrap_or_default());
    Ok(Some(Idempotency { key: key.into(), fingerprint }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Vec<String> {
        let Err(problem) = Submission::read(text) else { panic!("accepted: {text}") };
        problem.errors().iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn every_bad_option_is_named_at_once() {
        let errors = refused(
            r#"{"jobType":"a","data":1,"options":{"priority":999,"maxAttempts":0,"delay":-1,"prio":1,"key":"k"}}"#,
        );
        assert_eq!(errors.len(), 4, "{errors:#?}");
        let all = errors.join("\n");
        assert!(
            all.contains("options.priority: invalid value: integer `999`, expected a whole number from 0 to 255"),
            "{all}"
        );
        assert!(all.contains("options.prio: unknown field `prio`"), "{all}");
    }

    #[test]
    fn a_wrong_member_beside_the_options_is_named_too() {
        assert!(refused(r#"{"jobType":5,"data":1}"#)[0].starts_with("jobType: "));
        assert!(refused(r#"{"data":1}"#)[0].contains("missing field `jobType`"));
        assert!(refused(r#"{"jobType":"a","data":1,"when":2}"#)[0].contains("unknown field `when`"));
        assert!(refused(r#"{"jobType":"a","data":1,"options":7}"#)[0].starts_with("options: "));
    }

    #[test]
    fn thousands_of_unknown_options_make_a_short_answer() {
        let options: Vec<_> = (0..5000).map(|n| format!("\"o{n}\":1")).collect();
        let errors = refused(&format!("{{\"jobType\":\"a\",\"data\":1,\"options\":{{{}}}}}", options.join(",")));
        assert_eq!(errors.len(), ERRORS_MAX);
    }

    #[test]
    fn a_short_cap_alone_shortens_the_base_with_it() {
        let text = r#"{"jobType":"a","data":1,"options":{"backoff":{"cap":60}}}"#;
        let mut job = NewJob::new("a", "1");
        Submission::read(text).unwrap().options.unwrap().apply(&mut job).unwrap();
        assert_eq!(job.backoff, Backoff { base: Duration::from_millis(60), cap: Duration::from_millis(60) });
    }
}
