//! A whole HTTP reply and what the conventions promise about it. Payloads are looked at as text, never re-encoded.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// Status, headers and body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// Body as it came.
    pub body: Bytes,
}

impl Reply {
    pub(crate) fn new(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body }
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// A header, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Checks the status.
    ///
    /// # Panics
    /// With the body when it is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "unexpected status; body: {}", self.text());
        self
    }

    /// `data` of a success envelope.
    ///
    /// # Panics
    /// When this is not a success or `T` does not fit.
    #[must_use]
    #[track_caller]
    pub fn data<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "status {}; body: {}", self.status, self.text());
        assert!(self.header("content-type").starts_with("application/json"), "{:?}", self.headers);
        assert_eq!(self.raw("success").as_deref(), Some("true"), "no success envelope: {}", self.text());
        let data = self.raw("data").unwrap_or_else(|| panic!("no data in {}", self.text()));
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {data}"))
    }

    /// `data` of a success envelope as a tree.
    ///
    /// # Panics
    /// When this is not a success.
    #[must_use]
    #[track_caller]
    pub fn value(&self) -> Value {
        self.data()
    }

    /// The exact text at a path of names and indexes such as `data.jobs.0.data`, or `None`.
    #[must_use]
    pub fn raw(&self, path: &str) -> Option<String> {
        raw_at(self.text(), path)
    }

    /// Checks that this is a complete problem of that status, and returns it.
    ///
    /// # Panics
    /// When anything the conventions promise about an error is missing.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        self.problem_in(&[status])
    }

    /// Like [`Self::problem`] where the conventions leave several statuses open.
    ///
    /// # Panics
    /// As [`Self::problem`].
    #[track_caller]
    pub fn problem_in(&self, statuses: &[u16]) -> Value {
        assert!(statuses.contains(&self.status), "wanted {statuses:?}, got {}: {}", self.status, self.text());
        let media = self.header("content-type");
        assert!(media.starts_with("application/problem+json"), "content type {media:?}: {}", self.text());
        let problem: Value = serde_json::from_slice(&self.body).expect("a problem is JSON");
        assert_eq!(problem["success"], false, "{problem}");
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["type", "title", "detail", "code"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member} is missing: {problem}");
        }
        let code = problem["code"].as_str().unwrap_or_default();
        let stable = code.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        assert!(stable, "a code is snake_case: {code:?}");
        if [429, 503].contains(&self.status) {
            let seconds = self.header("retry-after").parse::<u64>();
            assert!(seconds.is_ok(), "no Retry-After in seconds: {:?}", self.headers);
        }
        problem
    }
}

/// Walks JSON text by names and indexes without decoding what it returns.
fn raw_at(text: &str, path: &str) -> Option<String> {
    let mut here: Box<RawValue> = serde_json::from_str(text).ok()?;
    for step in path.split('.') {
        here = match step.parse::<usize>() {
            Ok(index) => serde_json::from_str::<Vec<Box<RawValue>>>(here.get()).ok()?.into_iter().nth(index)?,
            Err(_) => serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(here.get()).ok()?.remove(step)?,
        };
    }
    Some(here.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::raw_at;

    #[test]
    fn text_of_a_payload_is_returned_as_it_was_written() {
        let text = r#"{"data":{"jobs":[{"data":{"b":1.0,"a":1e400,"a":  2}}]}}"#;
        assert_eq!(raw_at(text, "data.jobs.0.data").as_deref(), Some(r#"{"b":1.0,"a":1e400,"a":  2}"#));
        assert_eq!(raw_at(text, "data.jobs.1"), None);
    }
}
