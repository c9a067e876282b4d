//! Events and streams as they are written.

use bytes::Bytes;
use serde::Serialize;
use tidegate_events::{Event, StreamInfo};

use crate::api::render::instant;
use crate::api::wire::Raw;

/// An event of a stream.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    /// Its place in the stream: `1763700000000-0`, the time it was published and a number.
    id: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// What it tells, byte for byte.
    #[schema(value_type = Value)]
    #[serde(serialize_with = "raw")]
    data: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The `id` it was published with.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotence_id: Option<String>,
    published_at: String,
}

fn raw<S: serde::Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    Raw(bytes).serialize(serializer)
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let text = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self {
            id: event.id.to_string(),
            published_at: instant(i64::try_from(event.id.ms).unwrap_or(i64::MAX)),
            kind: text(event.kind),
            data: event.data,
            key: text(event.key),
            source: text(event.source),
            subject: text(event.subject),
            idempotence_id: text(event.idempotence_id),
        }
    }
}

/// A stream and how it stands.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamView {
    name: String,
    /// Events kept.
    length: u64,
    /// The id of the oldest event kept.
    first_entry: Option<String>,
    /// The id of the newest event kept.
    last_entry: Option<String>,
}

impl From<StreamInfo> for StreamView {
    fn from(info: StreamInfo) -> Self {
        Self {
            name: info.name.to_string(),
            length: info.length,
            first_entry: info.first.map(|id| id.to_string()),
            last_entry: info.last.map(|id| id.to_string()),
        }
    }
}
