//! Checks the engine's folder before the engine opens it.
//!
//! The engine takes what it does not find in its lists for rubbish: a folder without a manifest, or one its list of
//! tables does not name, is deleted, and so is a sorted file that a manifest does not name. One flipped byte in a list
//! would delete acknowledged records. So the lists are checked here: `version`, and for each table `current`, the
//! manifest that it names, and that each sorted file named there exists.
//!
//! The blocks of sorted files carry checksums that the engine checks on each read; [`blame`] finds the file when one
//! does not match.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::Error;

/// The whole content of the engine's version marker.
pub(crate) const VERSION: [u8; 4] = *b"FJL\x03";

pub(crate) fn version(engine: &Path) -> PathBuf {
    engine.join("version")
}

fn tables(engine: &Path) -> PathBuf {
    engine.join("keyspaces")
}

fn broken(path: &Path, detail: &str) -> Error {
    Error::Broken { place: path.display().to_string(), detail: detail.to_owned() }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| missing_or_unusable(path, error))
}

fn missing_or_unusable(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => broken(path, "the file is missing"),
        _ => Error::io("read", path)(error),
    }
}

/// Checks the lists of all `known` tables, and of the engine's own table of tables.
pub(crate) fn check(engine: &Path, known: &[u64]) -> Result<(), Error> {
    // All of its few records decide about the existence of everything else, so they are read in full.
    for (path, checksum) in sorted_files(engine, 0)? {
        check_sorted_file(&path, checksum)?;
    }
    for table in known {
        for (path, _) in sorted_files(engine, *table)? {
            std::fs::metadata(&path).map_err(|error| missing_or_unusable(&path, error))?;
        }
    }
    Ok(())
}

/// Whether any table but the engine's own has sorted files on disk, whatever the lists say.
pub(crate) fn has_sorted_files(engine: &Path) -> bool {
    let folders = std::fs::read_dir(tables(engine)).into_iter().flatten().flatten();
    folders
        .filter(|folder| folder.file_name() != "0")
        .any(|folder| std::fs::read_dir(folder.path().join("tables")).is_ok_and(|mut files| files.next().is_some()))
}

/// Numbers of all tables that have a folder, but for the engine's own.
pub(crate) fn all_tables(engine: &Path) -> Vec<u64> {
    let folders = std::fs::read_dir(tables(engine)).into_iter().flatten().flatten();
    let numbers = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u64> = numbers.filter(|number| *number != 0).collect();
    numbers.sort_unstable();
    numbers
}

/// The sorted files of a table with their checksums, by its manifest.
pub(crate) fn sorted_files(engine: &Path, table: u64) -> Result<Vec<(PathBuf, u128)>, Error> {
    let folder = tables(engine).join(table.to_string());
    let current_path = folder.join("current");
    let current = read(&current_path)?;
    // Number of the manifest, its xxh3, and 0 for the kind of checksum.
    let parts = (current.len() == 25 && current[24] == 0).then(|| (number(&current, 0), number128(&current, 8)));
    let Some((Some(version), Some(checksum))) = parts else { return Err(broken(&current_path, "not a manifest mark")) };
    let manifest_path = folder.join(format!("v{version}"));
    let manifest = match std::fs::read(&manifest_path) {
        Ok(manifest) => manifest,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(broken(&current_path, &format!("the manifest v{version} that it names is missing")));
        }
        Err(e) => return Err(Error::io("read", &manifest_path)(e)),
    };
    if xxh3_128(&manifest) != checksum {
        return Err(broken(&manifest_path, "checksum mismatch"));
    }
    let files = parse(&manifest).ok_or_else(|| broken(&manifest_path, "not a manifest"))?;
    Ok(files.into_iter().map(|(id, checksum)| (folder.join("tables").join(id.to_string()), checksum)).collect())
}

fn check_sorted_file(path: &Path, checksum: u128) -> Result<(), Error> {
    let mut file = File::open(path).map_err(|error| missing_or_unusable(path, error))?;
    let mut hash = Xxh3::new();
    let mut chunk = vec![0; 1 << 18];
    loop {
        match file.read(&mut chunk).map_err(Error::io("read", path))? {
            0 => break,
            n => hash.update(&chunk[..n]),
        }
    }
    if hash.digest128() == checksum { Ok(()) } else { Err(broken(path, "checksum mismatch")) }
}

/// Reads everything to find the file that a failed read came from.
pub(crate) fn blame(engine: &Path, known: &[u64]) -> Option<Error> {
    for table in known {
        let files = match sorted_files(engine, *table) {
            Ok(files) => files,
            Err(error) => return Some(error),
        };
        // A file that a compaction has replaced meanwhile is none of our business.
        let bad =
            files.iter().filter(|(path, _)| path.exists()).find_map(|(path, sum)| check_sorted_file(path, *sum).err());
        if bad.is_some() {
            return bad;
        }
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn number128(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(bytes.get(at..at.checked_add(16)?)?.try_into().ok()?))
}

/// Takes numbers from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| number(bytes, 0))
    }
}

/// Ids and checksums of the sorted files in a manifest: an archive whose trailer of 38 bytes names its table of
/// contents, of which the section `tables` is levels of runs of files.
fn parse(manifest: &[u8]) -> Option<Vec<(u64, u128)>> {
    let trailer = manifest.len().checked_sub(38)?;
    let contents = usize::try_from(number(manifest, trailer + 22)?).ok()?;
    let mut contents = Reader(manifest.get(contents..trailer)?);
    contents.take(4)?;
    let mut section = None;
    for _ in 0..contents.u32()? {
        let (at, length) = (usize::try_from(contents.u64()?).ok()?, usize::try_from(contents.u64()?).ok()?);
        let name = contents.u16()?;
        if contents.take(usize::from(name))? == b"tables" {
            section = manifest.get(at..at.checked_add(length)?);
        }
    }
    let mut section = Reader(section?);
    let mut files = Vec::new();
    for _level in 0..section.u8()? {
        for _run in 0..section.u8()? {
            for _file in 0..section.u32()? {
                let id = section.u64()?;
                section.u8()?;
                files.push((id, number128(section.take(16)?, 0)?));
                section.u64()?;
            }
        }
    }
    section.0.is_empty().then_some(files)
}
