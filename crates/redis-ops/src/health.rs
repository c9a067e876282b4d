//! How the link is, in one read.

use std::fmt;

use crate::breaker::BreakerState;
use crate::durability::Durability;

/// Something an operator should change. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Redis may throw away keys to stay below `maxmemory`; jobs among them.
    Evicting {
        /// What `maxmemory-policy` says.
        policy: String,
    },
    /// More than the last second of acknowledged writes can be lost.
    WeakDurability(Durability),
    /// The settings of Redis cannot be read with our permissions.
    Unreadable {
        /// The error of `CONFIG GET`.
        code: String,
    },
}

impl Warning {
    /// A short name for metrics and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Evicting { .. } => "evicting",
            Self::WeakDurability(_) => "weak_durability",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicting { policy } => {
                write!(f, "Redis may throw jobs away: maxmemory-policy is {policy}, set it to noeviction.")
            }
            Self::WeakDurability(Durability::Snapshots) => f.write_str(
                "A crash of Redis loses every write since its last snapshot: set appendonly to yes and appendfsync to \
                 everysec or always.",
            ),
            Self::WeakDurability(_) => f.write_str("A restart of Redis begins empty: set appendonly to yes."),
            Self::Unreadable { code } => write!(
                f,
                "What Redis promises about acknowledged writes is unknown: CONFIG GET answers {code}, allow +config|get."
            ),
        }
    }
}

/// How the link is right now.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Whether at least one general connection is up.
    pub connected: bool,
    /// Where the breaker stands.
    pub breaker: BreakerState,
    /// What went wrong last on the link, without credentials.
    pub last_error: Option<String>,
    /// What an operator should change.
    pub warnings: Vec<Warning>,
    /// `redis 7.0.15` or `valkey 8.0.1`.
    pub version: String,
    /// `standalone`, `sentinel`, `cluster` or `unix`.
    pub topology: &'static str,
    /// What survives a crash of Redis.
    pub durability: Durability,
}
