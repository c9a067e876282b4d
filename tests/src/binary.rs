//! Where the program under test is found, and how its short commands are run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::Command;

use crate::wait::within;

/// What a command that ended by itself left behind.
#[derive(Debug)]
pub struct Exit {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything it printed.
    pub stdout: String,
    /// Everything it complained about.
    pub stderr: String,
}

impl Exit {
    /// Both outputs, for searching.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Runs `tidegate` with these arguments and environment until it ends, at most 60 s. Nothing else is inherited but `PATH`.
///
/// # Panics
/// When it cannot be started or does not end.
pub async fn run(args: &[&str], env: &[(&str, &str)]) -> Exit {
    let mut command = clean(tidegate().as_os_str());
    command.args(args).envs(env.iter().copied()).current_dir(std::env::temp_dir());
    let output = within("the command ends", Duration::from_secs(60), command.output()).await.expect("tidegate runs");
    Exit {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command with an empty environment, piped outputs and a SIGKILL on drop.
pub(crate) fn clean(program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(path) = outer("PATH") {
        command.env("PATH", path);
    }
    command
}

/// The binary: `TIDEGATE_BIN` if set, else the one beside the test executable, brought up to date by cargo first, so
/// that a journey never judges yesterday's program.
pub(crate) fn tidegate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| outer("TIDEGATE_BIN").map_or_else(built, PathBuf::from))
}

fn built() -> PathBuf {
    built_by_cargo("tidegate", "--bin", "tidegate")
}

/// A program (`--bin`) or example (`--example`) of a package, in the profile of the program that asks.
pub(crate) fn built_by_cargo(package: &str, kind: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test> for tests, target/<profile>/<bin> for the soak.
    let folder = test.parent().expect("target folder");
    let profile = if folder.ends_with("deps") { folder.parent().expect("profile folder") } else { folder };
    let mut cargo = std::process::Command::new(outer("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, kind, name]).current_dir(repository());
    cargo.arg("--target-dir").arg(profile.parent().expect("target folder"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{name}, which is to be tested, does not build");
    profile.join(if kind == "--example" { "examples" } else { "" }).join(name)
}

pub(crate) fn outer(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}
