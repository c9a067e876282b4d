//! Consumer groups: each event goes to one consumer of a group, and again to another when it is not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_events::{Claim, Delivery, EventId, Failed, Group, GroupInfo, GroupName, Pending};

use super::view::EventView;
use super::{name, place};
use crate::api::parameters::{Path, Query};
use crate::api::render::{Envelope, Success, ok};
use crate::api::wire::{self, Whole};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{Problem, ProblemBody};

/// 30 s: shorter than what proxies allow a silent response.
const WAIT_MS_MAX: u64 = 30_000;
/// A day: longer than anybody works on one event.
const IDLE_MS_MAX: u64 = 86_400_000;

/// Whom the calls are about: the stream's and the group's name.
type Names = Path<(String, String)>;

fn group(app: &App, Path((stream, group)): &Names) -> Result<Group, Problem> {
    Ok(app.bus.group(&name(stream)?, &GroupName::new(group)?))
}

/// The groups of a stream.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Groups {
    groups: Vec<GroupView>,
}

/// How far a group has come.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupView {
    name: String,
    /// The newest event it was given.
    delivered_to: String,
    /// Deliveries that wait to be acknowledged.
    pending: u64,
    consumers: u64,
}

impl From<GroupInfo> for GroupView {
    fn from(info: GroupInfo) -> Self {
        let GroupInfo { name, delivered_to, pending, consumers } = info;
        Self { name: name.to_string(), delivered_to: delivered_to.to_string(), pending, consumers }
    }
}

/// The groups of a stream and how far they have come.
#[utoipa::path(get, path = "/api/streams/{stream}/groups", operation_id = "list_groups", tag = "groups", params(("stream" = String, Path, description = "The stream's name.")),
    responses((status = 200, body = Envelope<Groups>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn groups(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
) -> Result<Success<Groups>, Problem> {
    let groups = app.bus.groups(&name(&stream)?).await?;
    Ok(ok(Groups { groups: groups.into_iter().map(GroupView::from).collect() }))
}

/// Which pending deliveries to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// At most this many, 1 to 1000; 100 by default.
    limit: Option<usize>,
}

/// A page of pending deliveries, oldest event first.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PendingPage {
    pending: Vec<PendingView>,
    /// Where the next page starts; null on the last one.
    cursor: Option<String>,
}

/// A delivery that waits to be acknowledged.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingView {
    /// The event's.
    id: String,
    /// Who holds it.
    consumer: String,
    /// For how long.
    idle_ms: u64,
    /// How often it was delivered.
    deliveries: u32,
}

impl From<Pending> for PendingView {
    fn from(pending: Pending) -> Self {
        Self {
            id: pending.id.to_string(),
            consumer: pending.consumer.into(),
            idle_ms: u64::try_from(pending.idle.as_millis()).unwrap_or(u64::MAX),
            deliveries: pending.deliveries,
        }
    }
}

/// What of a group waits to be acknowledged, by whom it is held and for how long.
#[utoipa::path(get, path = "/api/streams/{stream}/groups/{group}/pending", operation_id = "list_pending", tag = "groups",
    params(("stream" = String, Path, description = "The stream's name."), ("group" = String, Path, description = "The group's name."), Wanted),
    responses((status = 200, body = Envelope<PendingPage>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn pending(
    State(app): State<Arc<App>>,
    names: Names,
    Query(wanted): Query<Wanted>,
) -> Result<Success<PendingPage>, Problem> {
    let limit = super::limit(wanted.limit)?;
    let after = wanted.cursor.as_deref().map(|cursor| place("cursor", cursor)).transpose()?.unwrap_or(EventId::ZERO);
    let pending = group(&app, &names)?.pending(after, limit).await?;
    let cursor = pending.last().map(|last| last.id.to_string()).filter(|_| pending.len() == limit);
    Ok(ok(PendingPage { pending: pending.into_iter().map(PendingView::from).collect(), cursor }))
}

/// A request for events.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EventsRequest {
    /// Who asks: a name of its own choice, 1 to 64 bytes, unique per process.
    consumer: String,
    /// At most this many, 1 to 1000; 100 by default.
    limit: Option<usize>,
    /// How long to wait for the first, 0 to 30 000; 0 by default. With `waiting_claims_max` claims waiting already, the
    /// answer comes at once.
    #[schema(value_type = Option<u64>)]
    wait_ms: Option<Whole<0, WAIT_MS_MAX>>,
    /// What others hold unacknowledged for longer is delivered to this one; `group_min_idle` (30 000) by default.
    #[schema(value_type = Option<u64>)]
    min_idle_ms: Option<Whole<0, IDLE_MS_MAX>>,
}

/// Events that were handed out.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Deliveries {
    deliveries: Vec<DeliveryView>,
}

/// An event that is yours until you acknowledge it or are idle for too long.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeliveryView {
    #[serde(flatten)]
    event: EventView,
    /// How often it was delivered, this time included.
    deliveries: u32,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self { event: delivery.event.into(), deliveries: delivery.deliveries }
    }
}

