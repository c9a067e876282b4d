//! `cargo xtask test`: everything. Builds the server, runs all tests of the workspace against it, adds up the results.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::arguments::Arguments;
use crate::{needs, shell};

pub(crate) fn usage() -> String {
    "cargo xtask test [--release] [arguments of cargo test] [-- arguments of the test programs]\n\n\
     Builds the server (debug unless --release), then runs unit, integration, example and documentation tests of\n\
     every package, journeys over HTTP included. What a test needs beside Rust (python3, node, redis-server, chromium;\n\
     or what TIDEGATE_TEST_REDIS and TIDEGATE_TEST_CHROMIUM name) is installed first.\n\
     Examples: cargo xtask test -p tidegate-queue    cargo xtask test expired_lease    cargo xtask test -- --nocapture"
        .to_owned()
}

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let release = arguments.flag("--release");
    let (cargo_arguments, test_arguments) = arguments.rest();
    println!("test: checking for python3 and node, which run the example workers, for redis-server and for chromium");
    needs::ensure(&[needs::PYTHON, needs::NODE, needs::REDIS, needs::CHROMIUM])?;
    println!("test: building the server ({})", if release { "release" } else { "debug" });
    let binary = server_binary(release)?;
    let mut words = vec!["test", "--locked", "--no-fail-fast"];
    words.extend(release.then_some("--release"));
    words.extend((!names_packages(&cargo_arguments)).then_some("--workspace"));
    words.extend(cargo_arguments.iter().map(String::as_str));
    words.push("--");
    words.extend(test_arguments.iter().map(String::as_str));
    let mut command = shell::cargo(&words);
    command.env("TIDEGATE_BIN", &binary);
    let mut shown = format!("TIDEGATE_BIN={binary}");
    for program in [needs::REDIS, needs::CHROMIUM] {
        let Some((name, path)) = program.variable.zip(needs::path_of(&program)) else { continue };
        shown.push_str(&format!(", {name}={path}"));
        command.env(name, path);
    }
    println!("test: {} ({shown})", shell::described(&command));
    let mut tally = Tally::default();
    let success = shell::each_line(command, |line| {
        println!("{line}");
        tally.read(line);
    })?;
    Ok(tally.closed(success).conclude())
}

/// A package named by the caller replaces the whole workspace.
fn names_packages(arguments: &[String]) -> bool {
    arguments.iter().any(|word| word == "-p" || word.starts_with("--package"))
}

/// Builds the server and tells where cargo put it.
pub(crate) fn server_binary(release: bool) -> Result<String> {
    let mut words = vec!["build", "--locked", "--package", "tidegate", "--message-format=json-render-diagnostics"];
    words.extend(release.then_some("--release"));
    let mut binary = None;
    let success = shell::each_line(shell::cargo(&words), |line| binary = executable(line).or(binary.take()))?;
    if !success {
        bail!("the server does not build");
    }
    binary.context("cargo built no program named tidegate")
}

fn executable(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_server = message["target"]["name"] == "tidegate" && message["target"]["kind"][0] == "bin";
    message["executable"].as_str().filter(|_| is_server).map(str::to_owned)
}

/// The sum over all test programs.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: BTreeSet<String>,
}

impl Tally {
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.insert(name.to_owned());
        }
    }

    /// A program that dies without a result is no test, but it counts as one that failed.
    fn closed(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
            self.failures.insert("cargo test itself: no test accounts for its error, see above".to_owned());
        }
        self
    }

    /// Prints the sum, last of all.
    fn conclude(&self) -> ExitCode {
        println!();
        self.failures.iter().for_each(|name| println!("failed: {name}"));
        if self.ignored > 0 {
            println!("{} ignored", self.ignored);
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The number before `word` in `ok. 5 passed; 0 failed; …`.
fn count(result: &str, word: &str) -> u64 {
    let part = result.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_all_programs_are_added_up() {
        let sum = tally(&[
            "running 5 tests",
            "test queue::tests::bounded ... ok",
            "test queue::tests::fenced ... FAILED",
            "test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.30s",
        ]);
        assert_eq!((sum.passed, sum.failed, sum.ignored), (16, 1, 3));
        assert_eq!(sum.failures.iter().collect::<Vec<_>>(), ["queue::tests::fenced"]);
    }

    #[test]
    fn a_failed_test_or_a_failed_program_fails_the_command() {
        let failed = |line: &str, success| tally(&[line]).closed(success).failed;
        assert_eq!(failed("test result: FAILED. 0 passed; 2 failed; 0 ignored", false), 2);
        assert_eq!(failed("test result: ok. 1 passed; 0 failed; 0 ignored", false), 1);
        assert_eq!(failed("test result: ok. 1 passed; 0 failed; 0 ignored", true), 0);
    }

    #[test]
    fn only_the_program_itself_is_taken_for_the_server() {
        let message = |name: &str, kind: &str| {
            format!(r#"{{"target":{{"name":"{name}","kind":["{kind}"]}},"executable":"/t/{name}"}}"#)
        };
        assert_eq!(executable(&message("tidegate", "bin")).as_deref(), Some("/t/tidegate"));
        assert_eq!(executable(&message("build-script-build", "custom-build")), None);
        assert_eq!(executable(&message("tidegate", "test")), None);
    }

    #[test]
    fn a_named_package_replaces_the_workspace() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(names_packages(&words("-p tidegate-queue")));
        assert!(names_packages(&words("--package=tidegate-queue")));
        assert!(!names_packages(&words("expired_lease")));
    }
}
