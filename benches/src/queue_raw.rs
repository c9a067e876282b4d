//! The bare disk: small records appended to a file, each followed by `fdatasync`. No durable queue that answers each
//! caller by itself can be faster than this on the same disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How the file was made ready, which decides what a sync has to bring along besides the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 64 MiB long but without blocks, the way fjall makes its journal: a sync allocates blocks, the length stays.
    Sparse,
    /// Empty: each sync also brings the new length to the disk.
    Appending,
    /// Filled with zeros beforehand: a sync brings data and nothing else.
    Overwriting,
}

/// A file that grows by records.
#[derive(Debug)]
pub struct Log {
    file: File,
    at: u64,
}

impl Log {
    /// 128 bytes: about a job of 50 bytes with its key, options and checksums.
    const RECORD: [u8; 128] = [7; 128];
    const AHEAD: u64 = 64 << 20;

    /// Makes the file.
    ///
    /// # Errors
    /// When the disk does.
    pub fn create(path: &Path, layout: Layout) -> io::Result<Self> {
        let file = File::create_new(path)?;
        match layout {
            Layout::Sparse => file.set_len(Self::AHEAD)?,
            Layout::Appending => {}
            Layout::Overwriting => file.write_all_at(&vec![0; Self::AHEAD as usize], 0)?,
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// Adds one record and waits for the disk.
    ///
    /// # Errors
    /// When the disk does.
    pub fn append(&mut self) -> io::Result<()> {
        self.file.write_all_at(&Self::RECORD, self.at)?;
        self.at += Self::RECORD.len() as u64;
        self.file.sync_data()
    }
}
