//! Listening to streams: server-sent events, resumed after the last one heard.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use tidegate_events::{Bus, Cursor, Error, Listen, Listener, Slow, Source};
use tokio::time::sleep;

use crate::accept::{Frames, Outgoing};
use crate::api::parameters::{Path, Query};
use crate::api::sse;
use crate::app::App;
use crate::error::{Problem, ProblemBody};
use crate::listeners::{Caller, Listening};

/// What a browser sends when it comes back; it keeps the address, so this counts more than `after`.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// 1 s: what a restart of Redis takes at least.
const PAUSE: Duration = Duration::from_secs(1);

/// Where to begin, and what to do with a slow listener.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Begin after this id, or cursor of many streams; `0`: with the oldest event kept. By default with what comes next.
    after: Option<String>,
    /// What becomes of a listener that stalls until what it has not heard is no longer held in memory: `close` (the
    /// default; it comes back with its last id), `skip` to the oldest event held, or `latest`.
    #[param(value_type = Option<String>)]
    slow: Option<SlowChoice>,
}

/// Which streams to listen to.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WantedOfMany {
    /// Names and patterns, separated by commas: `orders,audit.*`; `*` is one segment between dots, `**` any number.
    streams: String,
    /// As for one stream.
    after: Option<String>,
    /// As for one stream.
    #[param(value_type = Option<String>)]
    slow: Option<SlowChoice>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SlowChoice {
    Close,
    Skip,
    Latest,
}

impl From<SlowChoice> for Slow {
    fn from(choice: SlowChoice) -> Self {
        match choice {
            SlowChoice::Close => Self::Close,
            SlowChoice::Skip => Self::Skip,
            SlowChoice::Latest => Self::Latest,
        }
    }
}

/// Follows a stream, whether it is there already or not. Frames carry the event's `id`, its type as `event`, and `data`;
/// lost history is told by an event `gap` with `{stream, from, to, reason}`.
#[utoipa::path(get, path = "/api/streams/{stream}/sse", operation_id = "listen_to_stream", tag = "streams",
    params(("stream" = String, Path, description = "The stream's name."), Wanted, ("Last-Event-ID" = Option<String>, Header, description = "The last id heard; counts more than `after`.")),
    responses((status = 200, description = "`text/event-stream` until either side closes.", content_type = "text/event-stream", body = String),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "The caller has too many streams open.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn listen(
    State(app): State<Arc<App>>,
    Path(stream): Path<String>,
    Query(wanted): Query<Wanted>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sources = vec![Source::Stream(super::name(&stream)?)];
    let from = from(&headers, wanted.after.as_deref())?;
    open(&app, caller, Listen { sources, from, slow: wanted.slow.map(Slow::from).unwrap_or_default() }).await
}

