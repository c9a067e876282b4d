//! What a server is started with, and its configuration file.

use std::fmt::Write as _;
use std::path::Path;

use crate::server::Server;

/// The harness speaks through a user of its own, so that no password, ACL or TLS of a test locks it out.
pub(crate) const USER: &str = "harness";

/// Name of the unix socket in the server's folder.
pub(crate) const SOCKET: &str = "redis.sock";

/// A certificate for 127.0.0.1 and localhost, for both ends of a connection (cluster nodes ask each other for one),
/// valid from 2020 to 2119, and the authority that signed it (whose key was thrown away). Made once by the `openssl`
/// program: a library for it would cost fifteen dependencies.
const TLS_FILES: [(&str, &str); 3] = [
    (CA, include_str!("../fixtures/ca.crt")),
    ("server.crt", include_str!("../fixtures/server.crt")),
    ("server.key", include_str!("../fixtures/server.key")),
];

/// Name of the authority's certificate in the server's folder.
pub(crate) const CA: &str = "ca.crt";

/// What a server keeps over its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Persistence {
    /// Nothing.
    #[default]
    None,
    /// The append-only file.
    Aof(Fsync),
}

/// When the append-only file reaches the disk. Death of the process alone loses nothing that was answered; the
/// difference is a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer.
    Always,
    /// Once a second.
    EverySecond,
    /// When the system likes.
    No,
}

/// How the program is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Standalone,
    ClusterNode,
    Sentinel,
}

/// Settings of a [`Server`] to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(crate) role: Role,
    pub(crate) tls: bool,
    pub(crate) password: Option<String>,
    persistence: Persistence,
    users: Vec<String>,
    lines: Vec<String>,
}

impl Builder {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, tls: false, password: None, persistence: Persistence::None, users: Vec::new(), lines: Vec::new() }
    }

    /// What it keeps over its death; nothing by default.
    #[must_use]
    pub fn persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// Bound on its memory, in bytes; what happens at the bound is `maxmemory-policy`, `noeviction` by default.
    #[must_use]
    pub fn maxmemory(self, bytes: u64) -> Self {
        self.config(format!("maxmemory {bytes}"))
    }

    /// TLS on its port instead of plain text; the authority to trust is [`Server::ca`], client certificates are not
    /// asked for.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// A user beside `default`: `app on >secret ~jobs:* &* +@read`, as after `ACL SETUSER`. `default off` closes the
    /// door for everybody else.
    #[must_use]
    pub fn acl(mut self, user_and_rules: impl Into<String>) -> Self {
        self.users.push(user_and_rules.into());
        self
    }

    /// Password of the user `default`; [`Server::url`] holds it. Letters and digits only.
    #[must_use]
    pub fn requirepass(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// One more line of the configuration file; it wins over what came before.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Makes it a cluster node that knows no other and serves no slot. A whole one is a [`Cluster`](crate::Cluster).
    #[must_use]
    pub fn cluster_enabled(mut self) -> Self {
        self.role = Role::ClusterNode;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    /// When there is no Redis to be found, or it does not start; with the end of its log.
    pub async fn start(self) -> Server {
        Server::started(self).await
    }

    /// Writes what the server reads at its start into its folder.
    pub(crate) fn write_files(&self, folder: &Path, config: &Path, port: u16) {
        let write = |path: &Path, text: &str| std::fs::write(path, text).expect("a fresh folder can be written");
        for (name, text) in TLS_FILES.iter().filter(|_| self.tls) {
            write(&folder.join(name), text);
        }
        write(config, &self.config_text(folder, port));
    }

    fn config_text(&self, folder: &Path, port: u16) -> String {
        let socket = folder.join(SOCKET);
        let mut text = format!(
            "bind 127.0.0.1\ndir \"{}\"\nunixsocket \"{}\"\nuser {USER} on >{USER} ~* &* +@all\n",
            folder.display(),
            socket.display()
        );
        let mut add = |line: &str| writeln!(text, "{line}").expect("a string takes all");
        if self.tls {
            add("port 0");
            add(&format!("tls-port {port}"));
            add("tls-ca-cert-file ca.crt\ntls-cert-file server.crt\ntls-key-file server.key\ntls-auth-clients no");
            add("tls-replication yes\ntls-cluster yes");
        } else {
            add(&format!("port {port}"));
        }
        if self.role != Role::Sentinel {
            self.users.iter().for_each(|user| add(&format!("user {user}")));
            add(persistence_lines(self.persistence));
            add(&format!("masteruser {USER}\nmasterauth {USER}"));
        }
        if self.role == Role::ClusterNode {
            add("cluster-enabled yes");
        }
        if let Some(password) = &self.password {
            add(&format!("requirepass {password}"));
        }
        self.lines.iter().for_each(|line| add(line));
        text
    }
}

fn persistence_lines(persistence: Persistence) -> &'static str {
    match persistence {
        Persistence::None => "save \"\"\nappendonly no",
        Persistence::Aof(Fsync::Always) => "save \"\"\nappendonly yes\nappendfsync always",
        Persistence::Aof(Fsync::EverySecond) => "save \"\"\nappendonly yes\nappendfsync everysec",
        Persistence::Aof(Fsync::No) => "save \"\"\nappendonly yes\nappendfsync no",
    }
}
