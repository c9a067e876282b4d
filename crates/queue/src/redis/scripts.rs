//! The scripts: one file per verb under `lua/`, each behind the rules they share.

use std::sync::LazyLock;

use tidegate_redis_ops::Script;

/// All scripts of the queue.
pub(crate) struct Scripts {
    pub(crate) push: Script,
    pub(crate) step: Script,
    pub(crate) beat: Script,
    pub(crate) progress: Script,
    pub(crate) cancel: Script,
    pub(crate) retry: Script,
    pub(crate) purge: Script,
    pub(crate) pause: Script,
    pub(crate) upkeep: Script,
    pub(crate) look: Script,
    pub(crate) list: Script,
    pub(crate) stats: Script,
    pub(crate) make: Script,
}

const HEAD: &str = include_str!("lua/head.lua");
const RULES: &str = include_str!("lua/rules.lua");
const VIEW: &str = include_str!("lua/view.lua");
const PUSH_EACH: &str = include_str!("lua/push_each.lua");
const STEP_EACH: &str = include_str!("lua/step_each.lua");

/// The verbs and their files, for the scripts and for the documentation.
pub(crate) const SOURCES: [(&str, &str); 13] = [
    ("push", include_str!("lua/push.lua")),
    ("step", include_str!("lua/step.lua")),
    ("beat", include_str!("lua/beat.lua")),
    ("progress", include_str!("lua/progress.lua")),
    ("cancel", include_str!("lua/cancel.lua")),
    ("retry", include_str!("lua/retry.lua")),
    ("purge", include_str!("lua/purge.lua")),
    ("pause", include_str!("lua/pause.lua")),
    ("upkeep", include_str!("lua/upkeep.lua")),
    ("look", include_str!("lua/look.lua")),
    ("list", include_str!("lua/list.lua")),
    ("stats", include_str!("lua/stats.lua")),
    ("make", include_str!("lua/make.lua")),
];

/// Hashed once per process.
pub(crate) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let script = |verb: &'static str| {
        let source = SOURCES.iter().find(|(name, _)| *name == verb).map_or("", |(_, source)| source);
        match verb {
            "make" => Script::new(verb, source),
            // The short way comes before the rules, so that it does not pay for them.
            "push" => Script::new(verb, format!("{HEAD}{source}{RULES}{PUSH_EACH}")),
            "step" => Script::new(verb, format!("{HEAD}{source}{RULES}{STEP_EACH}")),
            "look" | "cancel" | "retry" | "list" => Script::new(verb, format!("{HEAD}{RULES}{VIEW}{source}")),
            _ => Script::new(verb, format!("{HEAD}{RULES}{source}")),
        }
    };
    Scripts {
        push: script("push"),
        step: script("step"),
        beat: script("beat"),
        progress: script("progress"),
        cancel: script("cancel"),
        retry: script("retry"),
        purge: script("purge"),
        pause: script("pause"),
        upkeep: script("upkeep"),
        look: script("look"),
        list: script("list"),
        stats: script("stats"),
        make: script("make"),
    }
});
