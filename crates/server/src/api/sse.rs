//! Answers that go on: the head of an event stream, and who listens to it.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use http::request::Parts;

use crate::accept::{Frames, Peer, Takeover};
use crate::auth::TokenId;
use crate::listeners::Caller;

/// The head of an event stream; the frames follow it for as long as the peer listens.
pub(crate) fn events(frames: impl Frames) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    // Not sent, but of unknown length, so that nobody on the way announces one.
    let body = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    let mut response = (headers, body).into_response();
    response.extensions_mut().insert(Takeover::new(frames));
    response
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let extensions = &parts.extensions;
        Ok(Self {
            token: extensions.get::<TokenId>().copied(),
            address: extensions.get().map(|Peer(address)| *address),
        })
    }
}
