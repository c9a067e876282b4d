//! The high-water mark: which write was last acknowledged as durable, kept outside the engine's own files.
//!
//! The engine drops what follows an unreadable place in its journal and says nothing: a torn, unacknowledged tail and
//! a flipped byte in the middle of acknowledged records look alike to it. The mark tells them apart. Every group of
//! writes carries its number; after the group is durable the number is written here, without a sync of its own. So
//! the mark never runs ahead of what is durable, and a store that comes back with less has lost acknowledged records.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;

const MAGIC: [u8; 8] = *b"TGHEAD1\n";
const LENGTH: usize = 24;

/// The open mark file.
#[derive(Debug)]
pub(crate) struct Head {
    file: File,
    path: PathBuf,
}

/// What the mark file said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// There is no file.
    Absent,
    /// There is a file, but not one of ours.
    Unreadable,
    /// The last acknowledged write.
    At(u64),
}

impl Head {
    /// Reads the mark without changing anything.
    pub(crate) fn read(path: &Path) -> Result<Mark, Error> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Mark::Absent),
            Err(e) => return Err(Error::io("read", path)(e)),
        };
        Ok(decode(&bytes).map_or(Mark::Unreadable, Mark::At))
    }

    /// Opens the mark for writing and sets it, durably.
    pub(crate) fn create(path: &Path, at: u64) -> Result<Self, Error> {
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let head = Self { file: open.map_err(Error::io("create", path))?, path: path.to_path_buf() };
        head.set(at)?;
        head.file.sync_all().map_err(Error::io("sync", path))?;
        Ok(head)
    }

    /// Moves the mark. The page reaches the disk when the system likes; a process kill does not lose it.
    pub(crate) fn set(&self, at: u64) -> Result<(), Error> {
        self.file.write_all_at(&encode(at), 0).map_err(Error::io("write", &self.path))
    }
}

fn encode(at: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&at.to_be_bytes());
    bytes[16..].copy_from_slice(&(!at).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| bytes.get(range)?.try_into().ok().map(u64::from_be_bytes);
    let (at, complement) = (number(8..16)?, number(16..24)?);
    (bytes.starts_with(&MAGIC) && at == !complement).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_makes_the_mark_unreadable() {
        let good = encode(123_456_789);
        assert_eq!(decode(&good), Some(123_456_789));
        for bit in 0..LENGTH * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
    }
}
