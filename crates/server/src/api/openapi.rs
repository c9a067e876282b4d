//! The OpenAPI 3.1 document, made from the code it describes.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::Routes;
use crate::auth::Access;

pub(crate) fn router(routes: &mut Routes) {
    routes.get("/openapi.json", Access::Public, openapi);
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Tidegate", description = "Durable background jobs, queues, event streams, a cache and metrics. Every error is `application/problem+json` with a stable `code`.", license(name = "MIT OR Apache-2.0")),
    paths(
        super::jobs::submit,
        super::jobs::submit_many,
        super::jobs::list,
        super::jobs::job,
        super::jobs::cancel,
        super::jobs::retry,
        super::jobs::events,
        super::queues::list,
        super::queues::queue,
        super::queues::pause,
        super::queues::resume,
        super::queues::purge,
        super::queues::claim,
        super::queues::beat,
        super::queues::complete,
        super::queues::fail,
        super::queues::progress,
        super::queues::release,
        super::streams::list,
        super::streams::stream,
        super::streams::delete,
        super::streams::delete_many,
        super::streams::publish,
        super::streams::range,
        super::streams::trim,
        super::streams::listen,
        super::streams::listen_to_many,
        super::streams::groups,
        super::streams::pending,
        super::streams::claim,
        super::streams::ack,
        super::streams::fail,
        super::cache::stats,
        super::cache::get,
        super::cache::get_many,
        super::cache::set,
        super::cache::set_many,
        super::cache::delete,
        super::cache::invalidate,
        super::cache::apply,
        super::cache::clear,
        super::cache::warm,
        super::home::page,
        super::home::style,
        super::health::live,
        super::health::ready,
        super::metrics::metrics,
        openapi,
    ),
    components(schemas(crate::error::ProblemBody<'static>, crate::error::FieldError)),
    security((), ("token" = [])),
    tags(
        (name = "jobs", description = "Submit jobs and follow them."),
        (name = "queues", description = "How queues stand; pause, resume, purge."),
        (name = "workers", description = "Work on jobs from any language."),
        (name = "streams", description = "Publish events, read them, listen to them."),
        (name = "groups", description = "Share the events of a stream among consumers."),
        (name = "cache", description = "Keep values that cost time to make, and forget them everywhere at once."),
        (name = "health", description = "Probes and figures."),
    )
)]
struct Document;

/// The document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Needed when the server was started with a token file; scopes: read, submit, admin."))
        .build();
    document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(token));
    document
}

static RENDERED: LazyLock<Bytes> = LazyLock::new(|| document().to_json().unwrap_or_default().into());

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json", body = Object)))]
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], RENDERED.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use serde_json::Value;

    /// The schema of a GET's answer, without its envelope.
    fn answer<'a>(document: &'a Value, path: &str) -> &'a Value {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"];
        let followed = |schema: &'a Value| match schema["$ref"].as_str() {
            Some(place) => document.pointer(place.trim_start_matches('#')).unwrap(),
            None => schema,
        };
        let content: &'a Value = content;
        followed(&followed(&content["schema"])["properties"]["data"])
    }

    #[test]
    fn each_list_is_described_by_a_schema_of_its_own() {
        let document: Value = serde_json::from_str(&super::document().to_json().unwrap()).unwrap();
        let lists = [
            ("/api/performance/async/jobs", "jobs"),
            ("/api/queues", "queues"),
            ("/api/streams", "streams"),
            ("/api/streams/{stream}/events", "events"),
            ("/api/streams/{stream}/groups", "groups"),
            ("/api/streams/{stream}/groups/{group}/pending", "pending"),
        ];
        for (path, member) in lists {
            let schema = answer(&document, path);
            assert!(schema["properties"][member].is_object(), "{path} has no `{member}`: {schema}");
        }
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }

    /// Schemas are named after types without their modules: a second type of the same name would take the first one's place.
    #[test]
    fn no_two_types_share_a_schema() {
        let mut files = Vec::new();
        sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
        let mut homes: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for described in text.split("utoipa::ToSchema").skip(1) {
                let words: Vec<&str> = described.split(|letter: char| !letter.is_alphanumeric()).take(60).collect();
                let name = words.windows(2).find(|pair| matches!(pair[0], "struct" | "enum")).map(|pair| pair[1]);
                homes.entry(name.unwrap_or_default().to_owned()).or_default().push(file.clone());
            }
        }
        homes.remove("");
        assert!(homes.len() > 20, "{homes:?}");
        homes.retain(|_, files| files.len() > 1);
        assert!(homes.is_empty(), "rename all but one of each: {homes:?}");
    }
}
