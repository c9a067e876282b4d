//! Servers end even when the test program is killed, aborts, or holds them in a static: one shell per test program
//! learns what runs and ends it when its input, a pipe that only we hold open, is closed.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = include_str!("watchdog.sh");

/// A process was started.
pub(crate) fn started(pid: u32) {
    tell("run", pid);
}

/// A process is about to be reaped: from then on its number may be somebody else's.
pub(crate) fn ended(pid: u32) {
    tell("end", pid);
}

/// A temporary folder was made.
pub(crate) fn folder(path: &Path) {
    tell("folder", path.display());
}

fn tell(verb: &str, what: impl Display) {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let mut shell = SHELL.get_or_init(|| Mutex::new(shell())).lock().unwrap_or_else(PoisonError::into_inner);
    // One write, so that no line is cut should we die now. A shell that was killed by hand is no reason to fail a test.
    let _ = shell.stdin.as_mut().map(|input| input.write_all(format!("{verb} {what}\n").as_bytes()));
}

/// In a process group of its own: Ctrl-C in a terminal ends the tests, not who cleans up after them.
fn shell() -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("cannot start the watchdog {command:?}: {error}"))
}
