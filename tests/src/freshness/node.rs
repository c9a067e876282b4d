//! A process that uses the cache: the example `freshness_node`, driven by lines.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use super::plan::Plan;
use crate::binary::{built_by_cargo, clean, outer};
use crate::wait::within;

/// 60 s: starting and ending take milliseconds; who takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process; killed when dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: usize,
    child: Child,
    pid: Pid,
    input: ChildStdin,
    lines: JoinHandle<Vec<String>>,
    was_killed: bool,
}

impl Node {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(plan: &Plan, number: usize, url: &str) -> Self {
        Self::try_start(plan, number, url).await.unwrap_or_else(|| panic!("process {number} does not start"))
    }

    /// As [`start`](Self::start); `None` when it ends at once because its Redis is away.
    pub(super) async fn try_start(plan: &Plan, number: usize, url: &str) -> Option<Self> {
        let mut command: Command = clean(program().as_os_str());
        command.args(plan.arguments(number, url)).stdin(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the example starts");
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("a fresh child has an id");
        let input = child.stdin.take().expect("the input is piped");
        let mut output = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        let ready = within("the process is ready", PATIENCE, output.next_line()).await.expect("it can be read");
        if ready.as_deref() != Some("ready") {
            return None;
        }
        let lines = tokio::spawn(async move {
            let mut lines = Vec::new();
            while let Ok(Some(line)) = output.next_line().await {
                lines.push(line);
            }
            lines
        });
        Some(Self { number, child, pid, input, lines, was_killed: false })
    }

    pub(super) async fn begin(&mut self) {
        self.input.write_all(b"go\n").await.expect("the process listens");
    }

    /// SIGSTOP.
    pub(super) fn freeze(&self) {
        let _ = kill_process(self.pid, Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) {
        let _ = kill_process(self.pid, Signal::CONT);
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        let _ = self.child.start_kill();
        self.was_killed = true;
    }

    /// Lets it end by itself unless it was killed; what it told, and as whom.
    pub(super) async fn end(mut self) -> (usize, Vec<String>) {
        // A killed one does not listen.
        let _ = self.input.write_all(b"stop\n").await;
        let what = format!("process {} ends", self.number);
        within(&what, PATIENCE, self.child.wait()).await.expect("waiting works");
        let lines = within("the end of its lines", PATIENCE, self.lines).await.expect("reading does not panic");
        // A load that was under way may have said something after it.
        let said_end = lines.iter().any(|line| line == "end");
        assert!(said_end || self.was_killed, "process {} died; last it said {:?}", self.number, lines.last());
        (self.number, lines)
    }
}

/// The example beside the test executable, brought up to date by cargo first, or what `TIDEGATE_TEST_FRESHNESS_NODE` names.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let built = || built_by_cargo("tidegate-cache", "--example", "freshness_node");
    PROGRAM.get_or_init(|| outer("TIDEGATE_TEST_FRESHNESS_NODE").map_or_else(built, PathBuf::from))
}
