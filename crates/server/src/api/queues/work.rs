//! The worker protocol: claim, beat, complete, fail, progress, release. Any language with HTTP can work.
//!
//! Every call after the claim carries leases; each is honoured or answered `stale` by itself, in order.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_queue as queue;
use tidegate_queue::{Beat, Claim, Claimed, Finish, Lease, Queue, QueueName, Retry, Worker};

use super::name;
use crate::api::parameters::Path;
use crate::api::render::{Envelope, Success, instant, ok};
use crate::api::wire::{self, FAR_MS, Raw, Whole};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Problem, ProblemBody};

/// 30 s: shorter than what proxies allow a silent response.
const WAIT_MS_MAX: u64 = 30_000;
const CLAIM_MAX: usize = 1000;

/// A request for jobs.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClaimRequest {
    /// Name of the worker, for people; 1 to 200 bytes, unique per start.
    worker: String,
    /// At most this many, 1 to 1000; 1 by default.
    limit: Option<usize>,
    /// How long to wait for the first, 0 to 30 000; 0 by default. With `waiting_claims_max` claims waiting already, the
    /// answer comes at once.
    wait_ms: Option<u64>,
}

/// A request for the next jobs in the same call.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NextClaim {
    /// As in `claim`; `http` when absent.
    worker: Option<String>,
    limit: Option<usize>,
    wait_ms: Option<u64>,
}

/// Jobs that were handed out.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claims {
    jobs: Vec<ClaimedView>,
    /// How long the leases last without a beat.
    lease_ms: u64,
}

/// A job that is yours until its lease expires.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimedView {
    /// To be sent with every later call about this attempt.
    lease: String,
    job_id: String,
    job_type: String,
    /// The argument, byte for byte.
    #[schema(value_type = Value)]
    #[serde(serialize_with = "raw")]
    data: bytes::Bytes,
    /// 1 for the first.
    attempt: u16,
    max_attempts: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// When this attempt times out.
    deadline_at: String,
}

fn raw<S: serde::Serializer>(bytes: &bytes::Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    Raw(bytes).serialize(serializer)
}

impl From<Claimed> for ClaimedView {
    fn from(claimed: Claimed) -> Self {
        Self {
            lease: claimed.lease.to_string(),
            job_id: claimed.id.to_string(),
            job_type: claimed.kind.to_string(),
            data: claimed.data,
            attempt: claimed.attempt,
            max_attempts: claimed.max_attempts,
            key: claimed.key.map(|key| key.to_string()),
            deadline_at: instant(claimed.deadline_at.0),
        }
    }
}

fn claim_of(worker: &str, limit: Option<usize>, wait_ms: Option<u64>, path: &str) -> Result<Claim, Problem> {
    let (limit, wait_ms) = (limit.unwrap_or(1), wait_ms.unwrap_or(0));
    if !(1..=CLAIM_MAX).contains(&limit) {
        return Err(Problem::field(format!("{path}limit"), format!("1 to {CLAIM_MAX}")));
    }
    if wait_ms > WAIT_MS_MAX {
        return Err(Problem::field(format!("{path}waitMs"), format!("0 to {WAIT_MS_MAX}")));
    }
    Ok(Claim { worker: Worker::remote(worker), limit, wait: Duration::from_millis(wait_ms) })
}

impl NextClaim {
    fn claim(&self) -> Result<Claim, Problem> {
        claim_of(self.worker.as_deref().unwrap_or("http"), self.limit, self.wait_ms, "claim.")
    }
}

