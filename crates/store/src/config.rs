//! The settings of a store.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On the disk (`fdatasync`) before the answer: survives power loss.
    #[default]
    Sync,
    /// Handed to the operating system before the answer, on the disk within a second: survives `kill -9`, and loses
    /// at most the last second when the machine stops.
    EverySecond,
    /// Nowhere but in memory; for tests.
    Memory,
}

impl Durability {
    /// The name used in settings and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::EverySecond => "everysec",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The settings of a store on disk.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder; made when absent.
    pub path: PathBuf,
    /// What an acknowledgement promises. [`Durability::Memory`] here still uses the folder, without any sync.
    pub durability: Durability,
    /// Growth is refused while the file system has fewer free bytes than this. 64 MiB: room for the journal to be
    /// rotated and for work in progress to be finished and deleted, so a full disk is left by working on.
    pub reserve_bytes: u64,
    /// Bytes waiting for the disk at most, beyond which growth is refused (256 MiB).
    pub pending_max: usize,
    /// Read cache of the engine in bytes (32 MiB).
    pub cache_bytes: u64,
    /// In-memory write buffer per table in bytes (32 MiB); a full one is written out as a sorted file.
    pub buffer_bytes: u64,
    /// Accept that acknowledged records are gone or damaged: what is unreadable is set aside in the data folder.
    pub repair: bool,
}

impl Config {
    /// Defaults for this folder.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::Sync,
            reserve_bytes: 64 << 20,
            pending_max: 256 << 20,
            cache_bytes: 32 << 20,
            buffer_bytes: 32 << 20,
            repair: false,
        }
    }
}

/// A second at most between a write and its sync under [`Durability::EverySecond`].
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);
