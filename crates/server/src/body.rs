//! Request bodies: how they are received, bounded and read as JSON.
//!
//! A body is one contiguous buffer; payloads inside are cut out of it byte for byte ([`JsonBody::payload`]), never
//! decoded and encoded again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::error::{Code, FieldError, Problem};

/// 128 levels: as deep as serde_json reads, and far deeper than any honest payload.
const DEPTH_MAX: usize = 128;
/// 1 s: bodies are freed as soon as their requests are answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bytes of request bodies held by the process, bounded.
#[derive(Debug)]
pub(crate) struct Bodies {
    bounds: BodyBounds,
    held: Arc<AtomicUsize>,
}

/// What bodies may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyBounds {
    pub(crate) one_max: usize,
    pub(crate) all_max: usize,
    pub(crate) stall_timeout: Duration,
    pub(crate) timeout: Duration,
}

/// Bytes of one body; given back on drop.
#[derive(Debug)]
struct Held {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize, all_max: usize) -> Result<(), Problem> {
        let before = self.all.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > all_max {
            let detail = format!("The server already holds {before} bytes of request bodies; its limit is {all_max}.");
            return Err(Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Bodies {
    pub(crate) fn new(bounds: BodyBounds) -> Self {
        Self { bounds, held: Arc::default() }
    }

    /// Bytes held now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Receives a whole body under its deadlines and limits.
    async fn receive(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, Held), Problem> {
        let bounds = &self.bounds;
        let announced = content_length(headers);
        if announced.is_some_and(|length| length > bounds.one_max as u64) {
            return Err(self.too_large());
        }
        let mut held = Held { all: Arc::clone(&self.held), bytes: 0 };
        let mut received = BytesMut::new();
        let mut body = pin!(body);
        let end = Instant::now() + bounds.timeout;
        loop {
            let stalled = (Instant::now() + bounds.stall_timeout).min(end);
            let frame = match timeout_at(stalled, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => {
                    return Err(Problem::new(Code::BadRequest, "The connection failed before the body had arrived."));
                }
                Ok(None) => return Ok((received.freeze(), held)),
                Err(_) => return Err(self.too_slow(received.len())),
            };
            let Ok(data) = frame.into_data() else { continue };
            if received.len() + data.len() > bounds.one_max {
                return Err(self.too_large());
            }
            held.grow(data.len(), bounds.all_max)?;
            if received.is_empty() {
                // One allocation for an announced body, but never more than the limit or on a mere promise of megabytes.
                received.reserve(announced.map_or(0, |length| (length as usize).min(1 << 20)).max(data.len()));
            }
            received.extend_from_slice(&data);
        }
    }

    fn too_large(&self) -> Problem {
        Problem::new(
            Code::BodyTooLarge,
            format!("The body is larger than {} bytes, the limit of one request.", self.bounds.one_max),
        )
    }

    fn too_slow(&self, received: usize) -> Problem {
        let (stall, all) = (self.bounds.stall_timeout.as_millis(), self.bounds.timeout.as_millis());
        let detail = format!(
            "The body stopped after {received} bytes; {stall} ms between pieces and {all} ms for all are allowed."
        );
        Problem::new(Code::RequestTimeout, detail)
    }
}

/// A JSON body: valid UTF-8, not empty, not too deep. [`JsonBody::parse`] reads it.
#[derive(Debug)]
pub(crate) struct JsonBody {
    bytes: Bytes,
    _held: Held,
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_media_type(&parts.headers)?;
        let (bytes, held) = app.bodies.receive(&parts.headers, body).await?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            Problem::new(Code::MalformedJson, format!("The body is not UTF-8 at byte {}.", error.valid_up_to()))
        })?;
        if text.trim_ascii().is_empty() {
            return Err(Problem::new(Code::MalformedJson, "The body is empty."));
        }
        check_depth(&bytes)?;
        Ok(Self { bytes, _held: held })
    }
}

impl JsonBody {
    /// Reads the body as a `T`.
    ///
    /// # Errors
    /// `malformed_json` with line and column, or `invalid_request` naming the field.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        // A list would be taken for the members in order.
        if self.text().trim_start().starts_with('[') {
            return Err(Problem::field("body", "a list, where a JSON object is expected"));
        }
        parse(self.text())
    }

    /// The bytes of a payload inside this body, exactly as they were sent.
    ///
    /// A payload that is most of the body shares its buffer; a smaller one is copied, so that it does not keep the
    /// rest of the body in memory.
    pub(crate) fn payload(&self, raw: &RawValue) -> Bytes {
        let payload = raw.get().as_bytes();
        if payload.len() > self.bytes.len() / 2 {
            self.bytes.slice_ref(payload)
        } else {
            Bytes::copy_from_slice(payload)
        }
    }

    /// The whole body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole body as text.
    pub(crate) fn text(&self) -> &str {
        // Checked when it was received; an empty text would only be refused as malformed.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// Reads JSON text as a `T`; on failure a second, slower pass finds the path of the field.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let reader = &mut serde_json::Deserializer::from_str(text);
            let path = match serde_path_to_error::deserialize::<_, T>(reader) {
                Err(error) if error.path().iter().next().is_some() => error.path().to_string(),
                _ => "body".to_owned(),
            };
            // The path says where; line and column would only say it again, or wrongly for a part of the body.
            let message = error.to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            Problem::fields(vec![FieldError { field: path, message: message.to_owned() }])
        }
        _ => Problem::new(Code::MalformedJson, format!("The body is not valid JSON: {error}.")),
    })
}

