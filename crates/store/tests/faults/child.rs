//! This test program again, as a process that can be killed, starved of disk or lied to by `fsync`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tidegate_store::{Config, Durability};

use crate::common::{config, open, record, wait};

/// What the process does with the store in `folder`: it writes records until it is stopped, and says what was
/// acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) folder: PathBuf,
    pub(crate) durability: Durability,
    /// Bytes of a record.
    pub(crate) length: usize,
    /// The first record and how many.
    pub(crate) from: u64,
    pub(crate) count: u64,
    /// Goes on after a failed write, to see that nothing is acknowledged then.
    pub(crate) persist: bool,
    /// By the engine alone, without the store.
    pub(crate) bare: bool,
}

impl Task {
    pub(crate) fn new(folder: &Path) -> Self {
        let folder = folder.to_path_buf();
        Self { folder, durability: Durability::Sync, length: 64, from: 0, count: u64::MAX, persist: false, bare: false }
    }

    fn encode(&self) -> String {
        let Self { folder, durability, length, from, count, persist, bare } = self;
        format!("task={durability},{length},{from},{count},{persist},{bare},{}", folder.display())
    }

    fn decode(text: &str) -> Self {
        let parts: Vec<&str> = text.splitn(7, ',').collect();
        let durability = if parts[0] == "sync" { Durability::Sync } else { Durability::EverySecond };
        Self {
            durability,
            length: parts[1].parse().unwrap(),
            from: parts[2].parse().unwrap(),
            count: parts[3].parse().unwrap(),
            persist: parts[4] == "true",
            bare: parts[5] == "true",
            folder: PathBuf::from(parts[6]),
        }
    }

    /// Starts the process.
    pub(crate) fn start(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        self.start_by(Command::new(std::env::current_exe().unwrap()), prepare)
    }

    /// Starts the process through a shell that first runs `before`.
    pub(crate) fn start_after(&self, before: &str) -> Running {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{before}; exec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
        self.start_by(shell, |_| ())
    }

    fn start_by(&self, mut command: Command, prepare: impl FnOnce(&mut Command)) -> Running {
        command.args(["--exact", "child::process", "--nocapture", "--test-threads=1"]).arg(self.encode());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }
}

/// A running process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// A line that the process said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Opened,
    Acknowledged(u64),
    Refused(u64, String),
    NotOpened(String),
}

impl Running {
    /// The next line, or `None` when the process has ended.
    pub(crate) fn next(&mut self) -> Option<Said> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // A line cut off by a kill was not said.
            let line = line.strip_suffix('\n')?;
            // The first line comes after what the test harness says about it.
            let Some(at) = line.find("> ") else { continue };
            let (word, rest) = line[at + 2..].split_once(' ').unwrap();
            return Some(match word {
                "opened" => Said::Opened,
                "acknowledged" => Said::Acknowledged(rest.parse().unwrap()),
                "refused" => {
                    let (number, error) = rest.split_once(' ').unwrap();
                    Said::Refused(number.parse().unwrap(), error.to_owned())
                }
                _ => Said::NotOpened(rest.to_owned()),
            });
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process and returns all it had said.
    pub(crate) fn kill(mut self) -> Vec<Said> {
        self.child.kill().unwrap();
        self.rest()
    }

    /// All it says until it ends.
    pub(crate) fn rest(&mut self) -> Vec<Said> {
        let said = std::iter::from_fn(|| self.next()).collect();
        self.child.wait().unwrap();
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers among what was said that were acknowledged.
pub(crate) fn acknowledged(said: &[Said]) -> Vec<u64> {
    let number = |said: &Said| if let Said::Acknowledged(number) = said { Some(*number) } else { None };
    said.iter().filter_map(number).collect()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("> {line}\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// Not a test of its own: does what the task among the arguments says, and nothing without one.
#[test]
fn process() {
    let Some(task) = std::env::args().find_map(|arg| arg.strip_prefix("task=").map(Task::decode)) else { return };
    if task.bare {
        return crate::bare::write(&task, say);
    }
    let config = Config { durability: task.durability, ..config(&task.folder) };
    let store = match open(config) {
        Ok(store) => store,
        Err(error) => return say(&format!("not-opened {error}")),
    };
    say("opened -");
    let mut refused = 0;
    for number in task.from..task.from.saturating_add(task.count) {
        match wait(store.submit(record(number, task.length))) {
            Ok(()) => say(&format!("acknowledged {number}")),
            Err(error) => {
                say(&format!("refused {number} {error}"));
                refused += 1;
                if !task.persist || refused > 20 {
                    break;
                }
            }
        }
    }
    let _ = store.close();
}
