//! Gates that are programs of others: formatter, compiler, documentation, dependency checker.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};

use super::Verdict;
use crate::shell;

/// The version the gate was written for; another may judge by other rules.
const CARGO_DENY: &str = "=0.20.2";

pub(super) fn fmt() -> Result<Verdict> {
    component("fmt", "rustfmt")?;
    let finished = shell::finish(shell::cargo(&["fmt", "--all", "--check", "--", "--files-with-diff"]))?;
    if finished.success {
        return Ok(Verdict::Passed("cargo fmt --all --check".to_owned()));
    }
    // The names only: `cargo fmt` mends them, so nobody needs to read the difference.
    let root = format!("{}/", shell::root().display());
    let files: BTreeSet<String> = finished.said().lines().map(|line| line.replace(&root, "")).collect();
    Ok(Verdict::Failed(
        files.into_iter().chain(["`cargo fmt --all` mends them".to_owned()]).collect::<Vec<_>>().join("\n"),
    ))
}

pub(super) fn clippy() -> Result<Verdict> {
    component("clippy", "clippy")?;
    verdict(shell::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]))
}

pub(super) fn docs() -> Result<Verdict> {
    let mut command = shell::cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    verdict(command)
}

pub(super) fn deny() -> Result<Verdict> {
    cargo_deny()?;
    verdict(shell::cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"]))
}

/// Apart from `deny` because it fetches the advisory database, and its verdict changes without our doing.
pub(super) fn advisories() -> Result<Verdict> {
    cargo_deny()?;
    verdict(shell::cargo(&["deny", "--locked", "check", "advisories"]))
}

fn verdict(command: Command) -> Result<Verdict> {
    let line = shell::described(&command);
    let finished = shell::finish(command)?;
    Ok(if finished.success { Verdict::Passed(line) } else { Verdict::Failed(format!("{line}\n{}", finished.said())) })
}

/// Adds a component of the toolchain where a minimal installation lacks it.
fn component(subcommand: &str, component: &str) -> Result<()> {
    if shell::line_of("cargo", &[subcommand, "--version"]).is_some() {
        return Ok(());
    }
    println!("cargo {subcommand} is missing: rustup component add {component}");
    if !shell::show(shell::command("rustup", &["component", "add", component]))? {
        bail!("cannot add {component}; please install it and run this again");
    }
    Ok(())
}

fn cargo_deny() -> Result<()> {
    if shell::line_of("cargo", &["deny", "--version"]).is_some() {
        return Ok(());
    }
    let words = ["install", "--locked", "cargo-deny", "--version", CARGO_DENY];
    println!("cargo-deny is missing: cargo {} (takes some minutes, once)", words.join(" "));
    if !shell::show(shell::cargo(&words))? {
        bail!("cannot install cargo-deny {CARGO_DENY}");
    }
    Ok(())
}
