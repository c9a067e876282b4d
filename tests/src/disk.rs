//! A disk that fills up: a small tmpfs where mounting is permitted, a limit on file sizes otherwise. Never nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::Builder;

/// A data folder with little room. Unmounted when dropped.
#[derive(Debug)]
pub enum SmallDisk {
    /// A tmpfs of its own: writes fail with `ENOSPC`.
    Mounted(PathBuf),
    /// RLIMIT_FSIZE in 512-byte blocks: writes fail with `EFBIG`.
    Limited(u64),
}

impl SmallDisk {
    /// Prepares a disk of `bytes` for the server of `builder`.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn prepare(builder: Builder, bytes: u64) -> (Self, Builder) {
        let folder = builder.folder().join("small-disk");
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        if mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tidegate-test"], &folder) {
            let builder = builder.data(&folder.join("data"));
            return (Self::Mounted(folder), builder);
        }
        let blocks = bytes / 512;
        (Self::Limited(blocks), builder.file_blocks_max(Some(blocks)))
    }

    /// Makes room: what was full has space from the next start on.
    ///
    /// # Panics
    /// When the kernel refuses to grow the tmpfs.
    #[must_use]
    pub fn grow(&self, builder: Builder) -> Builder {
        match self {
            Self::Mounted(folder) => {
                assert!(mount(&["-o", "remount,size=1g"], folder), "a mounted tmpfs can grow");
                builder
            }
            Self::Limited(_) => builder.file_blocks_max(None),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Self::Mounted(folder) = self {
            // Lazy: a server that is being killed may hold it a moment longer.
            let _ = Command::new("umount").arg("-l").arg(folder).status();
        }
    }
}

fn mount(options: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(options).arg(folder).output().is_ok_and(|output| output.status.success())
}
