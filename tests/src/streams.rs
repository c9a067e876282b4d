//! The streams part of the HTTP interface in the words of its documentation, for journeys that are about something else
//! than its wire format.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::{Client, Payload};
use crate::reply::Reply;
use crate::sse::{SseEvent, SseReader};

/// Far above anything that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event as it is read.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct EventView {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub data: Box<RawValue>,
    pub key: Option<String>,
    pub source: Option<String>,
    pub subject: Option<String>,
}

/// A stream as it is listed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct StreamView {
    pub name: String,
    pub length: u64,
    pub first_entry: Option<String>,
    pub last_entry: Option<String>,
}

/// A page of streams.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamList {
    /// The streams of this page.
    pub streams: Vec<StreamView>,
    /// Where the next page begins; `None` on the last one.
    pub cursor: Option<String>,
    /// When the names were read.
    pub cached_at: String,
}

/// An event handed to a consumer of a group.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct Delivered {
    #[serde(flatten)]
    pub event: DeliveredEvent,
    pub deliveries: u64,
}

/// The event of a [`Delivered`].
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct DeliveredEvent {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub data: Value,
}

/// A delivery that waits to be acknowledged.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct PendingView {
    pub id: String,
    pub consumer: String,
    pub idle_ms: u64,
    pub deliveries: u64,
}

