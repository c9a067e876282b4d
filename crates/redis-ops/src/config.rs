//! Which Redis, and every bound of the link to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::breaker::BreakerConfig;
use crate::url;

/// Which Redis and how. [`Config::parse`] reads a URL; the other fields have defaults that suit most.
///
/// `Debug` and `Display` never show a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How Redis is laid out and where.
    pub topology: Topology,
    /// The ACL user; none: `default`.
    pub username: Option<String>,
    /// The password; none: no `AUTH` is sent.
    pub password: Option<Password>,
    /// The database number; 0 in a cluster.
    pub database: u32,
    /// Whether and whom to trust for TLS; none: plain.
    pub tls: Option<TlsConfig>,

    /// General connections, per node in a cluster. 2: four gave nothing more; bounded by `pool_min` and `pool_max`.
    pub connections: usize,
    /// At least this many general connections (`REDIS_POOL_MIN`). 2.
    pub pool_min: usize,
    /// At most this many general connections (`REDIS_POOL_MAX`). 10.
    pub pool_max: usize,
    /// How long a call waits for a link that is just being renewed before it fails as not sent. 100 ms: a first
    /// reconnect takes a few.
    pub grace: Duration,
    /// When a reply counts as lost. 5 s; kept to within a twentieth.
    pub command_timeout: Duration,
    /// How long opening one connection may take, login and all. 2 s.
    pub connect_timeout: Duration,
    /// Wait before the second attempt to reconnect (the first is made at once), doubled after each. 20 ms.
    pub reconnect_min: Duration,
    /// The longest wait between attempts to reconnect. 2 s: a Redis that is back is used soon.
    pub reconnect_max: Duration,
    /// An idle general connection is asked for a sign of life this often (`REDIS_POOL_HEALTH_CHECK_INTERVAL`). 15 s.
    pub health_check_interval: Duration,
    /// Requests that may wait for their replies on one connection; more are refused. 32 768.
    pub commands_max: usize,
    /// When the circuit breaker opens.
    pub breaker: BreakerConfig,

    /// The subscriber connection is asked for a sign of life this often; it is given up when none came for twice as
    /// long. 1 s: a half-open link is noticed within 3 s.
    pub subscriber_keep_alive: Duration,
    /// Messages a subscription holds for a slow reader. 1024; beyond it gets [`Signal::Missed`](crate::Signal::Missed).
    pub messages_max: usize,

    /// Connections for blocking reads (`REDIS_BLOCKING_POOL_*`).
    pub blocking_pool: PoolConfig,
    /// The cached list of streams (`REDIS_REGISTRY_*`).
    pub registry: RegistryConfig,
}

/// How Redis is laid out and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server. If it says that it is part of a cluster, the whole cluster is used.
    Standalone {
        /// Where it listens.
        address: Address,
    },
    /// One server over a unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
    },
    /// Whom Sentinels call the primary of a service.
    Sentinel {
        /// The Sentinels.
        addresses: Vec<Address>,
        /// The name of the service.
        service: String,
        /// The ACL user on the Sentinels.
        username: Option<String>,
        /// The password on the Sentinels.
        password: Option<Password>,
    },
    /// A cluster.
    Cluster {
        /// Some of its nodes; the others are asked for.
        addresses: Vec<Address>,
    },
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Whom to trust for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// A PEM file of certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Bounds of the pool for blocking reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections kept open. 5.
    pub min: usize,
    /// Connections open at most. 50.
    pub max: usize,
    /// How long a caller waits for a free one. 5 s.
    pub acquire_timeout: Duration,
    /// When an unused one is closed. 60 s.
    pub idle_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { min: 5, max: 50, acquire_timeout: Duration::from_secs(5), idle_timeout: Duration::from_secs(60) }
    }
}

/// The cached list of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// How often it is renewed. 30 s.
    pub refresh_interval: Duration,
    /// When an old list is no longer used. 60 s.
    pub cache_expiry: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { refresh_interval: Duration::from_secs(30), cache_expiry: Duration::from_secs(60) }
    }
}

/// A setting that cannot be used. It never shows what was given: there may be a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use the Redis URL: {0}; accepted are {ACCEPTED}")]
pub struct ConfigError(pub(crate) &'static str);

const ACCEPTED: &str = "redis[s]://[user:password@]host[:port][/database], redis+unix:///path[?db=N], \
     redis[s]-sentinel://[user:password@]host[:port],…/service[/database], redis[s]-cluster://[user:password@]host[:port],…; \
     each with ?ca=/path/to/certificates.pem where it is TLS";

impl Config {
    /// Reads a URL; see the crate's documentation for its forms. Percent-encoding is undone in user, password, path and
    /// parameters. Errors name what is accepted and never show credentials.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        url::parse(url)
    }

    /// The defaults for a topology.
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            username: None,
            password: None,
            database: 0,
            tls: None,
            connections: 2,
            pool_min: 2,
            pool_max: 10,
            grace: Duration::from_millis(100),
            command_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_secs(2),
            health_check_interval: Duration::from_secs(15),
            commands_max: 32_768,
            breaker: BreakerConfig::default(),
            subscriber_keep_alive: Duration::from_secs(1),
            messages_max: 1024,
            blocking_pool: PoolConfig::default(),
            registry: RegistryConfig::default(),
        }
    }

    /// General connections within the bounds of the pool; at least one.
    pub fn general_connections(&self) -> usize {
        self.connections.max(self.pool_min).min(self.pool_max).max(1)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls.is_some() { "s" } else { "" };
        let login = if self.password.is_some() { "<redacted>@" } else { "" };
        let list = |addresses: &[Address]| {
            let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        match &self.topology {
            Topology::Standalone { address } => write!(f, "redis{secure}://{login}{address}/{}", self.database),
            Topology::Unix { path } => write!(f, "redis+unix://{login}{}?db={}", path.display(), self.database),
            Topology::Sentinel { addresses, service, .. } => {
                write!(f, "redis{secure}-sentinel://{login}{}/{service}/{}", list(addresses), self.database)
            }
            Topology::Cluster { addresses } => write!(f, "redis{secure}-cluster://{login}{}", list(addresses)),
        }
    }
}
