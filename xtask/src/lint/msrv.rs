//! Everything builds with the Rust stated as `rust-version`.
//!
//! Proof is `cargo check` with that very toolchain; where it is not installed, the versions that dependencies state
//! and clippy's `msrv` setting have to do, and the gate says so.

use anyhow::{Context, Result};

use super::Verdict;
use crate::shell;
use crate::workspace::{Package, RustVersion, Workspace};

pub(super) fn gate() -> Result<Verdict> {
    let ours = Workspace::members()?.crates().filter_map(|package| package.rust_version).max();
    let ours = ours.context("no rust-version in Cargo.toml")?;
    let workspace = Workspace::with_dependencies()?;
    let findings: Vec<String> = workspace.packages.iter().filter_map(|package| too_new(package, ours)).collect();
    if !findings.is_empty() {
        return Ok(Verdict::Failed(findings.join("\n")));
    }
    let silent = workspace.packages.iter().filter(|package| package.rust_version.is_none()).count();
    let stated = format!("{} dependencies state at most {}.{}", workspace.packages.len() - silent, ours.0, ours.1);
    let stated = if silent > 0 { format!("{stated}, {silent} state nothing") } else { stated };
    let toolchain = format!("{}.{}", ours.0, ours.1);
    if shell::line_of("rustup", &["run", &toolchain, "rustc", "--version"]).is_none() {
        return Ok(Verdict::Passed(format!(
            "{stated}; by metadata and clippy only, Rust {toolchain} is not installed here"
        )));
    }
    check_with(&toolchain, &stated)
}

/// In a target folder of its own: two toolchains in one would rebuild everything for each other.
fn check_with(toolchain: &str, stated: &str) -> Result<Verdict> {
    let words = ["run", toolchain, "cargo", "check", "--workspace", "--all-targets", "--locked", "--quiet"];
    let mut command = shell::command("rustup", &words);
    command.env("CARGO_TARGET_DIR", shell::root().join("target").join(format!("rust-{toolchain}")));
    let finished = shell::finish(command)?;
    Ok(if finished.success {
        Verdict::Passed(format!("{stated}; checked with Rust {toolchain}"))
    } else {
        Verdict::Failed(finished.said())
    })
}

fn too_new(package: &Package, ours: RustVersion) -> Option<String> {
    let theirs = package.rust_version.filter(|theirs| *theirs > ours)?;
    let (name, version) = (&package.name, &package.version);
    Some(format!("{name} {version} needs Rust {}.{}.{}, we state {}.{}", theirs.0, theirs.1, theirs.2, ours.0, ours.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::sample;

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_named() {
        let mut workspace = sample(&["fresh", "old", "silent"], &[]);
        workspace.packages[0].rust_version = Some(RustVersion(1, 91, 1));
        workspace.packages[1].rust_version = Some(RustVersion(1, 90, 0));
        let found: Vec<_> =
            workspace.packages.iter().filter_map(|package| too_new(package, RustVersion(1, 90, 0))).collect();
        assert_eq!(found, ["fresh 0.1.0 needs Rust 1.91.1, we state 1.90"]);
    }
}
