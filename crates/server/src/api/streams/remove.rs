//! Removing events and streams, for good.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_events::{Error, StreamName, Trim};

use super::{name, place};
use crate::api::parameters::Path;
use crate::api::render::{Envelope, Success, ok};
use crate::api::wire::{self, Whole};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Problem, ProblemBody};

/// A stream that was deleted.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Deleted {
    name: String,
    /// Always `true`.
    deleted: bool,
}

/// Deletes a stream with all its events and groups. Its listeners hear a gap.
#[utoipa::path(delete, path = "/api/streams/{stream}", operation_id = "delete_stream", tag = "streams", params(("stream" = String, Path, description = "The stream's name.")),
    responses((status = 200, body = Envelope<Deleted>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
) -> Result<Success<Deleted>, Problem> {
    let stream = name(&stream)?;
    let was_there = app.bus.delete(std::slice::from_ref(&stream)).await?;
    if was_there != [true] {
        return Err(Error::StreamNotFound { name: stream.to_string() }.into());
    }
    tracing::info!(%stream, "deleted a stream");
    Ok(ok(Deleted { name: stream.to_string(), deleted: true }))
}

/// Streams to delete.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteRequest {
    /// At most 10 000.
    #[serde(deserialize_with = "wire::list")]
    names: Vec<String>,
}

/// Streams that were deleted.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedMany {
    /// Those that were there.
    deleted: Vec<String>,
}

/// Deletes streams with all their events and groups; those that are not there are passed over.
#[utoipa::path(post, path = "/api/streams/delete", operation_id = "delete_streams", tag = "streams", request_body = DeleteRequest,
    responses((status = 200, body = Envelope<DeletedMany>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn delete_many(State(app): State<Arc<App>>, body: JsonBody) -> Result<Success<DeletedMany>, Problem> {
    let request: DeleteRequest = body.parse()?;
    let mut names: Vec<StreamName> = request.names.iter().map(|text| name(text)).collect::<Result<_, _>>()?;
    names.sort();
    names.dedup();
    let were_there = app.bus.delete(&names).await?;
    let deleted: Vec<String> =
        names.iter().zip(were_there).filter(|(_, there)| *there).map(|(name, _)| name.to_string()).collect();
    tracing::info!(count = deleted.len(), "deleted streams");
    Ok(ok(DeletedMany { deleted }))
}

/// What to remove from the old end of a stream: one of the two.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TrimRequest {
    /// All but the newest so many events.
    #[schema(value_type = Option<u64>)]
    max_length: Option<Whole<0, { u64::MAX }>>,
    /// All events before this id.
    before: Option<String>,
}

/// What was removed.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Trimmed {
    /// Events removed.
    trimmed: u64,
}

/// Removes the oldest events of a stream.
#[utoipa::path(post, path = "/api/streams/{stream}/trim", operation_id = "trim_stream", tag = "streams", params(("stream" = String, Path, description = "The stream's name.")),
    request_body = TrimRequest, responses((status = 200, body = Envelope<Trimmed>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn trim(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
    body: JsonBody,
) -> Result<Success<Trimmed>, Problem> {
    let stream = name(&stream)?;
    let trim = match body.parse()? {
        TrimRequest { max_length: Some(length), before: None } => Trim::MaxLength(length.get()),
        TrimRequest { max_length: None, before: Some(before) } => Trim::Before(place("before", &before)?),
        _ => return Err(Problem::field("maxLength", "either this or `before` is needed")),
    };
    let trimmed = app.bus.trim(&stream, trim).await?;
    tracing::info!(%stream, trimmed, "trimmed a stream");
    Ok(ok(Trimmed { trimmed }))
}
