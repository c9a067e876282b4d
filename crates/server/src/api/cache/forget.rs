//! Forgetting values: one, some, those that belong together, all.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidegate_cache::Invalidation;
use tokio_util::sync::CancellationToken;

use super::ITEMS_MAX;
use super::stats::InvalidationQueueStats;
use crate::api::parameters::{Path, Query};
use crate::api::render::{Envelope, Success, accepted, ok};
use crate::api::wire;
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Problem, ProblemBody};

/// How many values were deleted.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedValues {
    /// Values that were there, on Redis where there is one.
    deleted: u64,
}

/// Deletes a value in every tier and server: 1 or 0 of them, if there was none.
///
/// A key that is also the name of a resource here (`clear`, `stats`, `set`, …) is deleted by `invalidate`.
#[utoipa::path(delete, path = "/api/performance/cache/{key}", operation_id = "cache_delete", tag = "cache",
    params(("key" = String, Path, description = "The key, percent-encoded; it may hold slashes.")),
    responses((status = 200, body = Envelope<DeletedValues>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
) -> Result<Success<DeletedValues>, Problem> {
    super::check_key(&app, &key, "key")?;
    let was_there = app.cache.values.delete(&key).await?;
    Ok(ok(DeletedValues { deleted: u64::from(was_there) }))
}

/// What to forget: at least one of keys, tags and prefix.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forget {
    /// The values of these keys, at most 1000.
    #[serde(default, deserialize_with = "wire::list_of_at_most::<ITEMS_MAX, _, _>")]
    #[schema(value_type = Vec<String>)]
    keys: Vec<String>,
    /// All values that bear one of these tags, at most 1000.
    #[serde(default, deserialize_with = "wire::list_of_at_most::<ITEMS_MAX, _, _>")]
    #[schema(value_type = Vec<String>)]
    tags: Vec<String>,
    /// All values whose keys begin so.
    prefix: Option<String>,
    /// Put it into the queue instead of waiting for Redis; then the answer is 202.
    #[serde(default)]
    queued: bool,
}

/// What was forgotten.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Forgotten {
    /// Keys, tags and prefixes applied.
    invalidated: usize,
}

/// What waits to be forgotten.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Forgetting {
    /// Keys, tags and prefixes put into the queue.
    queued: usize,
    /// How many of them the full queue did not take (`queueDropPolicy` `newest`): everything will be invalidated instead.
    dropped: usize,
    /// How many wait now.
    waiting: u64,
}

impl Forget {
    fn invalidations(self, app: &App) -> Result<Vec<Invalidation>, Problem> {
        super::check_keys(app, &self.keys)?;
        let mut tags = self.tags.iter().enumerate();
        tags.try_for_each(|(n, tag)| super::check_tag(tag, &format!("tags[{n}]")))?;
        if let Some(prefix) = &self.prefix {
            check_prefix(app, prefix)?;
        }
        let keys = self.keys.into_iter().map(Invalidation::key);
        let tags = self.tags.into_iter().map(Invalidation::tag);
        let what: Vec<_> = keys.chain(tags).chain(self.prefix.map(Invalidation::prefix)).collect();
        match what.is_empty() {
            true => Err(Problem::field("keys", "at least one of `keys`, `tags` and `prefix` is needed")),
            false => Ok(what),
        }
    }
}

/// Nobody means everything by a prefix that happens to be empty.
fn check_prefix(app: &App, prefix: &str) -> Result<(), Problem> {
    if prefix.is_empty() {
        let message = "must not be empty; `DELETE /api/performance/cache/clear` without a prefix forgets everything";
        return Err(Problem::field("prefix", message));
    }
    super::check_key(app, prefix, "prefix")
}

/// Makes every server forget: values by key, by tag, by prefix, several of these at once.
///
/// When this answers 200, this server gives no older value any more, and no other one later than the link's delay
/// (`cache_staleness_max` at most). With `queued` it answers 202 at once, and that begins when the queue has applied it.
#[utoipa::path(post, path = "/api/performance/cache/invalidate", operation_id = "cache_invalidate", tag = "cache", request_body = Forget,
    responses((status = 200, body = Envelope<Forgotten>), (status = 202, description = "It was put into the queue.", body = Envelope<Forgetting>),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "This server has forgotten it, others may not have: repeat it.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn invalidate(State(app): State<Arc<App>>, body: JsonBody) -> Result<Response, Problem> {
    let request: Forget = body.parse()?;
    let is_queued = request.queued;
    let what = request.invalidations(&app)?;
    let count = what.len();
    if is_queued {
        let queue = &app.cache.invalidations;
        let dropped = what.into_iter().filter(|what| !queue.push(what.clone())).count();
        let waiting = queue.stats().waiting;
        return Ok(accepted(Forgetting { queued: count, dropped, waiting }).into_response());
    }
    app.cache.values.invalidate_all(&what).await?;
    Ok(ok(Forgotten { invalidated: count }).into_response())
}

/// Applies the invalidations that wait in the queue now; needed with `cache_auto_invalidate` off only. Answers how the queue stands
/// then.
#[utoipa::path(post, path = "/api/performance/cache/invalidate/apply", operation_id = "cache_apply_invalidations", tag = "cache",
    responses((status = 200, body = Envelope<InvalidationQueueStats>), (status = 503, description = "What was not applied still waits.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn apply(State(app): State<Arc<App>>) -> Result<Success<InvalidationQueueStats>, Problem> {
    app.cache.invalidations.apply().await?;
    Ok(ok(InvalidationQueueStats::of(&app)))
}

/// What to clear.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Clear {
    /// Only values whose keys begin so; everything without it.
    prefix: Option<String>,
}

/// Forgets everything, or what begins with a prefix, everywhere and at once, and removes it from Redis; answers when that is done.
///
/// Others hardly notice: Redis is asked for a thousand keys at a time. Who does not wait for the answer ends the removal; what is
/// left on Redis is never given and expires.
#[utoipa::path(delete, path = "/api/performance/cache/clear", operation_id = "cache_clear", tag = "cache", params(Clear),
    responses((status = 200, body = Envelope<DeletedValues>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn clear(
    State(app): State<Arc<App>>,
    Query(Clear { prefix }): Query<Clear>,
) -> Result<Success<DeletedValues>, Problem> {
    if let Some(prefix) = &prefix {
        check_prefix(&app, prefix)?;
    }
    // Ends with the request, whose deadline in the drain is that of all requests.
    let never = CancellationToken::new();
    let deleted = app.cache.values.clear(prefix.as_deref(), |_| {}, &never).await?;
    tracing::info!(prefix, deleted, "cleared the cache");
    Ok(ok(DeletedValues { deleted }))
}
