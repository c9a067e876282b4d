//! What this Redis really promises about acknowledged writes.

/// What survives a `kill -9` or a power cut of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Append-only file, synced before each answer: nothing acknowledged is lost.
    Always,
    /// Append-only file, synced every second: up to about one second of acknowledged writes is lost.
    EverySecond,
    /// Snapshots only: everything since the last one is lost, minutes usually.
    Snapshots,
    /// Neither: a restart begins empty.
    None,
    /// Not to be learnt with our permissions.
    Unknown,
}

impl Durability {
    /// As shown in readiness, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::Snapshots => "snapshots",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}
