//! A Redis of our own: on a free port, with the persistence asked for, killed and started again on demand.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::folder::Folder;
use super::pace::wait_until;
use super::resp::Connection;
use crate::needs;

/// A start takes milliseconds, and seconds with a large file to read; beyond this something is wrong.
const START_MAX: Duration = Duration::from_secs(30);

/// What Redis writes to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    None,
    EverySecond,
    Always,
}

impl FromStr for Persistence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "everysec" => Ok(Self::EverySecond),
            "always" => Ok(Self::Always),
            _ => Err("it is none, everysec or always".to_owned()),
        }
    }
}

/// A running Redis; dropping it kills it and removes its data.
pub(super) struct Redis {
    pub(super) port: u16,
    persistence: Persistence,
    program: String,
    child: Child,
    folder: Folder,
}

impl Redis {
    pub(super) fn start(persistence: Persistence) -> Result<Self> {
        needs::ensure(&[needs::REDIS])?;
        let program = needs::path_of(&needs::REDIS).context("redis-server is gone")?;
        let folder = Folder::new("redis")?;
        let port = free_port()?;
        let child = launch(&program, port, persistence, &folder)?;
        let redis = Self { port, persistence, program, child, folder };
        redis.wait()?;
        println!("load-test: started a Redis on port {port} ({})", redis.described());
        Ok(redis)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn described(&self) -> &'static str {
        match self.persistence {
            Persistence::None => "no persistence",
            Persistence::EverySecond => "AOF everysec",
            Persistence::Always => "AOF always",
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn connect(&self) -> Result<Connection> {
        Connection::open(self.port).context("cannot connect to our Redis")
    }

    /// Ends it as a power cut would, but for what the kernel still writes.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and data; returns when it answers.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.child = launch(&self.program, self.port, self.persistence, &self.folder)?;
        self.wait()
    }

    /// The length of the log that grows now; what is cut to it later was written since.
    pub(super) fn log_length(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.log()?)?.len())
    }

    /// Takes the end off the log of a killed Redis, as a power cut does; tells how many bytes went.
    pub(super) fn truncate(&self, length: u64) -> Result<u64> {
        let file = File::options().write(true).open(self.log()?)?;
        let before = file.metadata()?.len();
        file.set_len(length.min(before))?;
        Ok(before.saturating_sub(length))
    }

    /// Redis 7 keeps a folder of files, of which the newest `incr` grows; before, there was one file.
    fn log(&self) -> Result<PathBuf> {
        let newest = |folder: &str| {
            let files = std::fs::read_dir(self.folder.path().join(folder)).ok()?;
            let logs = files.filter_map(|file| Some(file.ok()?.path())).filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(".incr.aof") || name == "appendonly.aof"
            });
            logs.max_by_key(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
        };
        newest("appendonlydir").or_else(|| newest(".")).context("our Redis keeps no append-only file")
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let answer = Connection::open(self.port).and_then(|mut connection| connection.ask(&["PING"]));
            match answer {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < deadline => wait_until(Instant::now() + Duration::from_millis(5)),
                Err(error) => {
                    let log = std::fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default();
                    bail!("our Redis does not answer: {error}; it said:\n{log}");
                }
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(program: &str, port: u16, persistence: Persistence, folder: &Folder) -> Result<Child> {
    let (append_only, fsync) = match persistence {
        Persistence::None => ("no", "no"),
        Persistence::EverySecond => ("yes", "everysec"),
        Persistence::Always => ("yes", "always"),
    };
    let log = File::options().create(true).append(true).open(folder.path().join("redis.log"))?;
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder.path())
        .args(["--appendonly", append_only, "--appendfsync", fsync, "--daemonize", "no"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

/// A port nobody listens on now.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
