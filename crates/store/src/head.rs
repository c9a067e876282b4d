//! The high-water mark: which write was last acknowledged as durable, kept outside the engine's own files.
//!
//! The engine drops what follows an unreadable place in its journal and says nothing: a torn, unacknowledged tail and
//! a flipped byte in the middle of acknowledged records look alike to it. The mark tells them apart. Every group of
//! writes carries its number; after the group is durable the number is written here, without a sync of its own. So
//! the mark never runs ahead of what is durable, and a store that comes back with less has lost acknowledged records.
//!
//! Beside the mark the file has notes, written when the store is opened: which folders of the engine must be there,
//! and which losses `--repair` has accepted.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// There is no file.
    Absent,
    /// There is a file, but not one of ours.
    Unreadable,
    /// The last acknowledged write, and the notes.
    At(u64, Notes),
}

/// What changes only when the store is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Numbers of the engine's tables, the store's own first.
    pub(crate) tables: Vec<u64>,
    /// Groups of writes, first and last, that a repair gave up.
    pub(crate) given_up: Vec<(u64, u64)>,
}

impl Head {
    /// Reads the mark without changing anything.
    pub(crate) fn read(path: &Path) -> Result<Mark, Error> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Mark::Absent),
            Err(e) => return Err(Error::io("read", path)(e)),
        };
        Ok(decode(&bytes).map_or(Mark::Unreadable, |(at, notes)| Mark::At(at, notes)))
    }

    /// Opens the mark for writing and sets it and the notes, durably.
    pub(crate) fn create(path: &Path, at: u64, notes: &Notes) -> Result<Self, Error> {
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let head = Self { file: open.map_err(Error::io("create", path))?, path: path.to_path_buf() };
        // In one call and far below a sector: an older mark is either there or replaced.
        let bytes = [&encode(at)[..], &encode_notes(notes)].concat();
        let set = head.file.write_all_at(&bytes, 0).and_then(|()| head.file.set_len(bytes.len() as u64));
        set.and_then(|()| head.file.sync_all()).map_err(Error::io("write", path))?;
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

/// Count and numbers of the tables, count and bounds of what was given up, xxh3 of these.
fn encode_notes(notes: &Notes) -> Vec<u8> {
    let bounds: Vec<u64> = notes.given_up.iter().flat_map(|(first, last)| [*first, *last]).collect();
    let mut bytes = Vec::new();
    for list in [&notes.tables, &bounds] {
        bytes.extend((list.len() as u64).to_be_bytes());
        bytes.extend(list.iter().flat_map(|n| n.to_be_bytes()));
    }
    let checksum = xxh3_64(&bytes);
    bytes.extend(checksum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Notes)> {
    let (mark, notes) = bytes.split_at_checked(LENGTH)?;
    let (at, complement) = (number(mark, 8)?, number(mark, 16)?);
    if !mark.starts_with(&MAGIC) || at != !complement {
        return None;
    }
    let (lists, checksum) = notes.split_at_checked(notes.len().checked_sub(8)?)?;
    if number(checksum, 0)? != xxh3_64(lists) {
        return None;
    }
    let tables = list(lists, 0)?;
    let bounds = list(lists, 8 + 8 * tables.len())?;
    let given_up = bounds.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    Some((at, Notes { tables, given_up }))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn list(bytes: &[u8], at: usize) -> Option<Vec<u64>> {
    let count = usize::try_from(number(bytes, at)?).ok()?;
    (1..=count).map(|i| number(bytes, at + 8 * i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_or_missing_byte_makes_the_mark_unreadable() {
        let notes = Notes { tables: vec![1, 2, 5], given_up: vec![(7, 9)] };
        let good = [&encode(123_456_789)[..], &encode_notes(&notes)].concat();
        assert_eq!(decode(&good), Some((123_456_789, notes)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), None, "length {length}");
        }
    }
}
