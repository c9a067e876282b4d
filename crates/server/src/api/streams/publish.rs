//! Publishing: one event or many, in our own form or as CloudEvents.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tidegate_events::NewEvent;

use crate::api::parameters::Path;
use crate::api::render::{Envelope, Success, accepted};
use crate::api::wire;
use crate::app::App;
use crate::body::{self, JsonBody};
use crate::error::{Problem, ProblemBody};

/// The longest id of ours that is kept as it is.
const ID_BYTES_MAX: usize = 256;

/// An event to publish. The attributes are those of CloudEvents; texts of 1 to 256 bytes.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneEvent<'a> {
    /// What it tells: any JSON, kept and delivered byte for byte.
    #[serde(borrow)]
    #[schema(value_type = Value)]
    data: &'a RawValue,
    /// What happened: `order.created`.
    #[serde(rename = "type", borrow)]
    #[schema(value_type = Option<String>)]
    kind: Option<Cow<'a, str>>,
    /// What it belongs to.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    key: Option<Cow<'a, str>>,
    /// A name of your own for it: published again under the same one, it is the same event and is not kept twice.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    id: Option<Cow<'a, str>>,
    /// Where it comes from.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    source: Option<Cow<'a, str>>,
    /// Whom it is about.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    subject: Option<Cow<'a, str>>,
}

/// Events to publish together: they stand together, in order, or none of them does.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManyEvents<'a> {
    /// 1 to 1000 (`events_batch_max`).
    #[serde(borrow, deserialize_with = "wire::list")]
    events: Vec<OneEvent<'a>>,
}

/// One event, or `{"events": […]}`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum Publication<'a> {
    One(#[serde(borrow)] OneEvent<'a>),
    Many(ManyEvents<'a>),
}

impl<'a> Publication<'a> {
    /// Looks which form it is first, so that what is wrong is told about that one.
    fn parse(body: &'a JsonBody) -> Result<Self, Problem> {
        if body.text().trim_start().starts_with('[') {
            return Err(Problem::field("body", r#"a list; several events go as `{"events":[…]}`"#));
        }
        match body.parse::<Form>()?.events {
            None => body.parse().map(Self::One),
            Some(_) => match body.parse::<ManyEvents<'_>>()? {
                many if many.events.is_empty() => Err(Problem::field("events", "at least one event")),
                many => Ok(Self::Many(many)),
            },
        }
    }
}

/// An event as CloudEvents 1.0 write it. `partitionkey` becomes the key; `time` and extensions are not kept.
#[derive(Deserialize)]
struct CloudEvent<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    partitionkey: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "wire::present")]
    data: Option<&'a RawValue>,
    data_base64: Option<IgnoredAny>,
}

/// A list of CloudEvents.
#[derive(Deserialize)]
struct CloudEvents<'a>(#[serde(borrow, deserialize_with = "wire::list")] Vec<CloudEvent<'a>>);

/// Where the events stand.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Published {
    /// In the order they were sent; of an event that was there already, where it is.
    ids: Vec<String>,
}

/// Which form a body has.
#[derive(Deserialize)]
struct Form {
    events: Option<IgnoredAny>,
}

/// Publishes events; they are as durable as the server promises when this answers. A stream is made by its first event.
#[utoipa::path(post, path = "/api/streams/{stream}/events", tag = "streams", params(("stream" = String, Path, description = "The stream's name.")),
    request_body(content = Publication<'static>, description = "Also `application/cloudevents+json` and `application/cloudevents-batch+json`: of CloudEvents the same `source` and `id` name the same event."),
    responses((status = 202, body = Envelope<Published>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "The streams are full, or there are too many.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Success<Published>, Problem> {
    let stream = super::name(&stream)?;
    let events = match essence(&headers) {
        "application/cloudevents+json" => vec![body.parse::<CloudEvent<'_>>()?.event(&body)?],
        "application/cloudevents-batch+json" => {
            let CloudEvents(events) = body::parse(body.text())?;
            events.iter().map(|event| event.event(&body)).collect::<Result<_, _>>()?
        }
        _ => match Publication::parse(&body)? {
            Publication::One(event) => vec![event.event(&body)],
            Publication::Many(many) => many.events.iter().map(|event| event.event(&body)).collect(),
        },
    };
    let published = app.bus.publish(&stream, events).await?;
    Ok(accepted(Published { ids: published.into_iter().map(|published| published.id.to_string()).collect() }))
}

fn essence(headers: &HeaderMap) -> &str {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().unwrap_or_default().trim()
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl OneEvent<'_> {
    fn event(&self, body: &JsonBody) -> NewEvent {
        NewEvent {
            data: body.payload(self.data),
            kind: self.kind.as_deref().map(text),
            key: self.key.as_deref().map(text),
            source: self.source.as_deref().map(text),
            subject: self.subject.as_deref().map(text),
            idempotence_id: self.id.as_deref().map(text),
        }
    }
}

impl CloudEvent<'_> {
    fn event(&self, body: &JsonBody) -> Result<NewEvent, Problem> {
        if self.specversion != "1.0" {
            return Err(Problem::field("specversion", "only CloudEvents 1.0 are understood"));
        }
        if self.data_base64.is_some() {
            return Err(Problem::field("data_base64", "binary data is not taken; send JSON in `data`"));
        }
        for (field, value) in [("id", &self.id), ("source", &self.source)] {
            if value.is_empty() {
                return Err(Problem::field(field, "must not be empty"));
            }
        }
        Ok(NewEvent {
            data: self.data.map_or(Bytes::from_static(b"null"), |data| body.payload(data)),
            kind: Some(text(&self.kind)),
            key: self.partitionkey.as_deref().map(text),
            source: Some(text(&self.source)),
            subject: self.subject.as_deref().map(text),
            idempotence_id: Some(self.identity().into()),
        })
    }

    /// Source and id together: ids are only unique within their source, and a source has no spaces.
    fn identity(&self) -> String {
        let identity = format!("{} {}", self.source, self.id);
        if identity.len() <= ID_BYTES_MAX {
            return identity;
        }
        Sha256::digest(identity.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud_event(source: &str, id: &str) -> CloudEvent<'static> {
        let text = serde_json::json!({"specversion": "1.0", "type": "t", "source": source, "id": id, "time": "x"});
        serde_json::from_str(Box::leak(text.to_string().into_boxed_str())).unwrap()
    }

    #[test]
    fn the_same_id_of_another_source_is_another_event() {
        assert_eq!(cloud_event("/a", "1").identity(), cloud_event("/a", "1").identity());
        assert_ne!(cloud_event("/a", "1").identity(), cloud_event("/b", "1").identity());
        let long = "x".repeat(256);
        let identities = [cloud_event(&long, "1").identity(), cloud_event(&long, "2").identity()];
        assert_ne!(identities[0], identities[1]);
        assert!(identities.iter().all(|identity| identity.len() <= ID_BYTES_MAX));
    }

    #[test]
    fn an_event_without_data_is_told_so_by_the_fields_name() {
        let problem = body::parse::<ManyEvents<'_>>(r#"{"events":[{"data":1},{"type":"t"}]}"#).err().unwrap();
        assert!(problem.detail().starts_with("events[1]: missing field `data`"), "{}", problem.detail());
    }
}
