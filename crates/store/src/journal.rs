//! Reads the engine's journals before the engine does, without changing them.
//!
//! On opening, the engine cuts a journal at the first place it cannot read. This pass finds that place beforehand, so
//! that it can be judged, named in an error and cut by us, if at all: the engine never sees a damaged journal.
//!
//! It follows the journal format of fjall 3: a start (tag 1, item count u32, sequence u64), items (tag 2), an end
//! (tag 3, xxh3 of the items, magic). The engine's checksum leaves out the start. So the last item of each group is
//! its *stamp*, the store's own record: the number of the group and a lower bound of its sequence. Numbers follow each
//! other without a hole, over all journals; sequences rise and keep to the bounds.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::Error;

const MAGIC: [u8; 4] = *b"FJL\x03";
/// The key of the stamp.
pub(crate) const STAMP: &[u8] = b"last";
/// Above this a sequence is damage: 2^56 writes, a million each second, take two thousand years.
const SEQUENCE_MAX: u64 = 1 << 56;
/// Read at a time.
const CHUNK: usize = 1 << 20;

/// The number of the group and a lower bound of its sequence.
pub(crate) fn stamp(number: u64, floor: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&floor.to_be_bytes());
    bytes
}

/// The number in a stamp.
pub(crate) fn stamped(value: &[u8]) -> Option<u64> {
    (value.len() == 16).then(|| u64::from_be_bytes(array(value, 0)))
}

/// What was found in one journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) path: PathBuf,
    /// Numbers of the first and the last whole group.
    pub(crate) groups: Option<(u64, u64)>,
    /// Up to here every group of writes is whole.
    pub(crate) valid_end: u64,
    /// What stands there, when it is not the end of the file or the zeros the engine allocates ahead.
    pub(crate) trouble: Option<&'static str>,
}

/// Groups that are missing between two that are there, or before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The journal and the byte where they should be, and what stands there.
    pub(crate) path: PathBuf,
    pub(crate) at: u64,
    pub(crate) detail: &'static str,
}

/// All journals, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journals {
    pub(crate) surveys: Vec<Survey>,
    pub(crate) holes: Vec<Hole>,
    /// The last whole group and its sequence.
    last: Option<(u64, u64)>,
}

impl Journals {
    /// Surveys all journals in the engine's folder. `from` is the group they must start with, where that is known.
    pub(crate) fn survey(engine: &Path, from: Option<u64>) -> Result<Self, Error> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(engine).map_err(Error::io("list", engine))? {
            let path = entry.map_err(Error::io("list", engine))?.path();
            let number = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jnl"));
            if let Some(number) = number.and_then(|n| n.parse::<u64>().ok()) {
                found.push((number, path));
            }
        }
        found.sort();
        let mut journals = Self { last: from.map(|from| (from.saturating_sub(1), 0)), ..Self::default() };
        for (_, path) in found {
            journals.read(path)?;
        }
        Ok(journals)
    }

    /// The number of the last whole group in any journal.
    pub(crate) fn last(&self) -> Option<u64> {
        self.surveys.iter().rev().find_map(|s| s.groups).map(|(_, last)| last)
    }

    /// Journals that hold something unreadable.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = &Survey> {
        self.surveys.iter().filter(|s| s.trouble.is_some())
    }

    /// Where the next group belongs, as far as it can be read, and what stands there.
    pub(crate) fn end(&self) -> Option<(&Path, u64, &'static str)> {
        let of = |s: &'_ Survey| s.valid_end;
        let trouble = self.surveys.iter().rev().find(|s| s.trouble.is_some());
        let newest = trouble.or_else(|| self.surveys.iter().rev().find(|s| s.groups.is_some()));
        let newest = newest.or(self.surveys.last())?;
        Some((&newest.path, of(newest), newest.trouble.unwrap_or("the journal ends here")))
    }

    fn read(&mut self, path: PathBuf) -> Result<(), Error> {
        let mut window = Window::open(&path)?;
        let mut survey = Survey { path, groups: None, valid_end: 0, trouble: None };
        survey.trouble = loop {
            match window.group().map_err(Error::io("read", &survey.path))? {
                Next::Whole(group) => match self.follow(&group, &survey) {
                    Ok(()) => {
                        window.skip(group.length);
                        survey.valid_end = window.at;
                        survey.groups = Some((survey.groups.map_or(group.number, |g| g.0), group.number));
                    }
                    Err(what) => break Some(what),
                },
                Next::Zero if window.rest_is_zero().map_err(Error::io("read", &survey.path))? => break None,
                Next::Zero => break Some("bytes after the end"),
                Next::End => break None,
                Next::Bad(what) => break Some(what),
            }
        };
        self.surveys.push(survey);
        Ok(())
    }

    /// Takes the group as the next one, or says why it cannot be.
    fn follow(&mut self, group: &Group, survey: &Survey) -> Result<(), &'static str> {
        if group.sequence < group.floor || group.sequence > SEQUENCE_MAX {
            return Err("an impossible sequence");
        }
        if let Some((number, sequence)) = self.last {
            if group.number <= number || (group.floor <= sequence && number > 0 && sequence > 0) {
                return Err("a group of writes out of order");
            }
            if group.number > number + 1 {
                let before = self.surveys.iter().rev().find(|s| s.trouble.is_some() && survey.groups.is_none());
                let (path, at) = before.map_or((&survey.path, survey.valid_end), |s| (&s.path, s.valid_end));
                let detail = before.and_then(|s| s.trouble).unwrap_or("they are not there");
                let path = path.clone();
                self.holes.push(Hole { first: number + 1, last: group.number - 1, path, at, detail });
            }
        }
        self.last = Some((group.number, group.sequence));
        Ok(())
    }
}

