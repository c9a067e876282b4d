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
        let rejected = |rejection: QueryRejection| refusal(&rejection.body_text());
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(rejected)
    }
}

/// What a library says about a query, by the parameter it is about.
fn refusal(text: &str) -> Problem {
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let unknown = text.split_once("unknown field `").and_then(|(_, rest)| rest.rsplit_once("`, expected "));
    if let Some((name, known)) = unknown {
        let known = known.trim_start_matches("one of ").replace("` or `", "`, `");
        let hint = match name {
            "from" if known.contains("`slow`") => "; to begin at a time: after=<milliseconds since 1970>",
            _ => "",
        };
        return Problem::field(name, format!("unknown; known: {known}{hint}"));
    }
    match text.split_once(": ") {
        Some((name, message)) => Problem::field(name, message),
        None => match text.strip_prefix("missing field `").and_then(|name| name.strip_suffix('`')) {
            Some(name) => Problem::field(name, "is needed"),
            None => Problem::field("query", text),
        },
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts;
    use http::Request;
    use serde::Deserialize;

    use super::Query;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        #[serde(rename = "streams")]
        _streams: String,
        #[serde(rename = "after")]
        _after: Option<u64>,
        #[serde(rename = "slow")]
        _slow: Option<u64>,
    }

    #[tokio::test]
    async fn a_refused_query_names_the_parameter_and_what_is_known() {
        let cases = [
            ("streams=a&to=5", "to: unknown; known: `streams`, `after`, `slow`"),
            (
                "streams=a&from=5",
                "from: unknown; known: `streams`, `after`, `slow`; to begin at a time: after=<milliseconds since 1970>",
            ),
            ("after=5", "streams: is needed"),
            ("streams=a&after=x", "after: invalid digit found in string"),
            ("a: b=5", "a: b: unknown; known: `streams`, `after`, `slow`"),
        ];
        for (query, detail) in cases {
            let request = Request::get(format!("/?{}", query.replace(' ', "%20"))).body(()).unwrap();
            let (mut parts, ()) = request.into_parts();
            let Err(problem) = Query::<Wanted>::from_request_parts(&mut parts, &()).await else { panic!("{query}") };
            assert_eq!(problem.detail(), detail);
        }
    }
}
