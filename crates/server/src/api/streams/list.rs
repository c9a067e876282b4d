//! Which streams there are, and how one stands.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_events::StreamName;

use super::view::StreamView;
use crate::api::parameters::{Path, Query};
use crate::api::render::{Envelope, Success, instant, ok};
use crate::app::App;
use crate::error::{Problem, ProblemBody};

/// Which streams to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only those whose names begin so.
    prefix: Option<String>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// At most this many, 1 to 1000; 100 by default.
    limit: Option<usize>,
}

/// A page of streams, by name.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamPage {
    streams: Vec<StreamView>,
    /// When the names were read; what was made or deleted through Tidegate since is here all the same.
    cached_at: String,
    /// Where the next page starts; null on the last one.
    cursor: Option<String>,
}

/// Lists streams by name, with their lengths and ends.
#[utoipa::path(get, path = "/api/streams", operation_id = "list_streams", tag = "streams", params(Wanted),
    responses((status = 200, body = Envelope<StreamPage>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(wanted): Query<Wanted>,
) -> Result<Success<StreamPage>, Problem> {
    let limit = super::limit(wanted.limit)?;
    let not_a_cursor = |_| Problem::field("cursor", "not a cursor of this list");
    let after = wanted.cursor.as_deref().map(StreamName::new).transpose().map_err(not_a_cursor)?;
    let page = app.bus.list(wanted.prefix.as_deref().unwrap_or_default(), after.as_ref(), limit).await?;
    Ok(ok(StreamPage {
        streams: page.streams.into_iter().map(StreamView::from).collect(),
        cached_at: instant(i64::try_from(page.cached_at_ms).unwrap_or(i64::MAX)),
        cursor: page.next.map(|name| name.to_string()),
    }))
}

/// How a stream stands.
#[utoipa::path(get, path = "/api/streams/{stream}", tag = "streams", params(("stream" = String, Path, description = "The stream's name.")),
    responses((status = 200, body = Envelope<StreamView>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
) -> Result<Success<StreamView>, Problem> {
    Ok(ok(app.bus.info(&super::name(&stream)?).await?.into()))
}
