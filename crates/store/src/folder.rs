//! The data folder: who may use it, and where things lie in it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::Error;

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder when absent and takes it for this process.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("create data folder", path))?;
        let lock_path = path.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&lock_path);
        let mut lock = open.map_err(Error::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut by = String::new();
                // Only for the message: an unreadable note is shown as such.
                let read = lock.read_to_string(&mut by).is_ok() && !by.is_empty();
                let by = if read { by.trim().to_owned() } else { "another process".to_owned() };
                return Err(Error::Locked { path: path.to_path_buf(), by });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &lock_path)(e)),
        }
        // Only for others' messages. Written over the older one, which takes no space on a full disk.
        let note = format!("process {}\n", std::process::id());
        if let Err(error) = lock.write_all_at(note.as_bytes(), 0).and_then(|()| lock.set_len(note.len() as u64)) {
            warn!(path = %lock_path.display(), %error, "could not note the process that holds the lock");
        }
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// The engine's own folder.
    pub(crate) fn engine(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The high-water mark.
    pub(crate) fn head(&self) -> PathBuf {
        self.path.join("store.head")
    }

    /// Is there when the last process stopped after a failed write.
    pub(crate) fn failed(&self) -> PathBuf {
        self.path.join("store.failed")
    }

    /// Is there when the last process closed the store.
    pub(crate) fn closed(&self) -> PathBuf {
        self.path.join("store.closed")
    }

    /// Where unreadable files are kept.
    pub(crate) fn aside(&self) -> PathBuf {
        self.path.join("aside")
    }

    /// Free bytes a user may take on the file system.
    pub(crate) fn free_bytes(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|e| Error::io("ask free space of", &self.path)(e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
