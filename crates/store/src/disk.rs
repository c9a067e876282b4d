//! The engine on disk, opened so that nothing acknowledged vanishes without a word.

use std::fmt::Display;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use foldhash::{HashSet, HashSetExt};
use tracing::{info, warn};

use crate::batch::Write;
use crate::folder::Folder;
use crate::head::{Head, Mark};
use crate::journal::{Survey, survey_all};
use crate::{Config, Error, Table};

/// The table of the store's own records, and its one key: the number of the last group of writes.
const OWN: &str = "_store";
const LAST: &[u8] = b"last";

/// An open engine.
pub(crate) struct Disk {
    database: Database,
    own: Keyspace,
    tables: Vec<Keyspace>,
    head: Head,
    pub(crate) folder: Folder,
}

/// How far a commit goes before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To the operating system.
    System,
    /// To the disk.
    Disk,
}

impl Disk {
    /// Takes the folder, surveys the journals, opens the engine and compares it with the high-water mark.
    /// Returns the engine and the number of its last group.
    pub(crate) fn open(config: &Config, tables: &[&str]) -> Result<(Self, u64), Error> {
        let folder = Folder::take(&config.path)?;
        let existing = folder.engine().join("version").exists();
        let mark = Head::read(&folder.head())?;
        let troubles = if existing { survey_all(&folder.engine())? } else { Vec::new() };
        let troubles: Vec<Survey> = troubles.into_iter().filter(|s| s.trouble.is_some()).collect();
        set_aside(&folder.aside(), &troubles)?;
        if config.repair {
            cut(&troubles)?;
        }
        let (database, own, tables) =
            open_engine(config, &folder.engine(), tables).map_err(|error| located(&troubles, error))?;
        let last = own.get(LAST).map_err(unreadable)?;
        let last = last.and_then(|v| v.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        if !config.repair {
            judge(&folder, mark, last, existing, &troubles)?;
        } else if mark != Mark::At(last) {
            warn!(?mark, last, "repair: acknowledged writes after the last readable one are given up");
        }
        if !config.repair && !troubles.is_empty() {
            info!(
                journals = troubles.len(),
                "cut an unfinished write from the end of the journal; nothing acknowledged was in it"
            );
            forget(&folder.aside(), &troubles);
        }
        let head = Head::create(&folder.head(), last)?;
        Ok((Self { database, own, tables, head, folder }, last))
    }

    /// Applies the writes as group `number`; of several writes to a key the last one counts.
    pub(crate) fn commit(&self, number: u64, writes: Vec<Write>, reach: Reach) -> Result<(), Error> {
        let mode = match reach {
            Reach::System => PersistMode::Buffer,
            Reach::Disk => PersistMode::SyncData,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for write in last_of_each_key(writes) {
            let table = self.table(write.table)?;
            match write.value {
                Some(value) => batch.insert(table, write.key, value),
                None => batch.remove(table, write.key),
            }
        }
        batch.insert(&self.own, LAST, number.to_be_bytes());
        batch.commit().map_err(failed)?;
        if reach == Reach::Disk { self.head.set(number) } else { Ok(()) }
    }

    /// Brings everything up to group `number` to the disk.
    pub(crate) fn sync(&self, number: u64) -> Result<(), Error> {
        self.database.persist(PersistMode::SyncData).map_err(failed)?;
        self.head.set(number)
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.table(table)?.get(key).map_err(unreadable)?;
        Ok(value.map(|v| v.to_vec()))
    }

    pub(crate) fn scan<E: From<Error>>(
        &self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        for guard in self.table(table)?.prefix(prefix) {
            let (key, value) = guard.into_inner().map_err(|e| E::from(unreadable(e)))?;
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn table(&self, table: Table) -> Result<&Keyspace, Error> {
        self.tables.get(usize::from(table.0)).ok_or_else(|| Error::Read(format!("no table {}", table.0).into()))
    }
}

/// Keeps the last write of each key: within one group the engine gives all writes the same sequence number.
fn last_of_each_key(writes: Vec<Write>) -> Vec<Write> {
    if writes.len() < 2 {
        return writes;
    }
    let mut seen = HashSet::with_capacity(writes.len());
    let keep: Vec<bool> = writes.iter().rev().map(|w| seen.insert((w.table, w.key.as_slice()))).collect();
    drop(seen);
    writes.into_iter().zip(keep.into_iter().rev()).filter_map(|(write, keep)| keep.then_some(write)).collect()
}

type Opened = (Database, Keyspace, Vec<Keyspace>);

/// Opens the engine; its panics on unreadable files become errors like its errors.
fn open_engine(config: &Config, path: &Path, tables: &[&str]) -> Result<Opened, Error> {
    let damaged = |detail: String| Error::Damaged { place: path.display().to_string(), detail };
    let open = || -> fjall::Result<Opened> {
        // No journal compression: the engine checks a compressed journal by compressing again, so a new release of
        // the compressor could make an intact journal unreadable.
        let database = Database::builder(path)
            .cache_size(config.cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(512 << 20)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(config.buffer_bytes);
        let own = database.keyspace(OWN, options)?;
        let tables = tables.iter().map(|name| database.keyspace(name, options)).collect::<fjall::Result<_>>()?;
        Ok((database, own, tables))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Io(error))) if !is_damage(error.kind()) => Err(Error::io("open", path)(error)),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(damaged(text.unwrap_or("panicked while opening").to_owned()))
        }
    }
}

/// Whether reading failed because of what the files hold, not because of the system around them.
fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::Other)
}