/// Takes jobs, most urgent first; waits for the first one if asked to. A client that goes away while it waits takes
/// nothing with it; one that goes away with the answer loses its leases when they expire.
#[utoipa::path(post, path = "/api/queues/{queue}/claim", tag = "workers", params(("queue" = String, Path, description = "The queue's name.")),
    request_body = ClaimRequest, responses((status = 200, body = Envelope<Claims>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn claim(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    body: JsonBody,
) -> Result<Success<Claims>, Problem> {
    let request: ClaimRequest = body.parse()?;
    let claim = claim_of(&request.worker, request.limit, request.wait_ms, "")?;
    drop(body);
    let claimed = claimed(&app, &name(&queue)?, claim).await?;
    Ok(ok(claims(&app, claimed)))
}

/// Claims; a claim that finds no place among those waiting does not wait.
async fn claimed(app: &App, queue: &QueueName, claim: Claim) -> Result<Vec<Claimed>, queue::Error> {
    let seat = if claim.wait.is_zero() { None } else { app.waiting_claims.take() };
    let wait = if seat.is_some() { claim.wait } else { Duration::ZERO };
    app.queues.queue(queue).await?.claim(Claim { wait, ..claim }).await
}

fn claims(app: &App, claimed: Vec<Claimed>) -> Claims {
    Claims {
        jobs: claimed.into_iter().map(ClaimedView::from).collect(),
        lease_ms: app.queues.lease().as_millis() as u64,
    }
}

/// A sign of life.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeatRequest {
    worker: String,
    /// The leases still worked on, at most 10 000.
    #[serde(deserialize_with = "wire::list")]
    leases: Vec<String>,
}

/// What the worker should know.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BeatView {
    /// How long the renewed leases last from now.
    lease_ms: u64,
    /// Stop working on these: cancelled, or out of time.
    cancelled: Vec<String>,
    /// These are not yours any more.
    stale: Vec<String>,
    paused: bool,
}

/// Renews leases and tells what was cancelled or lost. Call it every fifth of `leaseMs`.
#[utoipa::path(post, path = "/api/queues/{queue}/beat", tag = "workers", params(("queue" = String, Path, description = "The queue's name.")),
    request_body = BeatRequest, responses((status = 200, body = Envelope<BeatView>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn beat(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    body: JsonBody,
) -> Result<Success<BeatView>, Problem> {
    let BeatRequest { worker, leases } = body.parse()?;
    let (mut known, mut stale) = (Vec::new(), Vec::new());
    for lease in leases {
        match lease.parse::<Lease>() {
            Ok(lease) => known.push(lease),
            Err(_) => stale.push(lease),
        }
    }
    let worker = Worker::remote(worker);
    let beat = match app.queues.find(&name(&queue)?).await? {
        Some(queue) => queue.beat(&worker, &known).await?,
        // A name written wrongly must not make a queue; whoever holds these leases holds nothing there.
        None => Beat { lease: app.queues.lease(), cancelled: Vec::new(), stale: known, paused: false },
    };
    let texts = |leases: Vec<Lease>| leases.into_iter().map(|lease| lease.to_string());
    stale.extend(texts(beat.stale));
    Ok(ok(BeatView {
        lease_ms: beat.lease.as_millis() as u64,
        cancelled: texts(beat.cancelled).collect(),
        stale,
        paused: beat.paused,
    }))
}

/// Whether a call was honoured.
#[derive(Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Accepted, and as durable as the server promises.
    Ok,
    /// The lease is not the running attempt's; nothing was changed.
    Stale,
}

impl From<queue::Outcome> for Outcome {
    fn from(outcome: queue::Outcome) -> Self {
        match outcome {
            queue::Outcome::Ok => Self::Ok,
            queue::Outcome::Stale => Self::Stale,
        }
    }
}

/// Outcomes in order, and the next jobs where they were asked for.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcomes {
    outcomes: Vec<Outcome>,
    #[serde(flatten)]
    next: Option<Claims>,
}

/// Attempts that are done.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteRequest<'a> {
    /// At most 10 000.
    #[serde(borrow, deserialize_with = "wire::list")]
    results: Vec<ResultOf<'a>>,
    claim: Option<NextClaim>,
}

/// What an attempt returned.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultOf<'a> {
    lease: String,
    /// Any JSON, kept byte for byte.
    #[serde(borrow, default, deserialize_with = "wire::present")]
    #[schema(value_type = Option<Value>)]
    result: Option<&'a RawValue>,
}