/// Takes events: first what others left unacknowledged for too long, then what is new. The first claim makes the group,
/// which begins at the oldest event kept.
#[utoipa::path(post, path = "/api/streams/{stream}/groups/{group}/claim", operation_id = "claim_events", tag = "groups",
    params(("stream" = String, Path, description = "The stream's name."), ("group" = String, Path, description = "The group's name.")),
    request_body = EventsRequest, responses((status = 200, body = Envelope<Deliveries>), (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn claim(
    State(app): State<Arc<App>>,
    names: Names,
    body: JsonBody,
) -> Result<Success<Deliveries>, Problem> {
    let EventsRequest { consumer, limit, wait_ms, min_idle_ms } = body.parse()?;
    drop(body);
    let wait = Duration::from_millis(wait_ms.map_or(0, Whole::get));
    // A claim that finds no place among those waiting does not wait.
    let seat = if wait.is_zero() { None } else { app.waiting_claims.take() };
    let claim = Claim {
        consumer: consumer.into(),
        limit: super::limit(limit)?,
        wait: if seat.is_some() { wait } else { Duration::ZERO },
        min_idle: min_idle_ms.map(|idle| Duration::from_millis(idle.get())),
    };
    let deliveries = group(&app, &names)?.claim(claim).await?;
    Ok(ok(Deliveries { deliveries: deliveries.into_iter().map(DeliveryView::from).collect() }))
}

/// 1000 at once, as many as one claim brings: each of them may become a dead letter.
const IDS_MAX: usize = 1000;

/// Events that were dealt with.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AckEventsRequest {
    /// At most 1000.
    #[serde(deserialize_with = "wire::list_of_at_most::<IDS_MAX, _, _>")]
    ids: Vec<String>,
}

/// Events that could not be dealt with.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailEventsRequest {
    /// At most 1000.
    #[serde(deserialize_with = "wire::list_of_at_most::<IDS_MAX, _, _>")]
    ids: Vec<String>,
    /// Why; kept with the dead letter.
    error: String,
}

/// What became of an event.
#[derive(Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventOutcome {
    /// Acknowledged.
    Ok,
    /// It is delivered again.
    Retried,
    /// It was delivered as often as it may be and is in the dead letters now.
    Dead,
    /// It was not pending: acknowledged or dead-lettered before, or never delivered. Nothing was changed.
    Stale,
}

impl From<Failed> for EventOutcome {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Retried => Self::Retried,
            Failed::DeadLettered => Self::Dead,
            Failed::NotPending => Self::Stale,
        }
    }
}

/// Outcomes in order.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct EventOutcomes {
    outcomes: Vec<EventOutcome>,
}

fn ids(texts: &[String]) -> Result<Vec<EventId>, Problem> {
    texts.iter().enumerate().map(|(at, text)| place(&format!("ids[{at}]"), text)).collect()
}

/// Says that events were dealt with; they are not delivered to this group again.
#[utoipa::path(post, path = "/api/streams/{stream}/groups/{group}/ack", operation_id = "acknowledge_events", tag = "groups",
    params(("stream" = String, Path, description = "The stream's name."), ("group" = String, Path, description = "The group's name.")),
    request_body = AckEventsRequest, responses((status = 200, body = Envelope<EventOutcomes>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn ack(
    State(app): State<Arc<App>>,
    names: Names,
    body: JsonBody,
) -> Result<Success<EventOutcomes>, Problem> {
    let AckEventsRequest { ids: texts } = body.parse()?;
    let were_pending = group(&app, &names)?.ack(&ids(&texts)?).await?;
    let outcome = |was_pending: bool| if was_pending { EventOutcome::Ok } else { EventOutcome::Stale };
    Ok(ok(EventOutcomes { outcomes: were_pending.into_iter().map(outcome).collect() }))
}

/// 4 KiB of an error say enough.
const ERROR_BYTES_MAX: usize = 4096;

/// Gives events back: each is delivered again at once, or goes to the dead letters, the stream `{stream}.dead.{group}`.
#[utoipa::path(post, path = "/api/streams/{stream}/groups/{group}/fail", operation_id = "fail_events", tag = "groups",
    params(("stream" = String, Path, description = "The stream's name."), ("group" = String, Path, description = "The group's name.")),
    request_body = FailEventsRequest, responses((status = 200, body = Envelope<EventOutcomes>), (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn fail(
    State(app): State<Arc<App>>,
    names: Names,
    body: JsonBody,
) -> Result<Success<EventOutcomes>, Problem> {
    let FailEventsRequest { ids: texts, mut error } = body.parse()?;
    if error.len() > ERROR_BYTES_MAX {
        let end = (0..=ERROR_BYTES_MAX).rev().find(|at| error.is_char_boundary(*at)).unwrap_or_default();
        error.truncate(end);
    }
    let failed = group(&app, &names)?.fail(&ids(&texts)?, &error).await?;
    Ok(ok(EventOutcomes { outcomes: failed.into_iter().map(EventOutcome::from).collect() }))
}
