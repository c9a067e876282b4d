//! Setting values.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_cache::Keep;

use super::ITEMS_MAX;
use crate::api::render::{Envelope, Success, ok};
use crate::api::wire::{self, FAR_MS, Whole};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Code, Problem, ProblemBody};

/// A value to keep.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewValue<'a> {
    /// 1 to 1024 bytes of any text.
    key: String,
    /// Any JSON, kept and given back byte for byte.
    #[serde(borrow)]
    #[schema(value_type = Value)]
    value: &'a RawValue,
    /// How long it is kept, in ms; an hour (`cache_ttl`) by default, and 30 days (`cache_ttl_max`) at most. Chance shortens it by up to 5 %
    /// (`cache_ttl_jitter`).
    #[schema(value_type = Option<u64>)]
    ttl: Option<Whole<1, FAR_MS>>,
    /// By which it can be invalidated together with others: at most 16, of 1 to 256 bytes.
    #[serde(default, deserialize_with = "wire::list_of_at_most::<ITEMS_MAX, _, _>")]
    #[schema(value_type = Vec<String>)]
    tags: Vec<String>,
}

/// A value that is kept.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeptValue {
    key: String,
    /// For how long at most, in ms.
    ttl: u64,
}

/// Values to keep.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewValues<'a> {
    /// At most 1000.
    #[serde(borrow, deserialize_with = "wire::list_of_at_most::<ITEMS_MAX, _, _>")]
    entries: Vec<NewValue<'a>>,
}

/// Values that are kept.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeptValues {
    /// How many.
    stored: usize,
}

impl NewValue<'_> {
    /// Refuses what the cache would refuse, and says where in the body it stands.
    fn check(&self, app: &App, place: &str) -> Result<(), Problem> {
        let config = app.cache.values.config();
        super::check_key(app, &self.key, &format!("{place}key"))?;
        let (bytes, most) = (self.value.get().len(), config.value_bytes_max);
        if bytes > most {
            let detail = format!("{place}value has {bytes} bytes; at most {most} are taken (`cache_value_bytes_max`).");
            return Err(Problem::new(Code::ValueTooLarge, detail));
        }
        if self.tags.len() > config.tags_max {
            let message = format!("at most {}, not {}", config.tags_max, self.tags.len());
            return Err(Problem::field(format!("{place}tags"), message));
        }
        let mut tags = self.tags.iter().enumerate();
        tags.try_for_each(|(n, tag)| super::check_tag(tag, &format!("{place}tags[{n}]")))
    }

    fn ttl(&self) -> Option<Duration> {
        self.ttl.map(|ttl| Duration::from_millis(ttl.get()))
    }

    /// Copies the value, so that it does not keep the request's body in memory.
    fn entry(self) -> (String, Bytes, Keep) {
        let keep = Keep::new();
        let keep = self.ttl().map_or(keep.clone(), |ttl| keep.ttl(ttl));
        (self.key, Bytes::copy_from_slice(self.value.get().as_bytes()), keep.tags(self.tags))
    }
}

/// Sets a value, in every tier; every server gives it from now on, or after the link's delay (`cache_staleness_max` at most).
#[utoipa::path(post, path = "/api/performance/cache/set", operation_id = "cache_set", tag = "cache", request_body = NewValue<'static>,
    responses((status = 200, body = Envelope<KeptValue>), (status = 413, description = "`value_too_large`, `body_too_large`.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn set(State(app): State<Arc<App>>, body: JsonBody) -> Result<Success<KeptValue>, Problem> {
    let value: NewValue<'_> = body.parse()?;
    value.check(&app, "")?;
    let config = app.cache.values.config();
    let ttl = value.ttl().unwrap_or(config.ttl).min(config.ttl_max).as_millis() as u64;
    let (key, value, keep) = value.entry();
    app.cache.values.set(&key, value, keep).await?;
    Ok(ok(KeptValue { key, ttl }))
}

/// Sets many values. What cannot be accepted is found before any is set; of a key that is there twice the last counts.
///
/// Each is set for itself: after an error of Redis some may be set.
#[utoipa::path(post, path = "/api/performance/cache/set-many", operation_id = "cache_set_many", tag = "cache", request_body = NewValues<'static>,
    responses((status = 200, body = Envelope<KeptValues>), (status = 413, description = "`value_too_large`, `body_too_large`.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn set_many(State(app): State<Arc<App>>, body: JsonBody) -> Result<Success<KeptValues>, Problem> {
    let NewValues { entries } = body.parse()?;
    Ok(ok(KeptValues { stored: store(&app, entries).await? }))
}

/// Sets values and says how many, those of a key that is there twice once.
pub(super) async fn store(app: &App, entries: Vec<NewValue<'_>>) -> Result<usize, Problem> {
    entries.iter().enumerate().try_for_each(|(n, entry)| entry.check(app, &format!("entries[{n}].")))?;
    let entries = last_of_each(entries);
    let stored = entries.len();
    app.cache.values.set_many(entries.into_iter().map(NewValue::entry).collect()).await?;
    Ok(stored)
}

/// The entries without those that a later one replaces.
fn last_of_each(entries: Vec<NewValue<'_>>) -> Vec<NewValue<'_>> {
    let mut last = std::collections::BTreeMap::new();
    for entry in entries {
        last.insert(entry.key.clone(), entry);
    }
    last.into_values().collect()
}
