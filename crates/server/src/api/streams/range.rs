//! Reading a stream: a range of events, from either end.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_events::{EventId, Order, Read};

use super::place;
use super::view::EventView;
use crate::api::parameters::{Path, Query};
use crate::api::render::{Envelope, Success, ok};
use crate::app::App;
use crate::error::{Problem, ProblemBody};

/// Which events to read.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only those after this id.
    after: Option<String>,
    /// Only those before this id.
    before: Option<String>,
    /// Only those published at this time or later: RFC 3339, or milliseconds since 1970.
    from: Option<String>,
    /// At most this many, 1 to 1000; 100 by default. Fewer come when they are large.
    limit: Option<usize>,
    /// `asc`, oldest first, by default; or `desc`.
    #[param(value_type = Option<String>)]
    order: Option<Direction>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Asc,
    Desc,
}

/// Events that were read.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct EventPage {
    events: Vec<EventView>,
    /// Where the next page starts; null when there is no more in the range.
    cursor: Option<String>,
}

impl Wanted {
    fn read(&self) -> Result<Read, Problem> {
        let id = |field, text: &Option<String>| text.as_deref().map(|text| place(field, text)).transpose();
        let order = match self.order {
            Some(Direction::Desc) => Order::Descending,
            _ => Order::Ascending,
        };
        let cursor = id("cursor", &self.cursor)?;
        let (forward, backward) = match order {
            Order::Ascending => (cursor, None),
            Order::Descending => (None, cursor),
        };
        let from = self.from.as_deref().map(time).transpose()?.map(EventId::before_time);
        let after = [id("after", &self.after)?, from, forward].into_iter().flatten().max();
        let before = [id("before", &self.before)?, backward].into_iter().flatten().min();
        Ok(Read {
            after: after.unwrap_or(EventId::ZERO),
            before: before.unwrap_or(EventId::MAX),
            limit: super::limit(self.limit)?,
            order,
        })
    }
}

/// A time as milliseconds since 1970.
fn time(text: &str) -> Result<u64, Problem> {
    let bad = || Problem::field("from", "a time as `2026-01-31T12:00:00Z`, or milliseconds since 1970");
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| bad());
    }
    let instant: jiff::Timestamp = text.parse().map_err(|_| bad())?;
    // Before 1970 there was nothing.
    Ok(u64::try_from(instant.as_millisecond()).unwrap_or(0))
}

/// Reads events.
#[utoipa::path(get, path = "/api/streams/{stream}/events", operation_id = "read_events", tag = "streams",
    params(("stream" = String, Path, description = "The stream's name."), Wanted),
    responses((status = 200, body = Envelope<EventPage>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn range(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Success<EventPage>, Problem> {
    let page = app.bus.read(&super::name(&stream)?, wanted.read()?).await?;
    let last = page.events.last().map(|event| event.id.to_string());
    Ok(ok(EventPage {
        events: page.events.into_iter().map(EventView::from).collect(),
        cursor: last.filter(|_| page.more),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &[(&str, &str)]) -> Result<Read, Problem> {
        let object: serde_json::Map<String, serde_json::Value> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        serde_json::from_value::<Wanted>(object.into()).unwrap().read()
    }

    #[test]
    fn the_narrowest_of_all_bounds_counts() {
        let read = wanted(&[("after", "5-1"), ("from", "1970-01-01T00:00:00.003Z"), ("cursor", "7-0")]).unwrap();
        assert_eq!((read.after, read.before), ("7-0".parse().unwrap(), EventId::MAX));
        let read = wanted(&[("before", "9-0"), ("cursor", "7-0"), ("order", "desc")]).unwrap();
        assert_eq!((read.after, read.before), (EventId::ZERO, "7-0".parse().unwrap()));
    }

    #[test]
    fn a_time_includes_the_events_of_its_millisecond() {
        for from in ["1970-01-01T00:00:05Z", "5000"] {
            let read = wanted(&[("from", from)]).unwrap();
            assert!(read.after < "5000-0".parse().unwrap() && read.after > "4999-9".parse().unwrap(), "{read:?}");
        }
        assert_eq!(wanted(&[("from", "1969-12-31T23:59:59Z")]).unwrap().after, EventId::ZERO);
        assert!(wanted(&[("from", "yesterday")]).unwrap_err().detail().starts_with("from: "));
    }
}
