//! What can break, and whose part it is to break it.

/// One thing that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process's connections end.
    Cut,
    /// They are reset.
    Reset,
    /// One of them ends at some byte of what is on the way.
    CutAtByte,
    /// Bytes are late in one direction or both: what one process hears first another hears last.
    Delay,
    /// Bytes are lost without a sign, in one direction or both.
    Blackhole,
    /// Bytes stand still, and arrive all at once.
    Stall,
    /// One direction ends, the other goes on.
    HalfClose,
    /// Connections end and cannot be opened again for a while.
    Refuse,
    /// The line is slow: a subscriber that lags.
    Throttle,

    /// Redis dies (`kill -9`) and comes back with what it has on disk, which may be nothing.
    Restart,
    /// It comes back without the last part of what it acknowledged, where it keeps anything.
    RestartTailLost,
    /// `FLUSHALL`.
    Flush,
    /// Somebody deletes the value of a key with `DEL`.
    ForeignDelete,
    /// `CLIENT KILL` of all.
    KillClients,
    /// `CLIENT PAUSE`.
    PauseClients,
    /// Redis stands still (SIGSTOP).
    FreezeRedis,
    /// Thousands of keys of the cache's prefix change at once, or one after the other.
    MassInvalidation,
    /// `maxmemory` is reached and `allkeys-lru` evicts.
    Evict,

    /// A process stands still (SIGSTOP).
    FreezeNode,
    /// A process dies (`kill -9`), and another takes its place.
    KillNode,
}

/// Who breaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    Network,
    Redis,
    Nodes,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Cut,
        Self::Reset,
        Self::CutAtByte,
        Self::Delay,
        Self::Blackhole,
        Self::Stall,
        Self::HalfClose,
        Self::Refuse,
        Self::Throttle,
        Self::Restart,
        Self::RestartTailLost,
        Self::Flush,
        Self::ForeignDelete,
        Self::KillClients,
        Self::PauseClients,
        Self::FreezeRedis,
        Self::MassInvalidation,
        Self::Evict,
        Self::FreezeNode,
        Self::KillNode,
    ];

    pub(super) fn hand(self) -> Hand {
        match self {
            Self::FreezeNode | Self::KillNode => Hand::Nodes,
            Self::Restart
            | Self::RestartTailLost
            | Self::Flush
            | Self::ForeignDelete
            | Self::KillClients
            | Self::PauseClients
            | Self::FreezeRedis
            | Self::MassInvalidation
            | Self::Evict => Hand::Redis,
            _ => Hand::Network,
        }
    }
}
