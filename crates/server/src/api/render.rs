//! The success envelope, and how instants are written.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::{Code, Problem};

/// `{"success":true,"data":…}` with a status.
pub(crate) struct Success<T>(pub(crate) StatusCode, pub(crate) T);

/// 200 with this data.
pub(crate) fn ok<T: Serialize>(data: T) -> Success<T> {
    Success(StatusCode::OK, data)
}

/// 202 with this data.
pub(crate) fn accepted<T: Serialize>(data: T) -> Success<T> {
    Success(StatusCode::ACCEPTED, data)
}

/// The envelope as it is documented.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Envelope<T> {
    /// Always `true`.
    success: bool,
    data: T,
}

impl<T> Envelope<T> {
    pub(crate) fn new(data: T) -> Self {
        Self { success: true, data }
    }
}

impl<T: Serialize> IntoResponse for Success<T> {
    fn into_response(self) -> Response {
        let Self(status, data) = self;
        json(status, &Envelope::new(data))
    }
}

/// A JSON response without the envelope.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "failed to render a response");
            Problem::new(Code::Internal, "The answer could not be written as JSON.").into_response()
        }
    }
}

/// An instant in milliseconds since 1970 as RFC 3339 in UTC with milliseconds.
pub(crate) fn instant(unix_ms: i64) -> String {
    let instant = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{instant:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_always_have_milliseconds_and_a_z() {
        assert_eq!(instant(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(instant(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
    }
}
