//! One private Redis.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::connection::{Connection, Reply};
use crate::port::Port;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::settings::{Builder, CA, Role, SOCKET, USER};
use crate::{wait, watchdog};

/// 60 s: a start takes 20 ms, reading back an append-only file of a gigabyte half a minute.
const START: Duration = Duration::from_secs(60);

/// Reserved ports are taken by strangers only; the tenth in a row is no accident.
const PORTS_TRIED: usize = 10;

/// A Redis of your own: its folder, port and process go with it. All methods take `&self`, so it may be shared.
#[derive(Debug)]
pub struct Server {
    builder: Builder,
    process: Mutex<Process>,
    /// Calls made by the harness since the process started, by command; left out of what it reports.
    own_calls: Mutex<BTreeMap<String, u64>>,
    socket: PathBuf,
    port: Port,
    /// Last, so that it is removed after the process is gone.
    folder: TempDir,
}

impl Server {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Panics
    /// When there is no Redis to be found, or it does not start.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Settings, then [`Builder::start`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new(Role::Standalone)
    }

    pub(crate) async fn started(builder: Builder) -> Self {
        for _ in 0..PORTS_TRIED {
            let server = Self::launched(builder.clone());
            match server.ready().await {
                Ok(()) => return server,
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("redis does not start; its log ends with:\n{log}"),
            }
        }
        panic!("{PORTS_TRIED} ports in a row were taken by others");
    }

    fn launched(builder: Builder) -> Self {
        let folder = tempfile::Builder::new().prefix("tidegate-redis-").tempdir().expect("a temporary folder");
        watchdog::folder(folder.path());
        let port = Port::reserve();
        builder.write_files(folder.path(), &config_of(&folder), port.number());
        let process = Mutex::new(Process::start(folder.path(), arguments(&builder)));
        let socket = folder.path().join(SOCKET);
        Self { builder, process, own_calls: Mutex::default(), socket, port, folder }
    }

    /// Waits until it answers PING, its data loaded; else the end of its log.
    async fn ready(&self) -> Result<(), String> {
        let outcome = wait::until(START, || async {
            if self.process().has_ended() {
                return Some(Err(self.log()));
            }
            matches!(self.try_command(&["PING"]).await, Ok(Reply::Text(_))).then_some(Ok(()))
        });
        outcome.await.unwrap_or_else(|| Err(format!("no answer within {START:?}\n{}", self.log())))
    }

    /// Port on 127.0.0.1; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Address of its port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// `redis://127.0.0.1:port`; `rediss://` with TLS, with the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// As [`url`](Self::url), but through `proxy`.
    #[must_use]
    pub fn url_through(&self, proxy: &Proxy) -> String {
        self.url_at(proxy.addr())
    }

    /// As [`url`](Self::url), but for a user of [`Builder::acl`].
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("{}://{user}:{password}@{}", self.scheme(), self.addr())
    }

    fn url_at(&self, addr: SocketAddr) -> String {
        let password = self.builder.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{}://{password}{addr}", self.scheme())
    }

    fn scheme(&self) -> &'static str {
        if self.builder.tls { "rediss" } else { "redis" }
    }

    /// Path of its unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Certificate of the authority that signed the server's (PEM), for [`Builder::tls`].
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join(CA)
    }

    /// Its working folder: append-only file, configuration `redis.conf`, log `redis.log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process().last_words()
    }

    /// Number of its process; another one after a restart.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Whether its process runs, be it paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.process().has_ended()
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// A clean end (SIGTERM).
    ///
    /// # Panics
    /// When it does not end within 60 s.
    pub async fn stop(&self) {
        self.resume();
        self.process().signal(Signal::TERM);
        wait::until_true("redis stops", START, async || !self.is_running()).await;
    }

    /// Starts it again in its folder and on its port, after a clean [`stop`](Self::stop) if it runs. Waits until its
    /// data is loaded and it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&self) {
        if self.is_running() {
            self.stop().await;
        }
        lock(&self.own_calls).clear();
        *self.process() = Process::start(self.folder.path(), arguments(&self.builder));
        if let Err(log) = self.ready().await {
            panic!("redis does not start again; its log ends with:\n{log}");
        }
    }

    /// Freezes it (SIGSTOP): connections stay, nothing answers. Until [`resume`](Self::resume) no command below returns.
    pub fn pause(&self) {
        self.process().signal(Signal::STOP);
    }

    /// Wakes it after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    /// A connection over the unix socket as a user who may do everything.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn connect(&self) -> io::Result<Connection> {
        let mut connection = Connection::unix(&self.socket).await?;
        self.called(&["AUTH"]);
        match connection.command(&["AUTH", USER, USER]).await? {
            Reply::Error(error) => Err(io::Error::other(error)),
            _ => Ok(connection),
        }
    }

    /// Sends one command on a connection of its own, as a user who may do everything.
    ///
    /// # Panics
    /// When the server is gone or answers nothing for 30 s. A refusal is a [`Reply::Error`].
    pub async fn command<A: AsRef<[u8]>>(&self, words: &[A]) -> Reply {
        self.try_command(words).await.unwrap_or_else(|error| panic!("redis at {} is gone: {error}", self.addr()))
    }

    /// As [`command`](Self::command) for a server that may be gone.
    ///
    /// # Errors
    /// Whatever broke.
    pub async fn try_command<A: AsRef<[u8]>>(&self, words: &[A]) -> io::Result<Reply> {
        let mut connection = self.connect().await?;
        let reply = connection.command(words).await?;
        // Commands refused because of the state of the server are not counted by it either.
        if !reply.is_error("LOADING") {
            self.called(words);
        }
        Ok(reply)
    }

    /// Sends one command and shows its reply as text, lists one item per line, like `redis-cli`.
    ///
    /// # Panics
    /// When the server is gone or refuses the command.
    pub async fn cli<A: AsRef<[u8]>>(&self, words: &[A]) -> String {
        let reply = self.command(words).await;
        assert!(!reply.is_error(""), "{:?}: {reply}", words.iter().map(shown).collect::<Vec<_>>());
        reply.to_string()
    }

    /// How many commands it has executed since its start, but for those of this harness (connections from
    /// [`connect`](Self::connect) count as yours).
    pub async fn commands_processed(&self) -> u64 {
        // INFO is counted after it was answered, so the calls to subtract are those before it.
        let mut connection = self.connect().await.expect("redis is here");
        let own: u64 = lock(&self.own_calls).values().sum();
        let info = connection.command(&["INFO", "stats"]).await.expect("redis answers").to_string();
        self.called(&["INFO"]);
        info_number(&info, "total_commands_processed").saturating_sub(own)
    }

    /// How often each command was executed since the start, but for those of this harness; names as in
    /// `INFO commandstats`: `set`, `client|setname`.
    pub async fn commands_by_name(&self) -> BTreeMap<String, u64> {
        let mut connection = self.connect().await.expect("redis is here");
        let mut own = lock(&self.own_calls).clone();
        let info = connection.command(&["INFO", "commandstats"]).await.expect("redis answers").to_string();
        self.called(&["INFO"]);
        let calls = info.lines().filter_map(|line| {
            let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls: u64 = stats.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls - own.remove(name).unwrap_or(0).min(calls)))
        });
        calls.filter(|(_, calls)| *calls > 0).collect()
    }

    /// Bytes its data and buffers take (`used_memory`).
    pub async fn used_memory(&self) -> u64 {
        info_number(&self.cli(&["INFO", "memory"]).await, "used_memory")
    }

    /// Cuts every client's connection, subscribers included; tells how many.
    pub async fn client_kill_all(&self) -> u64 {
        let mut killed = 0;
        for kind in ["normal", "pubsub"] {
            let reply = self.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
            killed += reply.int().unsigned_abs();
        }
        killed
    }

    fn called<A: AsRef<[u8]>>(&self, words: &[A]) {
        let lower = |word: &A| String::from_utf8_lossy(word.as_ref()).to_ascii_lowercase();
        let name = words.iter().take(2).map(lower).collect::<Vec<_>>();
        let is_container = name.first().is_some_and(|first| CONTAINERS.contains(&first.as_str()));
        let name = if is_container { name.join("|") } else { name.into_iter().next().unwrap_or_default() };
        *lock(&self.own_calls).entry(name).or_default() += 1;
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }
}

/// Commands whose parts are counted apart.
const CONTAINERS: [&str; 8] = ["acl", "client", "cluster", "config", "memory", "object", "script", "xinfo"];

fn arguments(builder: &Builder) -> &'static [&'static str] {
    if builder.role == Role::Sentinel { &["redis.conf", "--sentinel"] } else { &["redis.conf"] }
}

fn config_of(folder: &TempDir) -> PathBuf {
    folder.path().join("redis.conf")
}

/// The number at `name:` in the answer of INFO.
pub(crate) fn info_number(info: &str, name: &str) -> u64 {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("INFO holds no number {name}"))
}

fn shown(word: &impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(word.as_ref()).into_owned()
}

/// Nothing here leaves a half-changed value behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
