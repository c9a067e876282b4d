//! One server process: started with a configuration file, signalled, ended, its log read when it fails.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::{binary, watchdog};

/// A running child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its number may be somebody else's by now.
    is_reaped: bool,
    log: PathBuf,
}

impl Process {
    /// Starts the server program in `folder`. It logs to `redis.log` there.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let log = folder.join("redis.log");
        let file = File::options().create(true).append(true).open(&log).expect("the folder can be written");
        let second = file.try_clone().expect("a file handle can be doubled");
        let mut command = Command::new(binary::redis());
        command.args(arguments).current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        watchdog::started(child.id());
        Self { child, is_reaped: false, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; an ended process is not an error.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()).filter(|_| !self.is_reaped) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits for the kernel, so that ports and files are free.
    pub(crate) fn kill(&mut self) {
        if self.is_reaped {
            return;
        }
        let _ = self.child.kill();
        watchdog::ended(self.child.id());
        let _ = self.child.wait();
        self.is_reaped = true;
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        if !self.is_reaped && !matches!(self.child.try_wait(), Ok(None)) {
            watchdog::ended(self.child.id());
            self.is_reaped = true;
        }
        self.is_reaped
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        last_lines(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of redis process {}:\n{}\n---", self.pid(), self.last_words());
        }
        self.kill();
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
