//! Path and query parameters whose rejections are problems.

use axum::extract::{FromRequestParts, rejection::PathRejection, rejection::QueryRejection};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{Code, Problem};

/// A path parameter, decoded.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let rejected =
            |rejection: PathRejection| Problem::new(Code::BadRequest, format!("The path: {}.", rejection.body_text()));
        axum::extract::Path::from_request_parts(parts, state).await.map(|path| Self(path.0)).map_err(rejected)
    }
}

/// Query parameters; unknown ones are refused by the type.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let rejected = |rejection: QueryRejection| Problem::field("query", rejection.body_text());
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(rejected)
    }
}
