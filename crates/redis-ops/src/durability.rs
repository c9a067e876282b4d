//! What this Redis really promises about acknowledged writes.

/// What survives a `kill -9` or a power cut of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Append-only file, synced before each answer: nothing acknowledged is lost.
    Always,
    /// Append-only file, synced every second: up to about one second of acknowledged writes is lost.
    EverySecond,
    /// Snapshots (or a file that is synced when the system likes): everything since the last one is lost.
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

    /// Of several servers the weakest promise counts; one that is unknown makes the whole unknown.
    pub(crate) fn weaker(self, other: Self) -> Self {
        let rank = |durability| match durability {
            Self::Always => 0,
            Self::EverySecond => 1,
            Self::Snapshots => 2,
            Self::None => 3,
            Self::Unknown => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}
