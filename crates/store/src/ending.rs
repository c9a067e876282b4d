//! Word of a clean end: `store.closed`, made when the store is closed and taken away when it is opened.
//!
//! It names the last group of writes, so that one which a power cut brought back does not speak for a later run. Where
//! it is missing or unreadable, the end counts as a crash.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::Error;

fn word(last: u64) -> String {
    format!("closed after group {last}\n")
}

/// Leaves the word at `path`, durably.
pub(crate) fn note(path: &Path, last: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(word(last).as_bytes())?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// Takes the word away, durably, and answers whether it said that the run before ended with group `last`, or, without
/// any word, whether the store `is_new`.
pub(crate) fn take(path: &Path, last: u64, is_new: bool) -> Result<bool, Error> {
    let said = match std::fs::read(path) {
        Ok(said) => said,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(is_new),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    std::fs::remove_file(path).and_then(|()| sync_folder_of(path)).map_err(Error::io("remove", path))?;
    Ok(said == word(last).as_bytes())
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
