//! Reading `text/event-stream`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use crate::wait::within;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// `event:`, or empty.
    pub event: String,
    /// `id:`, or empty.
    pub id: String,
    /// `data:` lines joined.
    pub data: String,
}

/// An open event stream; dropping it closes the connection.
#[derive(Debug)]
pub struct SseReader {
    body: Incoming,
    pending: String,
    /// Keeps the connection open.
    _sender: SendRequest<Full<Bytes>>,
}

impl SseReader {
    pub(crate) fn new(response: http::Response<Incoming>, sender: SendRequest<Full<Bytes>>) -> Self {
        assert_eq!(response.status(), 200, "an event stream opens with 200");
        let media = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(media.starts_with("text/event-stream"), "not an event stream: {media:?}");
        Self { body: response.into_body(), pending: String::new(), _sender: sender }
    }

    /// The next event, skipping comments; `None` at the end of the stream.
    ///
    /// # Panics
    /// When neither comes within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<SseEvent> {
        within("the next event", limit, async {
            loop {
                if let Some((frame, rest)) = self.pending.split_once("\n\n") {
                    let event = parse(frame);
                    self.pending = rest.to_owned();
                    match event {
                        Some(event) => return Some(event),
                        None => continue,
                    }
                }
                let frame = self.body.frame().await?.ok()?;
                if let Ok(bytes) = frame.into_data() {
                    self.pending.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
        })
        .await
    }
}

fn parse(frame: &str) -> Option<SseEvent> {
    let mut event = SseEvent::default();
    let mut data: Vec<&str> = Vec::new();
    for line in frame.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.event),
            "id" => value.clone_into(&mut event.id),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (event != SseEvent::default()).then_some(event)
}
