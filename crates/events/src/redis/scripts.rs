//! The scripts: one file per verb under `lua/`, whose first three lines say keys, arguments and reply.

use std::sync::LazyLock;

use tidegate_redis_ops::Script;

/// All scripts of the bus.
pub(super) struct Scripts {
    pub(super) publish: Script,
    pub(super) read: Script,
    pub(super) delete: Script,
    pub(super) step: Script,
    pub(super) ack: Script,
    pub(super) free: Script,
}

/// The verbs and their files, for the scripts and for the documentation.
pub(super) const SOURCES: [(&str, &str); 6] = [
    ("publish", include_str!("lua/publish.lua")),
    ("read", include_str!("lua/read.lua")),
    ("delete", include_str!("lua/delete.lua")),
    ("step", include_str!("lua/step.lua")),
    ("ack", include_str!("lua/ack.lua")),
    ("free", include_str!("lua/free.lua")),
];

/// Hashed once per process.
pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let [publish, read, delete, step, ack, free] = SOURCES.map(|(verb, source)| Script::new(verb, source));
    Scripts { publish, read, delete, step, ack, free }
});
