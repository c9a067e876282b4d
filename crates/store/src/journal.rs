//! Reads the engine's journals before the engine does, without changing them.
//!
//! On opening, the engine cuts a journal at the first place it cannot read. This pass finds that place beforehand, so
//! that it can be named in an error and the file be set aside before anything is cut. It follows the journal format of
//! fjall 3: entries tagged 1 (start: item count, sequence), 2 (item), 3 (end: xxh3 of the items, magic), 4 (clear).

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::Error;

const MAGIC: [u8; 4] = *b"FJL\x03";

/// What was found in one journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) path: PathBuf,
    /// Up to here every group of writes is whole.
    pub(crate) valid_end: u64,
    /// What stands there, when it is not the end of the file or the zeros the engine allocates ahead.
    pub(crate) trouble: Option<&'static str>,
}

/// Surveys all journals in the engine's folder, oldest first.
pub(crate) fn survey_all(engine: &Path) -> Result<Vec<Survey>, Error> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(engine).map_err(Error::io("list", engine))? {
        let path = entry.map_err(Error::io("list", engine))?.path();
        let number = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jnl"));
        if let Some(number) = number.and_then(|n| n.parse::<u64>().ok()) {
            journals.push((number, path));
        }
    }
    journals.sort();
    journals.into_iter().map(|(_, path)| survey(&path)).collect()
}

/// Surveys one journal.
pub(crate) fn survey(path: &Path) -> Result<Survey, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut scan = Scan { reader: BufReader::with_capacity(1 << 18, file), at: 0, buffer: Vec::new() };
    let mut valid_end = 0;
    let trouble = loop {
        match scan.group() {
            Ok(Group::Whole) => valid_end = scan.at,
            Ok(Group::Zero) if scan.rest_is_zero(path)? => break None,
            Ok(Group::Zero) => break Some("bytes after the end"),
            Ok(Group::End) => break None,
            Ok(Group::Bad(what)) => break Some(what),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => break Some("a group of writes ends in the middle"),
            Err(e) => return Err(Error::io("read", path)(e)),
        }
    };
    Ok(Survey { path: path.to_path_buf(), valid_end, trouble })
}

enum Group {
    Whole,
    Zero,
    End,
    Bad(&'static str),
}

struct Scan {
    reader: BufReader<File>,
    at: u64,
    buffer: Vec<u8>,
}

impl Scan {
    fn take<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn group(&mut self) -> std::io::Result<Group> {
        match self.take::<1>() {
            Ok([1]) => {}
            Ok([0]) => return Ok(Group::Zero),
            Ok(_) => return Ok(Group::Bad("not the start of a group of writes")),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Group::End),
            Err(e) => return Err(e),
        }
        let items = u32::from_le_bytes(self.take()?);
        let _sequence: [u8; 8] = self.take()?;
        let mut hash = Xxh3::new();
        for _ in 0..items {
            match self.take::<1>()? {
                [2] => {
                    if !self.item(&mut hash)? {
                        return Ok(Group::Bad("an impossible length"));
                    }
                }
                [4] => {
                    hash.update(&[4]);
                    hash.update(&self.take::<8>()?);
                }
                _ => return Ok(Group::Bad("not a write where one should be")),
            }
        }
        if self.take::<1>()? != [3] {
            return Ok(Group::Bad("no end where the group of writes should end"));
        }
        let checksum = u64::from_le_bytes(self.take()?);
        if self.take::<4>()? != MAGIC {
            return Ok(Group::Bad("no trailer after the group of writes"));
        }
        Ok(if checksum == hash.digest() { Group::Whole } else { Group::Bad("checksum mismatch") })
    }

    /// type u8, compression u8, table u64, key length u16, value length u32, stored length u32, key, value.
    fn item(&mut self, hash: &mut Xxh3) -> std::io::Result<bool> {
        let head: [u8; 20] = self.take()?;
        let key = u16::from_le_bytes([head[10], head[11]]);
        let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        hash.update(&[2]);
        hash.update(&head);
        let length = usize::from(key) + stored as usize;
        self.buffer.clear();
        let read = (&mut self.reader).take(length as u64).read_to_end(&mut self.buffer)?;
        self.at += read as u64;
        hash.update(&self.buffer);
        Ok(read == length)
    }

    fn rest_is_zero(&mut self, path: &Path) -> Result<bool, Error> {
        let mut chunk = vec![0; 1 << 16];
        loop {
            match self.reader.read(&mut chunk).map_err(Error::io("read", path))? {
                0 => return Ok(true),
                n if chunk[..n].iter().any(|b| *b != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}