/// An event id, `ms-seq`, as something that can be compared.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn place(id: &str) -> (u64, u64) {
    let parsed = id.split_once('-').and_then(|(ms, seq)| Some((ms.parse().ok()?, seq.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("{id:?} is no event id"))
}

/// The path of a stream.
#[must_use]
pub fn stream_path(stream: &str, rest: &str) -> String {
    format!("/api/streams/{}{rest}", stream.replace('/', "%2F"))
}

impl Client {
    /// `POST events` of one event with these data; its id.
    pub async fn publish(&self, stream: &str, data: Value) -> String {
        self.publish_event(stream, json!({"data": data})).await
    }

    /// `POST events` of one event; its id.
    pub async fn publish_event(&self, stream: &str, event: Value) -> String {
        let mut ids = ids(&self.publish_reply(stream, event).await.expect(202));
        assert_eq!(ids.len(), 1, "one id per event");
        ids.remove(0)
    }

    /// `POST events` of many; their ids.
    pub async fn publish_all(&self, stream: &str, events: &[Value]) -> Vec<String> {
        let ids = ids(&self.publish_reply(stream, json!({"events": events})).await.expect(202));
        assert_eq!(ids.len(), events.len(), "one id per event");
        ids
    }

    /// Publishes `{"n": …}` for each number; their ids.
    pub async fn publish_numbers(&self, stream: &str, numbers: std::ops::Range<u64>) -> Vec<String> {
        let events: Vec<Value> = numbers.map(|n| json!({"data": {"n": n}})).collect();
        self.publish_all(stream, &events).await
    }

    /// `POST events`, whatever the answer.
    pub async fn publish_reply(&self, stream: &str, body: impl Into<Payload>) -> Reply {
        self.post(&stream_path(stream, "/events"), body).await
    }

    /// `GET events?…`.
    pub async fn read(&self, stream: &str, query: &str) -> Vec<EventView> {
        #[derive(Deserialize)]
        struct Page {
            events: Vec<EventView>,
        }
        self.read_reply(stream, query).await.expect(200).data::<Page>().events
    }

    /// `GET events?…`, whatever the answer.
    pub async fn read_reply(&self, stream: &str, query: &str) -> Reply {
        self.get(&stream_path(stream, &format!("/events?{query}"))).await
    }

    /// All events, a thousand at a time.
    pub async fn read_all(&self, stream: &str) -> Vec<EventView> {
        let mut all: Vec<EventView> = Vec::new();
        loop {
            let after = all.last().map_or("0".to_owned(), |event| event.id.clone());
            let page = self.read(stream, &format!("after={after}&limit=1000")).await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// `GET /api/streams/{s}`.
    pub async fn stream(&self, stream: &str) -> StreamView {
        self.get(&stream_path(stream, "")).await.expect(200).data()
    }

    /// `GET /api/streams?…`.
    pub async fn streams(&self, query: &str) -> StreamList {
        self.get(&format!("/api/streams?{query}")).await.expect(200).data()
    }

    /// `POST trim`; how many events went.
    pub async fn trim(&self, stream: &str, what: Value) -> u64 {
        let answer = self.post(&stream_path(stream, "/trim"), what).await.expect(200).value();
        answer["trimmed"].as_u64().unwrap_or_else(|| panic!("no number of trimmed events: {answer}"))
    }

    /// `GET sse` of one stream with this query.
    pub async fn listen(&self, stream: &str, query: &str) -> SseReader {
        self.events(&stream_path(stream, &format!("/sse?{query}"))).await
    }

    /// `GET sse` of one stream as a browser that comes back.
    pub async fn listen_after(&self, stream: &str, last_event_id: &str) -> SseReader {
        self.events_after(&stream_path(stream, "/sse"), last_event_id).await
    }

    /// `POST claim` of a group.
    pub async fn group_claim(&self, stream: &str, group: &str, claim: Value) -> Vec<Delivered> {
        #[derive(Deserialize)]
        struct Claims {
            deliveries: Vec<Delivered>,
        }
        self.group_reply(stream, group, "claim", claim).await.expect(200).data::<Claims>().deliveries
    }

    /// `POST ack` of a group; the outcomes.
    pub async fn ack(&self, stream: &str, group: &str, ids: &[&str]) -> Vec<String> {
        outcomes(&self.group_reply(stream, group, "ack", json!({"ids": ids})).await)
    }

    /// `POST fail` of a group; the outcomes.
    pub async fn group_fail(&self, stream: &str, group: &str, ids: &[&str], error: &str) -> Vec<String> {
        outcomes(&self.group_reply(stream, group, "fail", json!({"ids": ids, "error": error})).await)
    }

    /// A call of a group, whatever the answer.
    pub async fn group_reply(&self, stream: &str, group: &str, verb: &str, body: impl Into<Payload>) -> Reply {
        self.post(&stream_path(stream, &format!("/groups/{group}/{verb}")), body).await
    }

    /// `GET pending` of a group.
    pub async fn group_pending(&self, stream: &str, group: &str) -> Vec<PendingView> {
        #[derive(Deserialize)]
        struct Page {
            pending: Vec<PendingView>,
        }
        let reply = self.get(&stream_path(stream, &format!("/groups/{group}/pending"))).await;
        reply.expect(200).data::<Page>().pending
    }
}

impl SseReader {
    /// The next so many events.
    ///
    /// # Panics
    /// When one does not come within 30 s, or the stream ends.
    pub async fn take(&mut self, count: usize) -> Vec<SseEvent> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let event = self.next(PATIENCE).await;
            events.push(event.unwrap_or_else(|| panic!("the stream ended after {} of {count} events", events.len())));
        }
        events
    }

    /// The next event.
    ///
    /// # Panics
    /// As [`take`](Self::take).
    pub async fn one(&mut self) -> SseEvent {
        self.take(1).await.remove(0)
    }

    /// Reads `{"n": …}` until this number has come; the numbers.
    ///
    /// # Panics
    /// As [`take`](Self::take), and at an event of another kind.
    pub async fn numbers_until(&mut self, last: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.last() != Some(&last) {
            numbers.push(self.one().await.number());
        }
        numbers
    }
}

impl SseEvent {
    /// The number of an event `{"n": …}`.
    ///
    /// # Panics
    /// When it is another one.
    #[must_use]
    pub fn number(&self) -> u64 {
        let data: Option<Value> = serde_json::from_str(&self.data).ok();
        data.and_then(|data| data["n"].as_u64()).unwrap_or_else(|| panic!("no number: {self:?}"))
    }
}

fn ids(reply: &Reply) -> Vec<String> {
    #[derive(Deserialize)]
    struct Ids {
        ids: Vec<String>,
    }
    reply.data::<Ids>().ids
}

fn outcomes(reply: &Reply) -> Vec<String> {
    #[derive(Deserialize)]
    struct Outcomes {
        outcomes: Vec<String>,
    }
    reply.clone().expect(200).data::<Outcomes>().outcomes
}
