//! The scripts of this folder; their first three lines say keys, arguments and reply.

use std::sync::LazyLock;

use crate::script::Script;

pub(super) static INFO: LazyLock<Script> = LazyLock::new(|| Script::new("stream_info", include_str!("lua/info.lua")));
pub(super) static RANGE: LazyLock<Script> =
    LazyLock::new(|| Script::new("stream_range", include_str!("lua/range.lua")));
pub(super) static DELETE: LazyLock<Script> =
    LazyLock::new(|| Script::new("stream_delete", include_str!("lua/delete.lua")));
