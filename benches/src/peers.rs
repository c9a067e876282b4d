//! Other queues that `cargo xtask bench --peers` has made ready, run as programs of their own on the same Redis.
//!
//! A peer is started as `program argument… <redis url> <verb> <number…>` and prints its figures in one line:
//!
//! | verb | numbers | prints |
//! |---|---|---|
//! | `bulk` | jobs, jobs per call | jobs/s |
//! | `callers` | jobs, tasks that each await their own enqueue | jobs/s |
//! | `drain` | jobs (which it enqueues first, unmeasured), jobs at once | jobs/s |
//! | `start` | jobs, 500 of which come in a second | p50 and p99 from enqueue to handler, µs; or nothing |
//! | `fill` | jobs | nothing; they stay |

use std::path::Path;
use std::process::Command;

/// Another queue.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Name and version.
    pub name: String,
    command: Vec<String>,
}

/// Those listed in a file, one per line: name, program, arguments, with tabs between.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read(list: &Path) -> Vec<Peer> {
    let text = std::fs::read_to_string(list).expect("the list of peers");
    let peer = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        Some(Peer { name: words.next()?, command: words.collect() })
    };
    text.lines().filter_map(peer).collect()
}

impl Peer {
    /// Runs it to its end; what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn ask(&self, url: &str, words: &str) -> Vec<f64> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg(url).args(words.split(' '));
        let output = command.output().expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{} {words}: {said}{}", self.name, String::from_utf8_lossy(&output.stderr));
        let line = said.lines().last().unwrap_or_default();
        line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    }
}
