//! The cache: get, set, delete, invalidate, clear, warm, and how it stands.

mod forget;
mod read;
mod stats;
mod warm;
mod write;

use super::Routes;
use crate::app::App;
use crate::auth::{Access, Scope};
use crate::error::Problem;

pub(crate) use forget::{
    __path_apply, __path_clear, __path_delete, __path_invalidate, apply, clear, delete, invalidate,
};
pub(crate) use read::{__path_get, __path_get_many, get, get_many};
pub(crate) use stats::{__path_stats, stats};
pub(crate) use warm::{__path_warm, warm};
pub(crate) use write::{__path_set, __path_set_many, set, set_many};

/// 1000 keys, tags or entries in one call: what Redis does in one breath.
const ITEMS_MAX: usize = 1000;

/// As long as a tag may be, in bytes.
const TAG_BYTES_MAX: usize = 256;

pub(crate) fn router(routes: &mut Routes) {
    const READ: Access = Access::Needs(Scope::Read);
    const SUBMIT: Access = Access::Needs(Scope::Submit);
    const ADMIN: Access = Access::Needs(Scope::Admin);
    routes
        .get("/api/performance/cache/stats", READ, stats)
        .get("/api/performance/cache/get/{*key}", READ, get)
        .post("/api/performance/cache/get-many", READ, get_many)
        .post("/api/performance/cache/set", SUBMIT, set)
        .post("/api/performance/cache/set-many", SUBMIT, set_many)
        .post("/api/performance/cache/invalidate", SUBMIT, invalidate)
        .post("/api/performance/cache/invalidate/apply", SUBMIT, apply)
        .delete("/api/performance/cache/clear", ADMIN, clear)
        .post("/api/performance/cache/warm", SUBMIT, warm)
        // Any path that is not one of those above.
        .delete("/api/performance/cache/{*key}", SUBMIT, delete);
}

/// Refuses what no key can be; `field` says where it stands.
fn check_key(app: &App, key: &str, field: &str) -> Result<(), Problem> {
    check_length(key, app.cache.values.config().key_bytes_max, field)
}

/// The same for keys in a list.
fn check_keys(app: &App, keys: &[String]) -> Result<(), Problem> {
    keys.iter().enumerate().try_for_each(|(n, key)| check_key(app, key, &format!("keys[{n}]")))
}

fn check_tag(tag: &str, field: &str) -> Result<(), Problem> {
    check_length(tag, TAG_BYTES_MAX, field)
}

fn check_length(text: &str, most: usize, field: &str) -> Result<(), Problem> {
    match (1..=most).contains(&text.len()) {
        true => Ok(()),
        false => Err(Problem::field(field, format!("1 to {most} bytes, not {}", text.len()))),
    }
}
