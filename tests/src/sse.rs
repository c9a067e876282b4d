//! Reading `text/event-stream`.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
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
    headers: HeaderMap,
    body: Incoming,
    pending: Vec<u8>,
    last_event_id: String,
    /// Keeps the connection open.
    _sender: SendRequest<Full<Bytes>>,
}

impl SseReader {
    pub(crate) fn new(response: http::Response<Incoming>, sender: SendRequest<Full<Bytes>>) -> Self {
        assert_eq!(response.status(), 200, "an event stream opens with 200");
        let media = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(media.starts_with("text/event-stream"), "not an event stream: {media:?}");
        let (head, body) = response.into_parts();
        Self { headers: head.headers, body, pending: Vec::new(), last_event_id: String::new(), _sender: sender }
    }

    /// A header of the answer, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What a browser would come back with.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The next event, skipping comments; `None` at the end of the stream.
    ///
    /// # Panics
    /// When neither comes within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<SseEvent> {
        within("the next event", limit, async {
            loop {
                let (event, has_data) = parse(&self.frame().await?);
                if has_data {
                    return Some(event);
                }
            }
        })
        .await
    }

    /// The next frame as it came, comments and `retry:` alone included; `None` at the end of the stream.
    ///
    /// # Panics
    /// When neither comes within `limit`.
    pub async fn next_frame(&mut self, limit: Duration) -> Option<String> {
        within("the next frame", limit, self.frame()).await
    }

    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.pending.drain(..end + 2).collect();
                let frame = String::from_utf8(frame).expect("an event stream is UTF-8");
                let (SseEvent { id, .. }, _) = parse(&frame);
                if !id.is_empty() {
                    self.last_event_id = id;
                }
                return Some(frame);
            }
            if let Ok(bytes) = self.body.frame().await?.ok()?.into_data() {
                self.pending.extend_from_slice(&bytes);
            }
        }
    }
}

/// The event of a frame, and whether a browser would hear it: only with data.
fn parse(frame: &str) -> (SseEvent, bool) {
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
    (event, !data.is_empty())
}