enum Next {
    Whole(Group),
    Zero,
    End,
    Bad(&'static str),
}

struct Group {
    length: usize,
    number: u64,
    floor: u64,
    sequence: u64,
}

/// A part of a journal in memory, at least one group long.
struct Window {
    file: File,
    buffer: Vec<u8>,
    /// Where in the buffer the next group starts, and where in the file that is.
    start: usize,
    at: u64,
    /// Bytes in the file after the buffer.
    beyond: u64,
}

impl Window {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let beyond = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self { file, buffer: Vec::new(), start: 0, at: 0, beyond })
    }

    fn skip(&mut self, length: usize) {
        self.start += length;
        self.at += length as u64;
    }

    fn group(&mut self) -> std::io::Result<Next> {
        loop {
            let bytes = &self.buffer[self.start..];
            match parse(bytes, self.beyond) {
                Ok(group) => return Ok(Next::Whole(group)),
                Err(Stop::Zero) => return Ok(Next::Zero),
                Err(Stop::Bad(what)) => return Ok(Next::Bad(what)),
                Err(Stop::Short) if self.beyond > 0 => self.more()?,
                Err(Stop::Short) if bytes.is_empty() => return Ok(Next::End),
                Err(Stop::Short) => return Ok(Next::Bad("a group of writes ends in the middle")),
            }
        }
    }

    /// Reads on: as much as is there already, so that a long group is parsed a few times, not often.
    fn more(&mut self) -> std::io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = self.buffer.len().max(CHUNK) as u64;
        let read = (&mut self.file).take(wanted).read_to_end(&mut self.buffer)?;
        // A file that shrinks under us ends here.
        self.beyond = if read == 0 { 0 } else { self.beyond.saturating_sub(read as u64) };
        Ok(())
    }

    fn rest_is_zero(&mut self) -> std::io::Result<bool> {
        let zeros = vec![0; CHUNK];
        loop {
            if self.buffer[self.start..].chunks(CHUNK).any(|chunk| chunk != &zeros[..chunk.len()]) {
                return Ok(false);
            }
            if self.beyond == 0 || self.is_hole()? {
                return Ok(true);
            }
            self.start = self.buffer.len();
            self.more()?;
        }
    }

    /// Whether the file system says that nothing was ever written after the buffer: what the engine allocates ahead.
    fn is_hole(&mut self) -> std::io::Result<bool> {
        let at = self.file.stream_position()?;
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => Ok(true),
            // Something is there, or this file system does not know.
            _ => self.file.seek(SeekFrom::Start(at)).map(|_| false),
        }
    }
}

enum Stop {
    /// The bytes end before the group does.
    Short,
    Zero,
    Bad(&'static str),
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The group at the start of `bytes`; `beyond` bytes of the file follow them.
fn parse(bytes: &[u8], beyond: u64) -> Result<Group, Stop> {
    let need = |end: usize| if end <= bytes.len() { Ok(()) } else { Err(Stop::Short) };
    match bytes.first() {
        None => return Err(Stop::Short),
        Some(0) => return Err(Stop::Zero),
        Some(1) => need(13)?,
        Some(_) => return Err(Stop::Bad("not the start of a group of writes")),
    }
    let items = u32::from_le_bytes(array(bytes, 1));
    let sequence = u64::from_le_bytes(array(bytes, 5));
    let mut at = 13;
    let mut last = (&bytes[..0], &bytes[..0]);
    for _ in 0..items {
        need(at + 1)?;
        if bytes[at] != 2 {
            return Err(Stop::Bad("not a write where one should be"));
        }
        // tag u8, type u8, compression u8, table u64, key length u16, value length u32, stored length u32.
        need(at + 21)?;
        let key = usize::from(u16::from_le_bytes(array(bytes, at + 11)));
        let stored = u32::from_le_bytes(array(bytes, at + 17)) as usize;
        let end = at + 21 + key + stored;
        if end as u64 > bytes.len() as u64 + beyond {
            return Err(Stop::Bad("an impossible length"));
        }
        need(end)?;
        last = (&bytes[at + 21..at + 21 + key], &bytes[at + 21 + key..end]);
        at = end;
    }
    need(at + 1)?;
    if bytes[at] != 3 {
        return Err(Stop::Bad("no end where the group of writes should end"));
    }
    need(at + 13)?;
    if array(bytes, at + 9) != MAGIC {
        return Err(Stop::Bad("no trailer after the group of writes"));
    }
    if u64::from_le_bytes(array(bytes, at + 1)) != xxh3_64(&bytes[13..at]) {
        return Err(Stop::Bad("checksum mismatch"));
    }
    let number =
        stamped(last.1).filter(|_| last.0 == STAMP).ok_or(Stop::Bad("a group of writes without its number"))?;
    Ok(Group { length: at + 13, number, floor: u64::from_be_bytes(array(last.1, 8)), sequence })
}
