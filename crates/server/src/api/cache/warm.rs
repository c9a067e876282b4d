//! Filling memory before anybody asks.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_cache::Warmed;

use super::ITEMS_MAX;
use super::write::{NewValue, store};
use crate::api::render::{Envelope, Success, ok};
use crate::api::wire::{self, Whole};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Problem, ProblemBody};

/// 8192: as many keys as are counted.
const HOTTEST_MAX: u64 = 8192;

/// What to warm: one of the three.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Warm<'a> {
    /// Keys whose values are fetched from Redis into the memory of this server, at most 10 000.
    #[serde(default, deserialize_with = "some_keys")]
    #[schema(value_type = Vec<String>)]
    keys: Option<Vec<String>>,
    /// Values to set, at most 1000; as `set-many`.
    #[serde(borrow, default, deserialize_with = "some_entries")]
    #[schema(value_type = Vec<NewValue<'a>>)]
    entries: Option<Vec<NewValue<'a>>>,
    /// So many of the keys that were asked for most, as the server wrote them down that stopped last on this Redis.
    #[schema(value_type = Option<u64>)]
    hottest: Option<Whole<1, HOTTEST_MAX>>,
}

fn some_keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    wire::list(deserializer).map(Some)
}

fn some_entries<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<NewValue<'de>>>, D::Error> {
    wire::list_of_at_most::<ITEMS_MAX, _, _>(deserializer).map(Some)
}

/// What came of it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct WarmedKeys {
    /// Keys whose values are in memory now.
    warmed: usize,
    /// Keys for which there is no value.
    missing: usize,
    /// Keys that could not be asked for.
    failed: usize,
}

impl From<Warmed> for WarmedKeys {
    fn from(Warmed { warmed, missing, failed }: Warmed) -> Self {
        Self { warmed, missing, failed }
    }
}

/// Fills the memory of this server: from Redis by a list of keys or by those that were hottest before the last stop, or from
/// the entries given. Answers when it is done.
#[utoipa::path(post, path = "/api/performance/cache/warm", operation_id = "cache_warm", tag = "cache", request_body = Warm<'static>,
    responses((status = 200, body = Envelope<WarmedKeys>), (status = 413, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn warm(State(app): State<Arc<App>>, body: JsonBody) -> Result<Success<WarmedKeys>, Problem> {
    match body.parse()? {
        Warm { keys: Some(keys), entries: None, hottest: None } => {
            super::check_keys(&app, &keys)?;
            fetch(&app, &keys).await
        }
        Warm { keys: None, entries: Some(entries), hottest: None } => {
            let warmed = store(&app, entries).await?;
            Ok(ok(WarmedKeys { warmed, missing: 0, failed: 0 }))
        }
        Warm { keys: None, entries: None, hottest: Some(most) } => {
            let mut keys = app.cache.values.saved_hottest().await?;
            keys.truncate(most.get() as usize);
            fetch(&app, &keys).await
        }
        _ => Err(Problem::field("keys", "exactly one of `keys`, `entries` and `hottest` is needed")),
    }
}

async fn fetch(app: &App, keys: &[String]) -> Result<Success<WarmedKeys>, Problem> {
    let warmed = app.cache.values.fetch(keys, |_| {}).await;
    if !keys.is_empty() && warmed.failed == keys.len() {
        // Nothing at all came: say why, where it is known.
        app.cache.check()?;
    }
    Ok(ok(warmed.into()))
}
