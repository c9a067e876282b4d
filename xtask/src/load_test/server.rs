//! A server of our own: the release binary on a free port with a fresh data folder, gone at the end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::folder::Folder;
use crate::{shell, test};

/// A start takes milliseconds; beyond this something is wrong.
const START_MAX: Duration = Duration::from_secs(30);

/// The server drains within its own deadline of some seconds; beyond this it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A running server; dropping it stops it and removes its data.
pub(super) struct Server {
    /// `127.0.0.1:port`, the same after a restart.
    pub(super) address: String,
    binary: String,
    flags: Vec<String>,
    child: Child,
    // Removed last.
    folder: Folder,
}

impl Server {
    /// Builds the release server (or takes the program given), starts it with these flags beside its own and waits until
    /// it says that it listens.
    pub(super) fn start(binary: Option<&str>, flags: &[String]) -> Result<Self> {
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => {
                println!("load-test: building the server (release)");
                test::server_binary(true)?
            }
        };
        let folder = Folder::new("server")?;
        let (child, address) = launch(&binary, "127.0.0.1:0", flags, &folder)?;
        println!("load-test: started a server on {address}");
        Ok(Self { address, binary, flags: flags.to_vec(), child, folder })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), on the same address and data.
    pub(super) fn restart(&mut self) -> Result<()> {
        (self.child, _) = launch(&self.binary, &self.address, &self.flags, &self.folder)?;
        Ok(())
    }
}

fn launch(binary: &str, listen: &str, flags: &[String], folder: &Folder) -> Result<(Child, String)> {
    let path = folder.path().join("server.log");
    let log = File::options().create(true).append(true).open(&path)?;
    let mut child = Command::new(binary)
        .args(["--listen", listen, "--data"])
        .arg(folder.path().join("data"))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {binary}"))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let (sender, lines) = mpsc::channel();
    // Reads on to the end, so that the server never blocks on a full pipe.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    if let Some(address) = listening(&lines) {
        return Ok((child, address));
    }
    let _ = child.kill();
    let _ = child.wait();
    bail!("the server did not start; it said:\n{}", std::fs::read_to_string(path).unwrap_or_default());
}

impl Drop for Server {
    /// Asks for a drain, insists after [`STOP_MAX`].
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = shell::show(shell::command("kill", &["-TERM", &self.child.id().to_string()]));
        }
        let deadline = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
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