/// Refuses JSON nested deeper than [`DEPTH_MAX`] without building anything; one pass, no recursion.
fn check_depth(json: &[u8]) -> Result<(), Problem> {
    let mut depth = 0_usize;
    let mut bytes = json.iter().enumerate();
    while let Some((position, byte)) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let (line, column) = place(json, position);
                    let detail =
                        format!("The JSON is nested deeper than {DEPTH_MAX} levels at line {line} column {column}.");
                    return Err(Problem::new(Code::JsonTooDeep, detail));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn place(json: &[u8], position: usize) -> (usize, usize) {
    let before = &json[..position];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = position - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1) + 1;
    (line, column)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Problem::new(Code::UnsupportedMediaType, "Send the body without Content-Encoding."));
    }
    let essence = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let got = if essence.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", essence.chars().take(100).collect::<String>())
    };
    Err(Problem::new(
        Code::UnsupportedMediaType,
        format!("Send `Content-Type: application/json`; the request had {got}."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
        options: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its type matters")]
        priority: u8,
    }

    #[test]
    fn payloads_keep_their_bytes() {
        let text = r#"{"data": {"a": 1.0e+2,  "b":"\u00e9", "a": 12345678901234567890123}}"#;
        let outer: Outer<'_> = parse(text).unwrap();
        assert_eq!(outer.data.get(), r#"{"a": 1.0e+2,  "b":"\u00e9", "a": 12345678901234567890123}"#);
        assert!(outer.options.is_none());
    }

    #[test]
    fn a_syntax_error_is_told_with_its_place() {
        let problem = parse::<Outer<'_>>("{\"data\":\n  [1,]}").unwrap_err();
        assert_eq!(problem.code(), Code::MalformedJson);
        assert!(problem.detail().contains("line 2 column 6"), "{}", problem.detail());
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        for text in [r#"{"data":1,"options":{"priority":256}}"#, r#"{"data":1,"options":{"priority":"high"}}"#] {
            let problem = parse::<Outer<'_>>(text).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidRequest);
            assert!(problem.detail().starts_with("options.priority: "), "{}", problem.detail());
        }
        let problem = parse::<Outer<'_>>(r#"{"data":1,"options":{"prio":1}}"#).unwrap_err();
        assert!(problem.detail().contains("unknown field `prio`"), "{}", problem.detail());
    }

    #[test]
    fn depth_counts_brackets_but_not_those_in_strings() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check_depth(nested(DEPTH_MAX).as_bytes()).is_ok());
        let problem = check_depth(nested(DEPTH_MAX + 1).as_bytes()).unwrap_err();
        assert!(problem.detail().contains("line 1 column 129"), "{}", problem.detail());
        assert!(check_depth(format!("\"{}\\\"{}\"", "[".repeat(200), "{".repeat(200)).as_bytes()).is_ok());
        assert!(check_depth("[],".repeat(1000).as_bytes()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let bounds = BodyBounds {
            one_max: 100,
            all_max: 1000,
            stall_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        };
        let bodies = Bodies::new(bounds);
        let stalled = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let problem = bodies.receive(&HeaderMap::new(), stalled).await.unwrap_err();
        assert_eq!(problem.code(), Code::RequestTimeout);
        assert_eq!(bodies.held_bytes(), 0);
    }

    #[tokio::test]
    async fn bodies_are_refused_together_before_memory_is_full_and_given_back_after() {
        let bounds = BodyBounds {
            one_max: 100,
            all_max: 150,
            stall_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        };
        let bodies = Bodies::new(bounds);
        let body = || Body::from(vec![b'x'; 100]);
        let first = bodies.receive(&HeaderMap::new(), body()).await.unwrap();
        assert_eq!(bodies.receive(&HeaderMap::new(), body()).await.unwrap_err().code(), Code::Overloaded);
        assert_eq!(bodies.held_bytes(), 100);
        drop(first);
        assert!(bodies.receive(&HeaderMap::new(), body()).await.is_ok());
        let problem = bodies.receive(&HeaderMap::new(), Body::from(vec![b'x'; 101])).await.unwrap_err();
        assert_eq!(problem.code(), Code::BodyTooLarge);
    }
}
