//! A server of our own: the release binary on a free port with a fresh data folder, gone at the end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{shell, stamp, test};

/// A start takes milliseconds; beyond this something is wrong.
const START_MAX: Duration = Duration::from_secs(30);

/// The server drains within its own deadline of some seconds; beyond this it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A running server; dropping it stops it and removes its data.
pub(super) struct Server {
    /// `127.0.0.1:port`.
    pub(super) address: String,
    process: Process,
}

struct Process {
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Builds the release server, starts it and waits until it says that it listens.
    pub(super) fn start() -> Result<Self> {
        println!("load-test: building the server (release)");
        let binary = test::server_binary(true)?;
        // Under the target folder, because the folder for temporary files is often memory and would flatter.
        let folder = Workspace::members()?.target.join("load-test").join(stamp::now());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = File::create(folder.join("server.log"))?;
        let mut child = Command::new(&binary)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {binary}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let process = Process { child, folder };
        let (sender, lines) = mpsc::channel();
        // Reads on to the end, so that the server never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        match listening(&lines) {
            Some(address) => {
                println!("load-test: started a server on {address}");
                Ok(Self { address, process })
            }
            None => bail!("the server did not start; it said:\n{}", process.log()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.stop();
    }
}

impl Process {
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// Asks for a drain, insists after [`STOP_MAX`].
    fn stop(&mut self) {
        let _ = shell::show(shell::command("kill", &["-TERM", &self.child.id().to_string()]));
        let deadline = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The address in `tidegate listening on http://ADDRESS (…)`.
fn listening(lines: &mpsc::Receiver<String>) -> Option<String> {
    let deadline = Instant::now() + START_MAX;
    loop {
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        if let Some((_, address)) = line.split_once("listening on http://") {
            return address.split_whitespace().next().map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_line_that_says_ready() {
        let (sender, lines) = mpsc::channel();
        sender.send("something else".to_owned()).unwrap();
        sender.send("tidegate listening on http://127.0.0.1:4711 (embedded, durability: sync)".to_owned()).unwrap();
        assert_eq!(listening(&lines).as_deref(), Some("127.0.0.1:4711"));
        drop(sender);
        assert_eq!(listening(&lines), None, "a server that ended is not listening");
    }
}
