//! Rules about Rust files (and, where a command could hide there, Lua scripts).

use super::{File, Finding, Tree};

/// Above this a file holds more than one noun. Lines, tests included.
const LINES_MAX: usize = 700;

/// The one file of the product that reads the environment, and those that find the programs to test with.
const ENVIRONMENT: &[&str] = &[
    "crates/server/src/env.rs",
    "tests/src/binary.rs",
    "tests/src/browser.rs",
    "tests/redis/src/binary.rs",
    "xtask/src/needs.rs",
];

/// Commands that stop a Redis for everybody while they work. Written in two parts, as this file is checked as well.
const UNBOUNDED: &[&str] = &[concat!("KE", "YS"), concat!("FLUSH", "DB"), concat!("FLUSH", "ALL")];

/// The first reader learns from the first line what lives here.
pub(super) fn opens_with_its_purpose(file: &File, _: &Tree) -> Vec<Finding> {
    if !file.is("rs") || file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![Finding { line: 1, message: "the file does not open with `//!` and what lives here".to_owned() }]
}

pub(super) fn is_of_one_thought(file: &File, _: &Tree) -> Vec<Finding> {
    let lines = file.text.lines().count();
    if !file.is("rs") || lines <= LINES_MAX {
        return Vec::new();
    }
    vec![Finding { line: lines, message: format!("{lines} lines, at most {LINES_MAX}: split the file by noun") }]
}

/// Settings arrive as a `Config`.
pub(super) fn reads_no_environment(file: &File, _: &Tree) -> Vec<Finding> {
    if !file.is("rs") || ENVIRONMENT.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let reads = |line: &str| line.contains(concat!("env::", "var")) && !is_comment(line);
    let found = file.lines().filter(|(_, line)| reads(line));
    found
        .map(|(line, _)| Finding { line, message: format!("reads the environment; only {} does", ENVIRONMENT[0]) })
        .collect()
}

/// Nothing sends a command whose work grows with the data set. Tests may wipe the private server they started.
pub(super) fn sends_no_unbounded_command(file: &File, _: &Tree) -> Vec<Finding> {
    let is_code = file.is("rs") || file.is("lua");
    let is_product = file.path.starts_with("crates/") && file.path.contains("/src/");
    let commands = if is_product { UNBOUNDED } else { &UNBOUNDED[..1] };
    if !is_code || file.path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, text) in file.lines().filter(|(_, text)| !is_comment(text)) {
        if let Some(command) = commands.iter().find(|command| is_sent(text, command, file.is("lua"))) {
            findings
                .push(Finding { line, message: format!("{command} blocks Redis for everybody; use SCAN and UNLINK") });
        }
    }
    findings
}

/// Does a string literal here begin with the command? Lua takes commands in any case and has no JSON fields.
fn is_sent(line: &str, command: &str, is_lua: bool) -> bool {
    let line = if is_lua { line.to_ascii_uppercase() } else { line.to_owned() };
    let quoted = line.match_indices(command).filter(|(at, _)| line[..*at].ends_with(['"', '\'']));
    quoted.into_iter().any(|(at, _)| line[at + command.len()..].starts_with(['"', '\'', ' ', '\\']))
}

pub(super) fn ignores_no_test_without_a_reason(file: &File, _: &Tree) -> Vec<Finding> {
    if !file.is("rs") {
        return Vec::new();
    }
    let found = file.lines().filter(|(_, line)| line.trim_start().starts_with(concat!("#[ign", "ore]")));
    found.map(|(line, _)| Finding { line, message: "an ignored test says why: #[ignore = \"…\"]".to_owned() }).collect()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//") || line.trim_start().starts_with("--")
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;

    #[test]
    fn a_file_without_a_purpose_is_told() {
        let rule = opens_with_its_purpose;
        assert_eq!(told(rule, "crates/queue/src/job.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(told(rule, "crates/queue/src/job.rs", "").len(), 1);
        assert_eq!(told(rule, "crates/queue/src/job.rs", "//! Jobs.\n"), []);
        assert_eq!(told(rule, "examples/workers/worker.py", "import json\n"), []);
    }

    #[test]
    fn a_file_of_too_many_lines_is_told() {
        let rule = is_of_one_thought;
        assert_eq!(told(rule, "a.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
        assert_eq!(told(rule, "a.rs", &"x\n".repeat(LINES_MAX)), []);
    }

    #[test]
    fn the_environment_is_read_in_one_file() {
        let rule = reads_no_environment;
        let line = format!("//! A.\nlet port = std::{}_os(\"PORT\");\n", concat!("env::", "var"));
        assert_eq!(told(rule, "crates/queue/src/job.rs", &line)[0].0, 2);
        assert_eq!(told(rule, "tests/src/server.rs", &line).len(), 1);
        for file in ENVIRONMENT {
            assert_eq!(told(rule, file, &line), []);
        }
        assert_eq!(told(rule, "crates/queue/src/job.rs", &line.replace("let", "// let")), []);
    }

    #[test]
    fn commands_that_stop_redis_are_told() {
        let rule = sends_no_unbounded_command;
        let [keys, flush, _] = UNBOUNDED else { panic!("three commands") };
        assert_eq!(told(rule, "crates/cache/src/a.rs", &format!("client.send(\"{keys}\", pattern)")).len(), 1);
        assert_eq!(told(rule, "crates/cache/src/a.rs", &format!("client.send(\"{keys} cache:*\")")).len(), 1);
        assert_eq!(told(rule, "crates/cache/src/a.lua", &format!("redis.call('{}', p)", keys.to_lowercase())).len(), 1);
        assert_eq!(told(rule, "crates/cache/src/a.rs", &format!("send(\"{flush}\")")).len(), 1);
        assert_eq!(told(rule, "tests/tests/wipe.rs", &format!("send(\"{flush}\")")), []);
        assert_eq!(told(rule, "crates/cache/src/a.lua", &format!("local lane = {keys}[1]")), []);
        assert_eq!(told(rule, "crates/cache/src/a.rs", "json!({\"keys\": names})"), []);
    }

    #[test]
    fn a_test_is_not_ignored_without_a_reason() {
        let rule = ignores_no_test_without_a_reason;
        assert_eq!(told(rule, "a.rs", concat!("#[test]\n#[ign", "ore]\n"))[0].0, 2);
        assert_eq!(told(rule, "a.rs", "#[test]\n#[ignore = \"takes an hour; cargo xtask soak\"]\n"), []);
    }
}