/// Ends attempts as done; the outcomes are durable when answered.
#[utoipa::path(post, path = "/api/queues/{queue}/complete", tag = "workers", params(("queue" = String, Path, description = "The queue's name.")),
    request_body = CompleteRequest<'static>, responses((status = 200, body = Envelope<Outcomes>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    body: JsonBody,
) -> Result<Success<Outcomes>, Problem> {
    let CompleteRequest { results, claim } = body.parse()?;
    let claim = claim.map(|claim| claim.claim()).transpose()?;
    let finish = |one: ResultOf<'_>| {
        let lease = one.lease.parse().ok()?;
        Some(Finish::Complete { lease, result: one.result.map(|raw| body.payload(raw)) })
    };
    let finishes = results.into_iter().map(finish).collect();
    // The wait for the next jobs must not hold on to the results of the last ones.
    drop(body);
    finished(&app, &queue, finishes, claim).await
}

/// Attempts that failed.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailRequest {
    /// At most 10 000.
    #[serde(deserialize_with = "wire::list")]
    failures: Vec<FailureOf>,
    claim: Option<NextClaim>,
}

/// Why an attempt failed, and what should follow.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FailureOf {
    lease: String,
    /// For people.
    error: String,
    /// `false` sends the job to the dead letter set at once; `true` by default.
    retry: Option<bool>,
    /// Try again in exactly this long, in milliseconds; by default after the job's backoff.
    #[schema(value_type = Option<u64>)]
    retry_in: Option<Whole<0, FAR_MS>>,
}

impl FailureOf {
    fn finish(self) -> Option<Finish> {
        let retry = match (self.retry.unwrap_or(true), self.retry_in) {
            (false, _) => Retry::Never,
            (true, Some(ms)) => Retry::In(Duration::from_millis(ms.get())),
            (true, None) => Retry::Backoff,
        };
        Some(Finish::Fail { lease: self.lease.parse().ok()?, error: self.error.into(), retry })
    }
}

