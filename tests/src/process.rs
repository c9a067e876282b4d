//! A child process under test: its output line by line, signals, and what the kernel says about it.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::wait::within;

/// Lines kept per process; a test that floods its log must not flood the test.
const LINES_MAX: usize = 4000;

/// A running child. It is killed when dropped, and its last lines are shown if the test is failing then.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    output: Arc<Output>,
}

#[derive(Debug)]
struct Output {
    lines: Mutex<Vec<String>>,
    /// Counts lines and, at the end of a stream, one more, so that a waiter looks again.
    changed: watch::Sender<usize>,
}

impl Process {
    /// Starts `command`, whose outputs must be piped.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("a fresh child has an id");
        let output = Arc::new(Output { lines: Mutex::default(), changed: watch::channel(0).0 });
        collect(child.stdout.take().expect("stdout is piped"), "", &output);
        collect(child.stderr.take().expect("stderr is piped"), "! ", &output);
        Self { child, pid, output }
    }

    /// Waits for a line of stdout or stderr (the latter is prefixed by `! `) that contains `text`; `None` if the
    /// process ended without it.
    ///
    /// # Panics
    /// When neither happens within `limit`.
    pub async fn line(&mut self, text: &str, limit: Duration) -> Option<String> {
        let mut changed = self.output.changed.subscribe();
        let output = Arc::clone(&self.output);
        let find = || lock(&output.lines).iter().find(|line| line.contains(text)).cloned();
        within(&format!("a line with {text:?}; so far:\n{}", self.said()), limit, async {
            loop {
                changed.mark_unchanged();
                if let Some(line) = find() {
                    return Some(line);
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = self.child.wait() => {
                        // The pipes may still hold the last words.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        return find();
                    }
                }
            }
        })
        .await
    }

    /// Everything said so far.
    #[must_use]
    pub fn said(&self) -> String {
        lock(&self.output.lines).join("\n")
    }

    /// Sends a signal; an already ended process is not an error.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// Freezes the process (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Wakes a frozen process (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// `kill -9`, and waits until the process is gone, so that its locks are free.
    ///
    /// # Panics
    /// When the kernel does not let go of it within 30 s.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(30)).await;
    }

    /// Waits until the process ended.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let said = self.said();
        within(&format!("the process ends; it said:\n{said}"), limit, self.child.wait()).await.expect("waiting works")
    }

    /// Whether the process has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory now, in bytes.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        self.status_field("VmRSS:") * 1024
    }

    /// Largest resident memory so far, in bytes.
    #[must_use]
    pub fn rss_peak_bytes(&self) -> u64 {
        self.status_field("VmHWM:") * 1024
    }

    /// CPU time used so far by all threads, in clock ticks of 10 ms.
    #[must_use]
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(self.proc("stat")).expect("a live process has a stat file");
        let after_name = stat.rsplit_once(')').expect("stat has a name").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        [11, 12].iter().map(|&field| fields[field].parse::<u64>().expect("ticks are numbers")).sum()
    }

    /// How often any of its threads went to sleep and was woken, summed over the threads alive now.
    #[must_use]
    pub fn wakeups(&self) -> u64 {
        std::fs::read_dir(self.proc("task"))
            .expect("a live process has tasks")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
            .map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum()
    }

    fn status_field(&self, name: &str) -> u64 {
        field(&std::fs::read_to_string(self.proc("status")).expect("a live process has a status file"), name)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid.as_raw_nonzero()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = lock(&self.output.lines);
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- last lines of process {}:\n{}\n---", self.pid.as_raw_nonzero(), tail.join("\n"));
        }
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, prefix: &'static str, output: &Arc<Output>) {
    let output = Arc::clone(output);
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            let mut lines = lock(&output.lines);
            if lines.len() == LINES_MAX {
                lines.drain(..LINES_MAX / 2);
            }
            lines.push(format!("{prefix}{line}"));
            drop(lines);
            output.changed.send_modify(|count| *count += 1);
        }
        output.changed.send_modify(|count| *count += 1);
    });
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in status"));
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("the field is a number")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no reader panics with the lock held")
}
