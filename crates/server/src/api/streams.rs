//! Event streams: list, look, publish, read, listen, trim, delete; consumer groups in `groups`.

mod groups;
mod list;
mod listen;
mod publish;
mod range;
mod remove;
mod view;

use tidegate_events::{EventId, StreamName};

use super::Routes;
use crate::auth::{Access, Scope};
use crate::error::Problem;

pub(crate) use groups::{
    __path_ack, __path_claim, __path_fail, __path_groups, __path_pending, ack, claim, fail, groups, pending,
};
pub(crate) use list::{__path_list, __path_stream, list, stream};
pub(crate) use listen::{__path_listen, __path_listen_to_many, listen, listen_to_many};
pub(crate) use publish::{__path_publish, publish};
pub(crate) use range::{__path_range, range};
pub(crate) use remove::{__path_delete, __path_delete_many, __path_trim, delete, delete_many, trim};

pub(crate) fn router(routes: &mut Routes) {
    const READ: Access = Access::Needs(Scope::Read);
    const SUBMIT: Access = Access::Needs(Scope::Submit);
    const ADMIN: Access = Access::Needs(Scope::Admin);
    routes
        .get("/api/streams", READ, list)
        .get("/api/streams/{stream}", READ, stream)
        .delete("/api/streams/{stream}", ADMIN, delete)
        .post("/api/streams/delete", ADMIN, delete_many)
        .post("/api/streams/{stream}/events", SUBMIT, publish)
        .get("/api/streams/{stream}/events", READ, range)
        .post("/api/streams/{stream}/trim", ADMIN, trim)
        .get("/api/streams/{stream}/sse", READ, listen)
        .get("/api/events", READ, listen_to_many)
        .get("/api/streams/{stream}/groups", READ, groups)
        .get("/api/streams/{stream}/groups/{group}/pending", READ, pending)
        .post("/api/streams/{stream}/groups/{group}/claim", SUBMIT, claim)
        .post("/api/streams/{stream}/groups/{group}/ack", SUBMIT, ack)
        .post("/api/streams/{stream}/groups/{group}/fail", SUBMIT, fail);
}

fn name(name: &str) -> Result<StreamName, Problem> {
    Ok(StreamName::new(name)?)
}

/// An event's id in this field.
fn place(field: &str, text: &str) -> Result<EventId, Problem> {
    text.parse().map_err(|error: tidegate_events::Error| Problem::field(field, error.to_string()))
}

/// A page's size.
fn limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(100) {
        limit @ 1..=1000 => Ok(limit),
        _ => Err(Problem::field("limit", "1 to 1000")),
    }
}