/// Follows many streams over one connection. The `id` of a frame is a cursor over all of them.
#[utoipa::path(get, path = "/api/events", operation_id = "listen_to_streams", tag = "streams",
    params(WantedOfMany, ("Last-Event-ID" = Option<String>, Header, description = "The last id heard; counts more than `after`.")),
    responses((status = 200, description = "`text/event-stream` until either side closes.", content_type = "text/event-stream", body = String),
        (status = 422, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "The caller has too many streams open.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn listen_to_many(
    State(app): State<Arc<App>>,
    Query(wanted): Query<WantedOfMany>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sources = sources(&wanted.streams, app.config.sse_streams_max)?;
    let from = from(&headers, wanted.after.as_deref())?;
    open(&app, caller, Listen { sources, from, slow: wanted.slow.map(Slow::from).unwrap_or_default() }).await
}

fn sources(streams: &str, most: usize) -> Result<Vec<Source>, Problem> {
    if streams.split(',').count() > most {
        return Err(Problem::field("streams", format!("more than {most}")));
    }
    let source = |text| Source::parse(text).map_err(|error| Problem::field("streams", error.to_string()));
    streams.split(',').map(source).collect()
}

/// Where to begin.
fn from(headers: &HeaderMap, after: Option<&str>) -> Result<Option<Cursor>, Problem> {
    let last = match headers.get(LAST_EVENT_ID) {
        Some(last) => last.to_str().map_err(|_| Problem::field("Last-Event-ID", "not an id"))?.trim(),
        None => "",
    };
    let (field, text) = if last.is_empty() { ("after", after) } else { ("Last-Event-ID", Some(last)) };
    text.map(str::parse).transpose().map_err(|error: Error| Problem::field(field, error.to_string()))
}

/// Opens the listener. Browsers give up for good on anything but 200, so whoever comes while the server stops or Redis is
/// away gets a stream as well: one that ends, with a time to come back, or one that begins when Redis is there again.
async fn open(app: &App, caller: Caller, listen: Listen) -> Result<Response, Problem> {
    let seat = app.listeners.admit(caller)?;
    let state = match app.bus.listen(listen.clone()).await {
        Ok(listener) => Heard::Listener(listener),
        Err(Error::Draining) => Heard::Nothing,
        Err(error) if error.is_retryable() => Heard::Later(Box::pin(opened_later(app.bus.clone(), listen))),
        Err(error) => return Err(error.into()),
    };
    Ok(sse::events(Feed { heard: state, _seat: seat }))
}

async fn opened_later(bus: Bus, listen: Listen) -> Option<Listener> {
    loop {
        sleep(PAUSE).await;
        match bus.listen(listen.clone()).await {
            Ok(listener) => return Some(listener),
            Err(Error::Draining) => return None,
            Err(error) if error.is_retryable() => {}
            Err(error) => {
                tracing::debug!(%error, "an event stream could not be opened");
                return None;
            }
        }
    }
}

/// What a connection is fed with.
struct Feed {
    heard: Heard,
    _seat: Listening,
}

#[expect(clippy::large_enum_variant, reason = "nearly all are listeners; a box would only cost them memory")]
enum Heard {
    Listener(Listener),
    /// Redis is away.
    Later(Pin<Box<dyn Future<Output = Option<Listener>> + Send>>),
    Nothing,
}

impl Frames for Feed {
    fn poll_frames(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<()> {
        loop {
            match &mut self.heard {
                Heard::Listener(listener) => {
                    let goes_on = ready!(out.fill(|pieces, room| listener.poll_frames(cx, pieces, room)));
                    return if goes_on { Poll::Pending } else { Poll::Ready(()) };
                }
                Heard::Later(opened) => {
                    self.heard = ready!(opened.as_mut().poll(cx)).map_or(Heard::Nothing, Heard::Listener);
                }
                Heard::Nothing => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(last: &str) -> HeaderMap {
        HeaderMap::from_iter([(LAST_EVENT_ID, last.parse().unwrap())])
    }

    #[test]
    fn the_last_id_heard_counts_more_than_where_the_address_says_to_begin() {
        let cursor = |text: &str| Some(text.parse::<Cursor>().unwrap());
        assert_eq!(from(&HeaderMap::new(), None).unwrap(), None);
        assert_eq!(from(&HeaderMap::new(), Some("0")).unwrap(), cursor("0"));
        assert_eq!(from(&headers("7-1"), Some("0")).unwrap(), cursor("7-1"));
        assert_eq!(from(&headers(""), Some("0")).unwrap(), cursor("0"), "an empty one is none");
        assert!(from(&headers("x"), Some("0")).unwrap_err().detail().starts_with("Last-Event-ID: "));
    }

    #[test]
    fn names_and_patterns_are_told_apart_and_bounded() {
        assert_eq!(sources("a,b.*", 2).unwrap().len(), 2);
        for bad in ["", "a,,b", "a b", "a*", "a,b,c"] {
            assert!(sources(bad, 2).unwrap_err().detail().starts_with("streams: "), "{bad}");
        }
    }

    #[tokio::test]
    async fn whoever_comes_while_the_server_stops_gets_a_stream_that_ends() {
        let app = crate::serve::app_for_tests().await;
        let listen = || Listen::to(sources("a", 1).unwrap());
        let poll = |response: &Response| {
            let mut frames = response.extensions().get::<crate::accept::Takeover>().unwrap().take().unwrap();
            frames.poll_frames(&mut Context::from_waker(std::task::Waker::noop()), &mut Outgoing::default())
        };
        let response = open(&app, Caller::default(), listen()).await.unwrap();
        assert_eq!((response.status().as_u16(), app.listeners.open()), (200, 1));
        assert!(poll(&response).is_pending(), "it goes on");
        assert_eq!(app.listeners.open(), 0, "a listener that is gone has given its place back");

        app.bus.drain();
        let response = open(&app, Caller::default(), listen()).await.unwrap();
        assert_eq!(response.status(), 200, "a browser would give up on anything else");
        assert!(poll(&response).is_ready(), "it ends, with a word about when to come back");
    }
}
