//! Response bodies: how many of their bytes the process holds for peers that have not taken them yet, bounded.
//!
//! A peer that asks for megabytes and never reads them keeps them in memory until the write deadline. Streams made as
//! they are sent (events) have no size and are not counted; [`crate::seats`] bounds those.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::error::{Code, Problem};

/// 1 s: peers that read take their answers in less, those that do not are cut within the write deadline.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bytes of responses held by the process, bounded.
#[derive(Debug)]
pub(crate) struct Answers {
    bytes_max: usize,
    held: Arc<AtomicUsize>,
}

/// Whether a refused answer can be asked for again without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    May,
    MayNot,
}

/// Bytes of one response; given back when the last piece of it is dropped.
#[derive(Debug)]
struct Held {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Answers {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Arc::default() }
    }

    /// Bytes held now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether another request may be answered.
    ///
    /// # Errors
    /// `overloaded` while the budget is used up.
    pub(crate) fn admit(&self) -> Result<(), Problem> {
        let held = self.held_bytes();
        if held < self.bytes_max { Ok(()) } else { Err(self.used_up(held)) }
    }

    /// Counts the response until the connection has written or dropped it.
    ///
    /// # Errors
    /// `overloaded` for an answer that would exceed the budget, when it can be asked for again. One answer alone may be
    /// larger than the budget, or it could never be had.
    pub(crate) fn hold(&self, response: Response, again: Again) -> Result<Response, Problem> {
        let Some(bytes) = response.body().size_hint().exact().filter(|bytes| *bytes > 0) else { return Ok(response) };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let held = Held { all: Arc::clone(&self.held), bytes };
        let is_refusable = again == Again::May && response.status().is_success();
        if is_refusable && before > 0 && before.saturating_add(bytes) > self.bytes_max {
            return Err(self.used_up(before));
        }
        Ok(response.map(|body| Body::new(HeldBody { body, held: Arc::new(held) })))
    }

    fn used_up(&self, held: usize) -> Problem {
        let detail = format!(
            "The server already holds {held} bytes of answers that were not read yet; its limit is {}.",
            self.bytes_max
        );
        Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER)
    }
}

/// A body whose pieces stay counted after it: hyper drops a body when it has queued the last piece, long before a slow
/// peer has taken it.
struct HeldBody {
    body: Body,
    held: Arc<Held>,
}

/// One piece on its way to the socket.
struct Piece {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let held = &this.held;
        let piece = |bytes| Bytes::from_owner(Piece { bytes, _held: Arc::clone(held) });
        Pin::new(&mut this.body).poll_frame(cx).map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn response(bytes: usize) -> Response {
        Response::new(Body::from(vec![b'x'; bytes]))
    }

    #[tokio::test]
    async fn bytes_stay_counted_until_their_last_piece_is_dropped() {
        let answers = Answers::new(100);
        let mut body = answers.hold(response(60), Again::May).unwrap().into_body();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(body);
        assert_eq!(answers.held_bytes(), 60);
        drop(piece);
        assert_eq!(answers.held_bytes(), 0);
    }

    #[test]
    fn a_read_over_the_budget_is_refused_and_an_outcome_is_told() {
        let answers = Answers::new(100);
        let first = answers.hold(response(60), Again::May).unwrap();
        assert_eq!(answers.hold(response(60), Again::May).unwrap_err().code(), Code::Overloaded);
        assert_eq!(answers.held_bytes(), 60, "a refused answer gives its bytes back");
        let outcome = answers.hold(response(60), Again::MayNot).unwrap();
        assert_eq!(answers.admit().unwrap_err().code(), Code::Overloaded);
        drop((first, outcome));
        assert!(answers.admit().is_ok());
    }

    #[test]
    fn one_answer_larger_than_the_budget_can_still_be_had() {
        assert!(Answers::new(100).hold(response(200), Again::May).is_ok());
    }
}
