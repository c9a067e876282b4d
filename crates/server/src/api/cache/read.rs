//! Reading values.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use super::ITEMS_MAX;
use crate::api::parameters::Path;
use crate::api::render::{Envelope, Success, ok};
use crate::api::wire::{self, Raw};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Code, Problem, ProblemBody};

/// 16 MiB of values at most are fetched from Redis in one round trip: a tenth of a second on a gigabit line, and no longer may
/// the messages wait that come behind them.
const TRIP_BYTES_MAX: usize = 16 << 20;

/// Reads a value.
///
/// `data` is the value, byte for byte. A key may hold slashes, as they are or as `%2F`; what is special in an address is
/// percent-encoded.
#[utoipa::path(get, path = "/api/performance/cache/get/{key}", operation_id = "cache_get", tag = "cache",
    params(("key" = String, Path, description = "The key, percent-encoded; it may hold slashes.")),
    responses((status = 200, body = Envelope<serde_json::Value>),
        (status = 404, description = "`cache_miss`: there is no value for this key.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn get(State(app): State<Arc<App>>, Path(key): Path<String>) -> Result<Response, Problem> {
    super::check_key(&app, &key, "key")?;
    match app.cache.values.get(&key).await? {
        Some(value) => Ok(enveloped(&value)),
        None => {
            let shown: String = key.chars().take(200).collect();
            Err(Problem::new(Code::CacheMiss, format!("There is no value for the key {shown:?}.")))
        }
    }
}

/// A value in the envelope; it was checked to be JSON when it came in.
fn enveloped(value: &Bytes) -> Response {
    let mut body = Vec::with_capacity(value.len() + 24);
    body.extend_from_slice(br#"{"success":true,"data":"#);
    body.extend_from_slice(value);
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Keys whose values are wanted.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedKeys {
    /// At most 1000, of any text.
    #[serde(deserialize_with = "wire::list_of_at_most::<ITEMS_MAX, _, _>")]
    keys: Vec<String>,
}

/// What there is for the keys.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct FoundValues {
    /// One for each key, in the order of the keys.
    values: Vec<FoundValue>,
    /// Keys at the end of the list that were not looked at because the answer was large enough (`body_bytes_max`): ask for
    /// them again. Absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
}

/// What there is for one key.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct FoundValue {
    key: String,
    found: bool,
    /// The value, byte for byte; absent where none was found.
    #[schema(value_type = Option<Value>)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw")]
    value: Option<Bytes>,
}

fn raw<S: serde::Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(Raw).serialize(serializer)
}

/// Reads many values.
///
/// Absent ones are told as `found: false`. The answer is as large as a request may be (`body_bytes_max`); keys that did not fit
/// are named in `unread`.
#[utoipa::path(post, path = "/api/performance/cache/get-many", operation_id = "cache_get_many", tag = "cache", request_body = WantedKeys,
    responses((status = 200, body = Envelope<FoundValues>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn get_many(State(app): State<Arc<App>>, body: JsonBody) -> Result<Success<FoundValues>, Problem> {
    let WantedKeys { keys } = body.parse()?;
    drop(body);
    super::check_keys(&app, &keys)?;
    let values = &app.cache.values;
    let per_trip = (TRIP_BYTES_MAX / values.config().value_bytes_max).clamp(1, ITEMS_MAX);
    // Never closed; a failure could only mean that nobody else reads.
    let _turn = app.cache.batch_reads.acquire().await.ok();
    let mut room = Room::new(app.config.body_bytes_max.as_usize());
    let mut found = Vec::with_capacity(keys.len());
    for trip in keys.chunks(per_trip) {
        if room.is_used_up() {
            break;
        }
        let read = values.get_many(trip).await?;
        let fitting = read.into_iter().take_while(|value| room.take(value.as_ref().map_or(0, Bytes::len)));
        found.extend(fitting);
    }
    Ok(ok(FoundValues::new(keys, found)))
}

impl FoundValues {
    /// `found` is for the first of the keys.
    fn new(mut keys: Vec<String>, found: Vec<Option<Bytes>>) -> Self {
        let unread = keys.split_off(found.len());
        let one = |(key, value): (String, Option<Bytes>)| FoundValue { key, found: value.is_some(), value };
        Self { values: keys.into_iter().zip(found).map(one).collect(), unread }
    }
}

/// Bytes that an answer may still take; the first value always fits.
struct Room {
    bytes_left: Option<usize>,
    has_some: bool,
}

impl Room {
    fn new(bytes: usize) -> Self {
        Self { bytes_left: Some(bytes), has_some: false }
    }

    fn is_used_up(&self) -> bool {
        self.bytes_left.is_none()
    }

    fn take(&mut self, bytes: usize) -> bool {
        self.bytes_left = match self.bytes_left {
            Some(left) if bytes > left && !self.has_some => Some(0),
            left => left.and_then(|left| left.checked_sub(bytes)),
        };
        self.has_some |= bytes > 0;
        !self.is_used_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_room_ends_but_one_value_always_fits() {
        let mut room = Room::new(10);
        assert!(room.take(4) && room.take(0) && room.take(6) && room.take(0));
        assert!(!room.take(1) && room.is_used_up() && !room.take(0), "nothing after the first that did not fit");
        let mut room = Room::new(10);
        assert!(room.take(0) && room.take(11), "one value alone may be larger");
        assert!(!room.take(1));
    }

    #[test]
    fn keys_that_did_not_fit_are_named_in_order() {
        let keys = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let found = FoundValues::new(keys, vec![Some(Bytes::from_static(b"1.0")), None]);
        assert_eq!(
            serde_json::to_string(&found).unwrap(),
            r#"{"values":[{"key":"a","found":true,"value":1.0},{"key":"b","found":false}],"unread":["c","d"]}"#
        );
    }
}
