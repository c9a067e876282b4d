//! How the link is, in one read.

use crate::durability::Durability;

/// Where the breaker stands; its number is what the gauge shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Commands go out.
    Closed = 0,
    /// One command tries.
    HalfOpen = 1,
    /// Commands are refused at once.
    Open = 2,
}

/// Something an operator should change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Redis may throw away keys to stay below `maxmemory`; jobs among them.
    Evicting {
        /// What `maxmemory-policy` says.
        policy: String,
    },
    /// Acknowledged writes can be lost.
    WeakDurability(Durability),
    /// Not to be learnt, and why.
    Unreadable(String),
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
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
