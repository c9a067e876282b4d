//! The real server as a child process: started on a free port and its own data folder, restarted, killed, stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::binary::{Exit, clean, tidegate};
use crate::client::Client;
use crate::process::Process;

/// 60 s: a debug build on two busy cores, with a damaged or large data folder to read.
const START: Duration = Duration::from_secs(60);

/// The line that says the server is ready.
const READY: &str = "tidegate listening on http://";

/// How a server is to be started. Clones share the folder, so a clone started later sees the same data.
#[derive(Clone, Debug)]
pub struct Builder {
    folder: Arc<TempDir>,
    data: PathBuf,
    redis: Option<String>,
    listen: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: Option<String>,
    token: Option<String>,
    file_blocks_max: Option<u64>,
}

/// A server that accepts connections. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: SocketAddr,
    banner: String,
    builder: Builder,
}

impl Builder {
    /// Adds arguments after the ones the harness sets.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable; the rest of the environment is empty but for `PATH`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the server a configuration file with this TOML.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Lets the server listen here instead of `127.0.0.1:0`.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Uses this data folder instead of a fresh one.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.data);
        self
    }

    /// Keeps the jobs on this Redis instead of the data folder, which is then not even named.
    #[must_use]
    pub fn redis(mut self, url: &str) -> Self {
        self.redis = Some(url.to_owned());
        self
    }

    /// The token that [`Server::client`] presents.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Lets no file grow beyond this many blocks of 512 bytes (RLIMIT_FSIZE; the write fails with `EFBIG`), or lifts
    /// the limit.
    #[must_use]
    pub fn file_blocks_max(mut self, blocks: Option<u64>) -> Self {
        self.file_blocks_max = blocks;
        self
    }

    /// A folder of this server's own, removed with the last clone.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    #[must_use]
    pub fn data_folder(&self) -> &Path {
        &self.data
    }

    /// Starts and waits until the server says it listens.
    ///
    /// # Panics
    /// When it ends or stays silent instead.
    pub async fn start(&self) -> Server {
        match self.try_start().await {
            Ok(server) => server,
            Err(exit) => panic!("the server did not start, exit code {:?}:\n{}", exit.code, exit.said()),
        }
    }

    /// Starts; `Err` holds what it said when it ended without listening.
    ///
    /// # Panics
    /// When it neither listens nor ends within 60 s.
    pub async fn try_start(&self) -> Result<Server, Exit> {
        let mut process = Process::start(self.command());
        let Some(banner) = process.line(READY, START).await else {
            let code = process.wait(START).await.code();
            return Err(Exit { code, stdout: String::new(), stderr: process.said() });
        };
        let address = banner.split(READY).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        let address = address.parse().unwrap_or_else(|_| panic!("no address in the ready line: {banner}"));
        Ok(Server { process, address, banner, builder: self.clone() })
    }

    /// Starts a server that is expected to refuse.
    ///
    /// # Panics
    /// When it listens after all.
    pub async fn refusal(&self) -> Exit {
        match self.try_start().await {
            Ok(server) => panic!("the server started although it must refuse: {}", server.banner),
            Err(exit) => exit,
        }
    }

    fn command(&self) -> Command {
        let mut command = match self.file_blocks_max {
            None => clean(tidegate().as_os_str()),
            Some(blocks) => {
                // With XFSZ ignored the write fails with EFBIG instead of killing the process; `exec` keeps the pid.
                let mut shell = clean("sh".as_ref());
                shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]).arg(tidegate());
                shell
            }
        };
        command.arg("serve").arg("--listen").arg(&self.listen);
        match &self.redis {
            Some(url) => command.arg("--redis").arg(url),
            None => command.arg("--data").arg(&self.data),
        };
        if let Some(toml) = &self.config {
            let file = self.folder().join("tidegate.toml");
            std::fs::write(&file, toml).expect("the temporary folder is writable");
            command.arg("--config").arg(file);
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder());
        command
    }
}

impl Server {
    /// A builder with a fresh folder, a free port of 127.0.0.1 and the defaults otherwise.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn builder() -> Builder {
        let folder = TempDir::with_prefix("tidegate-").expect("a temporary folder can be made");
        let data = folder.path().join("data");
        Builder {
            folder: Arc::new(folder),
            data,
            redis: None,
            listen: "127.0.0.1:0".to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            config: None,
            token: None,
            file_blocks_max: None,
        }
    }

    /// A server with all defaults on a fresh folder.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://…` without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The line it printed when it was ready.
    #[must_use]
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// How it was started; start it again for the same data.
    #[must_use]
    pub fn rebuilder(&self) -> Builder {
        self.builder.clone()
    }

    /// A client with its own connections, presenting the builder's token.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address, self.builder.token.as_deref())
    }

    /// A client that presents another token, or none.
    #[must_use]
    pub fn client_with(&self, token: Option<&str>) -> Client {
        Client::new(self.address, token)
    }

    /// The process, for signals and figures.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `kill -9`; returns the builder to start it again with.
    pub async fn kill(mut self) -> Builder {
        self.process.kill().await;
        self.builder.clone()
    }

    /// SIGTERM, and waits for the clean end.
    ///
    /// # Panics
    /// When it does not end within 60 s, or not with exit code 0.
    pub async fn stop(mut self) -> Builder {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(START).await;
        assert_eq!(status.code(), Some(0), "a drained server ends with 0; it said:\n{}", self.process.said());
        self.builder.clone()
    }
}
