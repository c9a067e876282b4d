//! The engine on disk, opened so that nothing acknowledged vanishes without a word.

use std::fmt::Display;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};
use foldhash::{HashSet, HashSetExt};
use tracing::warn;

use crate::batch::Write;
use crate::folder::Folder;
use crate::head::{Head, Notes};
use crate::journal::{STAMP, stamp, stamped};
use crate::{Config, Error, Order, Table, ending, layout, recovery};

/// The table of the store's own record, the stamp of the last group of writes.
const OWN: &str = "_store";

/// Full write buffers of a table that may wait to be written out. Inside a commit the engine waits, for ever if its
/// background threads have died, while 4 wait. One commit can add two (the one that was full before and the one it
/// fills), so from 1 it can never get there.
const SEALED_MAX: usize = 1;

/// Unsorted runs of sorted files in a table. Inside a commit the engine waits while there are 30; from here a commit
/// cannot get there.
const RUNS_MAX: usize = 26;

/// Between two looks at an engine that is behind: long enough to cost nothing, short against writing out a buffer.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// An open engine.
pub(crate) struct Disk {
    database: Database,
    own: Keyspace,
    tables: Vec<Keyspace>,
    head: Head,
    pub(crate) folder: Folder,
    /// Whether the process before this one closed the store, and nothing was given up since.
    pub(crate) ended_cleanly: bool,
    /// Whether something was given up now.
    pub(crate) was_repaired: bool,
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
    /// Takes the folder, judges what is in it and opens the engine.
    /// Returns the engine and the number of its last group.
    pub(crate) fn open(config: &Config, tables: &[&str]) -> Result<(Self, u64), Error> {
        let folder = Folder::take(&config.path)?;
        let mut prepared = recovery::prepare(&folder, config.repair)?;
        let opened = open_engine(config, &folder.engine(), tables).and_then(|(database, own, tables)| {
            let value = own.get(STAMP).map_err(|error| damaged(&folder.engine(), error.to_string()))?;
            let last = value.and_then(|value| stamped(&value)).unwrap_or(0);
            prepared.prove(last).map(|()| (database, own, tables, last))
        });
        let (database, own, tables, mut last) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                prepared.put_back()?;
                return Err(error);
            }
        };
        prepared.forget();
        let found = last;
        if prepared.repaired {
            // The sorted files may know more than the journals do; what lies between is given up. The next group says
            // so, so that the journals alone can be judged again.
            let in_journals = prepared.last.unwrap_or(last);
            if last > in_journals {
                prepared.notes.given_up.push((in_journals + 1, last));
            }
            last = last.max(in_journals) + 1;
            write_stamp(&database, &own, last, PersistMode::SyncAll)?;
        }
        let ids = std::iter::once(&own).chain(&tables).map(number_of).collect();
        let head = Head::create(&folder.head(), last, &Notes { tables: ids, ..prepared.notes })?;
        if prepared.written_anew {
            std::fs::remove_file(folder.failed()).map_err(Error::io("remove", folder.failed()))?;
        }
        // Last: a start that fails has not ended the run before it.
        let was_repaired = prepared.repaired;
        let ended_cleanly = ending::take(&folder.closed(), found, prepared.is_new)? && !was_repaired;
        Ok((Self { database, own, tables, head, folder, ended_cleanly, was_repaired }, last))
    }

    /// Applies the writes as group `number`; of several writes to a key the last one counts.
    pub(crate) fn commit(&self, number: u64, writes: Vec<Write>, reach: Reach) -> Result<(), Error> {
        self.wait_for_room()?;
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
        batch.insert(&self.own, STAMP, stamp(number, self.database.seqno()));
        batch.commit().map_err(|error| self.failed(&error))?;
        if reach == Reach::Disk { self.head.set(number) } else { Ok(()) }
    }

    /// Brings everything up to group `number` to the disk.
    pub(crate) fn sync(&self, number: u64) -> Result<(), Error> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.failed(&error))?;
        self.head.set(number)
    }

    /// Leaves a note for the next start.
    pub(crate) fn note_failure(&self) {
        let path = self.folder.failed();
        if let Err(error) = std::fs::write(&path, b"") {
            warn!(path = %path.display(), %error, "could not note the failure");
        }
    }

    /// Leaves word for the next start that group `last` is the last one and that all of them are on the disk.
    pub(crate) fn note_end(&self, last: u64) {
        let path = self.folder.closed();
        if let Err(error) = ending::note(&path, last) {
            warn!(path = %path.display(), %error, "could not note that the store was closed; the next start takes it for a crash");
        }
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let table = self.table(table)?;
        let value = table.get(key).map_err(|error| self.unreadable(&error))?;
        Ok(value.map(|v| v.to_vec()))
    }

    pub(crate) fn scan<E: From<Error>>(
        &self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        for guard in self.table(table)?.prefix(prefix) {
            let (key, value) = guard.into_inner().map_err(|error| E::from(self.unreadable(&error)))?;
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn range<E: From<Error>>(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut range = self.table(table)?.range(from..to);
        let mut next = || match order {
            Order::Forward => range.next(),
            Order::Backward => range.next_back(),
        };
        while let Some(guard) = next() {
            let (key, value) = guard.into_inner().map_err(|error| E::from(self.unreadable(&error)))?;
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn table(&self, table: Table) -> Result<&Keyspace, Error> {
        self.tables.get(usize::from(table.0)).ok_or_else(|| Error::Read(format!("no table {}", table.0).into()))
    }

    fn all(&self) -> impl Iterator<Item = &Keyspace> {
        std::iter::once(&self.own).chain(&self.tables)
    }

    /// Waits while the engine is behind with writing out, but not for an engine that has stopped.
    fn wait_for_room(&self) -> Result<(), Error> {
        let behind =
            |table: &Keyspace| table.tree.sealed_memtable_count() > SEALED_MAX || table.tree.l0_run_count() > RUNS_MAX;
        while self.all().any(behind) {
            self.database.persist(PersistMode::Buffer).map_err(|error| self.failed(&error))?;
            // The engine has no signal for this.
            std::thread::park_timeout(LOOK_AGAIN);
        }
        Ok(())
    }

    fn failed(&self, error: &fjall::Error) -> Error {
        let cause = match error {
            fjall::Error::Poisoned => {
                let free = self.folder.free_bytes().map_or_else(|e| e.to_string(), |free| format!("{free} bytes"));
                format!("the engine could not write out its buffers ({free} free on the disk)")
            }
            error => error.to_string(),
        };
        Error::Failed { cause: cause.into() }
    }

    /// A failed read, with the damaged file that it came from if there is one.
    fn unreadable(&self, error: &fjall::Error) -> Error {
        let known: Vec<u64> = self.all().map(number_of).collect();
        match layout::blame(&self.folder.engine(), &known) {
            Some(broken) => Error::Read(format!("{broken} ({error})").into()),
            None => Error::Read(error.to_string().into()),
        }
    }
}

/// Writes a group of no writes.
fn write_stamp(database: &Database, own: &Keyspace, number: u64, mode: PersistMode) -> Result<(), Error> {
    let mut batch = database.batch().durability(Some(mode));
    batch.insert(own, STAMP, stamp(number, database.seqno()));
    batch.commit().map_err(|error| Error::Failed { cause: error.to_string().into() })
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
    let open = || -> fjall::Result<Opened> {
        // No journal compression: the engine checks a compressed journal by compressing again, so a new release of
        // the compressor could make an intact journal unreadable.
        let database = Database::builder(path)
            .cache_size(config.cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(128 << 20)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(config.buffer_bytes);
        let own = database.keyspace(OWN, options)?;
        let tables = tables.iter().map(|name| database.keyspace(name, options)).collect::<fjall::Result<_>>()?;
        Ok((database, own, tables))
    };
    make_lock(path)?;
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)))) if !is_damage(error.kind()) => {
            // A damaged offset ends in an invalid argument, so a damaged file comes first.
            Err(find_damage(path).unwrap_or_else(|| Error::io("open", path)(error)))
        }
        Ok(Err(error)) => Err(damaged(path, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(damaged(path, text.unwrap_or("panicked while opening")))
        }
    }
}

/// The engine refuses an existing folder without its lock file; ours is what counts.
fn make_lock(path: &Path) -> Result<(), Error> {
    let lock = path.join("lock");
    if path.exists() && !lock.exists() {
        std::fs::write(&lock, b"").map_err(Error::io("write", &lock))?;
    }
    Ok(())
}

/// The engine could not open its folder: the damaged file, if one can be found, or the folder.
fn damaged(path: &Path, detail: impl Display) -> Error {
    find_damage(path).unwrap_or_else(|| Error::Broken { place: path.display().to_string(), detail: detail.to_string() })
}

fn find_damage(path: &Path) -> Option<Error> {
    layout::blame(path, &layout::all_tables(path))
}

/// Whether reading failed because of what the files hold, not because of the system around them.
fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::Other)
}

/// The number by which the engine's files know a table.
fn number_of(table: &Keyspace) -> u64 {
    table.id()
}