fn describe(trouble: &Survey) -> String {
    format!("{} at byte {}", trouble.path.display(), trouble.valid_end)
}

/// Names the place of the trouble in a journal, when there is one, rather than the engine's whole folder.
fn located(troubles: &[Survey], error: Error) -> Error {
    match (troubles.first(), error) {
        (Some(first), Error::Damaged { .. }) => {
            Error::Damaged { place: describe(first), detail: first.trouble.unwrap_or_default().to_owned() }
        }
        (_, error) => error,
    }
}

/// Compares what is there with what was acknowledged.
fn judge(folder: &Folder, mark: Mark, last: u64, existing: bool, troubles: &[Survey]) -> Result<(), Error> {
    let head = folder.head();
    match mark {
        Mark::At(acknowledged) if acknowledged > last => {
            let place = troubles.first().map_or_else(|| folder.engine().display().to_string(), describe);
            let detail =
                troubles.first().and_then(|t| t.trouble).unwrap_or("the files are older than the mark or gone");
            Err(Error::Lost { acknowledged, found: last, place, detail: detail.to_owned() })
        }
        Mark::At(_) => Ok(()),
        Mark::Absent if !existing || last == 0 => Ok(()),
        Mark::Absent => Err(Error::Damaged { place: head.display().to_string(), detail: "the file is missing".into() }),
        Mark::Unreadable => {
            Err(Error::Damaged { place: head.display().to_string(), detail: "not a high-water mark".into() })
        }
    }
}

/// Where a journal in trouble is kept: under its name and the place of the trouble, so no evidence is overwritten.
fn aside_path(aside: &Path, trouble: &Survey) -> PathBuf {
    let name = trouble.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    aside.join(format!("{name}.from-{}", trouble.valid_end))
}

fn set_aside(aside: &Path, troubles: &[Survey]) -> Result<(), Error> {
    for trouble in troubles {
        std::fs::create_dir_all(aside).map_err(Error::io("create", aside))?;
        let to = aside_path(aside, trouble);
        if !to.exists() {
            std::fs::copy(&trouble.path, &to).map_err(Error::io("write", &to))?;
        }
    }
    Ok(())
}

fn forget(aside: &Path, troubles: &[Survey]) {
    for trouble in troubles {
        let path = aside_path(aside, trouble);
        if let Err(error) = std::fs::remove_file(&path) {
            warn!(path = %path.display(), %error, "could not remove a journal that was set aside");
        }
    }
    // Fails, rightly, while anything else lies there.
    let _ = std::fs::remove_dir(aside);
}

/// Cuts each journal in trouble after its last whole group.
fn cut(troubles: &[Survey]) -> Result<(), Error> {
    for trouble in troubles {
        let file = std::fs::OpenOptions::new().write(true).open(&trouble.path);
        let cut = file.and_then(|f| f.set_len(trouble.valid_end).and_then(|()| f.sync_all()));
        cut.map_err(Error::io("cut", &trouble.path))?;
        warn!(place = %describe(trouble), what = trouble.trouble, "repair: cut the journal; the original is in `aside`");
    }
    Ok(())
}

fn failed(error: impl Display) -> Error {
    Error::Failed { cause: error.to_string().into() }
}

fn unreadable(error: impl Display) -> Error {
    Error::Read(error.to_string().into())
}
