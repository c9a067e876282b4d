//! Running other programs from the root of the checkout: silently, with their output kept, or line by line.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The root of the checkout this tool was built from.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// `program arguments…`, started in the root of the checkout.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// `cargo arguments…` in the root of the checkout, in colour where we have a terminal.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = command("cargo", arguments);
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
}

/// What a finished program said and whether it succeeded.
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Both outputs, for a reader.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr).trim_end().to_owned()
    }
}

/// Runs to the end and keeps the output. An error means it could not be started at all.
pub(crate) fn finish(mut command: Command) -> Result<Finished> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", described(&command)))?;
    Ok(Finished {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The trimmed standard output, or `None` where the program is missing or fails.
pub(crate) fn line_of(program: &str, arguments: &[&str]) -> Option<String> {
    let finished = finish(command(program, arguments)).ok()?;
    finished.success.then(|| finished.stdout.trim().to_owned())
}

/// Runs to the end with output going straight to the user; tells whether it succeeded.
pub(crate) fn show(mut command: Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot start {}", described(&command)))?;
    Ok(status.success())
}

/// Runs to the end, handing over each line of standard output as it comes (standard error goes straight to the
/// user); tells whether it succeeded.
pub(crate) fn each_line(mut command: Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", described(&command)))?;
    let mut reader = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    Ok(child.wait()?.success())
}

/// The command as one would type it.
pub(crate) fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_order_and_failure_is_told() {
        let mut lines = Vec::new();
        let script = "printf 'one\\ntwo'; exit 3";
        let success = each_line(command("sh", &["-c", script]), |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert!(!success);
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_with_its_name() {
        let error = finish(command("no-such-program", &["--version"])).err().unwrap();
        assert_eq!(error.to_string(), "cannot start no-such-program --version");
    }
}