/// Ends attempts as failed; they are tried again while attempts are left.
#[utoipa::path(post, path = "/api/queues/{queue}/fail", tag = "workers", params(("queue" = String, Path, description = "The queue's name.")),
    request_body = FailRequest, responses((status = 200, body = Envelope<Outcomes>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn fail(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    body: JsonBody,
) -> Result<Success<Outcomes>, Problem> {
    let FailRequest { failures, claim } = body.parse()?;
    let claim = claim.map(|claim| claim.claim()).transpose()?;
    drop(body);
    finished(&app, &queue, failures.into_iter().map(FailureOf::finish).collect(), claim).await
}

/// Attempts that were not started.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseRequest {
    /// At most 10 000.
    #[serde(deserialize_with = "wire::list")]
    leases: Vec<String>,
}

/// Gives jobs back unstarted: to the front of the queue, the attempt not counted.
#[utoipa::path(post, path = "/api/queues/{queue}/release", tag = "workers", params(("queue" = String, Path, description = "The queue's name.")),
    request_body = ReleaseRequest, responses((status = 200, body = Envelope<Outcomes>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn release(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    body: JsonBody,
) -> Result<Success<Outcomes>, Problem> {
    let ReleaseRequest { leases } = body.parse()?;
    let finishes = leases.iter().map(|lease| Some(Finish::Release { lease: lease.parse().ok()? })).collect();
    finished(&app, &queue, finishes, None).await
}

/// How far attempts are.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgressRequest {
    /// At most 10 000.
    #[serde(deserialize_with = "wire::list")]
    updates: Vec<ProgressOf>,
}

/// How far an attempt is.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgressOf {
    lease: String,
    /// 0 to 1.
    progress: f64,
    /// For people.
    note: Option<String>,
}

/// Notes how far attempts are. Not durable: a restart forgets it.
#[utoipa::path(post, path = "/api/queues/{queue}/progress", tag = "workers", params(("queue" = String, Path, description = "The queue's name.")),
    request_body = ProgressRequest, responses((status = 200, body = Envelope<Outcomes>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn progress(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    body: JsonBody,
) -> Result<Success<Outcomes>, Problem> {
    let ProgressRequest { updates } = body.parse()?;
    if let Some(place) = updates.iter().position(|update| !(0.0..=1.0).contains(&update.progress)) {
        return Err(Problem::field(format!("updates[{place}].progress"), "a number from 0 to 1"));
    }
    let updates = updates
        .into_iter()
        .map(|update| {
            Some(queue::Progress {
                lease: update.lease.parse().ok()?,
                progress: update.progress,
                note: update.note.map(Into::into),
            })
        })
        .collect();
    let outcomes = match app.queues.find(&name(&queue)?).await? {
        Some(queue) => fenced(updates, async |updates| queue.progress(updates).await).await?,
        None => vec![Outcome::Stale; updates.len()],
    };
    Ok(ok(Outcomes { outcomes, next: None }))
}

async fn finished(
    app: &App,
    queue: &str,
    finishes: Vec<Option<Finish>>,
    claim: Option<Claim>,
) -> Result<Success<Outcomes>, Problem> {
    let name = name(queue)?;
    let found = app.queues.find(&name).await?;
    let (outcomes, next) = match (found, claim) {
        (Some(queue), None) => (fenced(finishes, async |finishes| queue.finish(finishes).await).await?, None),
        (Some(queue), Some(claim)) => {
            let (outcomes, jobs) = step(app, &queue, finishes, claim).await?;
            (outcomes, Some(jobs))
        }
        (None, claim) => {
            let jobs = match claim {
                Some(claim) => Some(claimed(app, &name, claim).await?),
                None => None,
            };
            (vec![Outcome::Stale; finishes.len()], jobs)
        }
    };
    Ok(ok(Outcomes { outcomes, next: next.map(|jobs| claims(app, jobs)) }))
}

/// Ends attempts and takes what there is in one call; only when there is nothing, a second one waits.
async fn step(
    app: &App,
    queue: &Queue,
    finishes: Vec<Option<Finish>>,
    claim: Claim,
) -> Result<(Vec<Outcome>, Vec<Claimed>), Problem> {
    let mut jobs = Vec::new();
    let at_once = Claim { wait: Duration::ZERO, ..claim.clone() };
    let outcomes = fenced(finishes, async |finishes| {
        let (outcomes, claimed) = queue.step(finishes, at_once).await?;
        jobs = claimed;
        Ok(outcomes)
    })
    .await?;
    if jobs.is_empty() && !claim.wait.is_zero() {
        // The outcomes are durable by now and must be told, so a claim that fails brings none.
        jobs = claimed(app, queue.name(), claim).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to claim after finishing");
            Vec::new()
        });
    }
    Ok((outcomes, jobs))
}

/// Calls `verb` with the items whose lease can be one; the others are stale. Outcomes in the order of the items.
async fn fenced<T>(
    items: Vec<Option<T>>,
    verb: impl AsyncFnOnce(Vec<T>) -> Result<Vec<queue::Outcome>, queue::Error>,
) -> Result<Vec<Outcome>, Problem> {
    let is_lease: Vec<bool> = items.iter().map(Option::is_some).collect();
    let told = verb(items.into_iter().flatten().collect()).await?;
    let mut told = told.into_iter().map(Outcome::from);
    Ok(is_lease
        .into_iter()
        .map(|is_lease| if is_lease { told.next().unwrap_or(Outcome::Stale) } else { Outcome::Stale })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outcomes_keep_the_places_of_their_items() {
        let verb = async |items: Vec<u8>| {
            Ok(items.into_iter().map(|n| if n == 1 { queue::Outcome::Ok } else { queue::Outcome::Stale }).collect())
        };
        let outcomes = fenced(vec![None, Some(1), None, Some(2), Some(1)], verb).await.unwrap();
        let texts: Vec<_> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Ok)).collect();
        assert_eq!(texts, [false, true, false, false, true]);
    }

    #[test]
    fn absurd_limits_and_waits_are_refused() {
        assert!(claim_of("w", Some(0), None, "").is_err());
        assert!(claim_of("w", Some(1001), None, "").is_err());
        assert!(claim_of("w", None, Some(30_001), "").is_err());
        assert!(claim_of("w", None, Some(u64::MAX), "").is_err());
        assert!(claim_of("w", Some(1000), Some(30_000), "").is_ok());
    }
}
