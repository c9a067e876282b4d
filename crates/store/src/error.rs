//! What can go wrong with a store, as facts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a call to the store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has the data folder open.
    #[error("data folder {path} is in use by {by}")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The other process, as it wrote itself down.
        by: String,
    },
    /// Something in the data folder cannot be read.
    #[error(
        "{place} is damaged: {detail}. Restore the data folder from a backup, or start once with --repair to set the damage aside"
    )]
    Damaged {
        /// File and offset, as far as known.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// Something in the data folder cannot be read, and `--repair` cannot help.
    #[error("{place} is damaged: {detail}. --repair cannot mend this file; restore the data folder from a backup")]
    Broken {
        /// The file.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// Records that were acknowledged as durable are not there any more.
    #[error("acknowledged writes {} to {acknowledged} are missing from {place}: {detail}. Restore the data folder from a backup, or start once with --repair to accept the loss", found + 1)]
    Lost {
        /// The last write that was acknowledged as durable.
        acknowledged: u64,
        /// The last write that is there.
        found: u64,
        /// The file that should hold them.
        place: String,
        /// What is known about the reason.
        detail: String,
    },
    /// The file system is nearly full; nothing new is taken until there is room.
    #[error("disk is full: {free} bytes free, {reserve} are kept in reserve")]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// The reserve.
        reserve: u64,
    },
    /// More is waiting for the disk than may wait.
    #[error("{pending} bytes wait for the disk, {limit} may")]
    Overloaded {
        /// Bytes waiting.
        pending: usize,
        /// The bound.
        limit: usize,
    },
    /// A write failed; the store takes no more until the process is started again, so nothing is acknowledged that
    /// may not be there.
    #[error("store stopped after a failed write: {cause}")]
    Failed {
        /// The first failure.
        cause: Arc<str>,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
    /// The folder or a file in it could not be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The engine failed to read.
    #[error("read failed: {0}")]
    Read(Arc<str>),
}

impl Error {
    /// Whether the same call may succeed later without anybody's help but room or time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Overloaded { .. })
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }
}
