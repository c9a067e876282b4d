//! The best an honest job table in SQLite does: WAL, prepared statements, a partial index over what waits, one
//! transaction for whatever can share one. It keeps no leases in order, no history and no finished jobs.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::{Connection, Result};
use tokio::sync::oneshot;

/// When a commit is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Before it is answered; like `sync`.
    Full,
    /// With the next checkpoint; like `everysec`.
    Normal,
}

/// A job table.
#[derive(Debug)]
pub struct JobTable {
    connection: Connection,
}

const TABLE: &str = "
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY, state INTEGER NOT NULL, priority INTEGER NOT NULL, attempt INTEGER NOT NULL,
        created_at INTEGER NOT NULL, lease_until INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL
    );
    CREATE INDEX waiting ON jobs (priority, id) WHERE state = 0;
";
const INSERT: &str = "INSERT INTO jobs (state, priority, attempt, created_at, lease_until, kind, data)
    VALUES (0, 100, 0, ?1, 0, 'noop', ?2)";
const CLAIM: &str = "UPDATE jobs SET state = 1, attempt = attempt + 1, lease_until = ?1 WHERE id IN
    (SELECT id FROM jobs WHERE state = 0 ORDER BY priority, id LIMIT ?2) RETURNING id, data";
const DELETE: &str = "DELETE FROM jobs WHERE id = ?1 AND state = 1";

impl JobTable {
    /// Makes the table in a new file.
    ///
    /// # Errors
    /// When SQLite does.
    pub fn create(path: &Path, synchronous: Synchronous) -> Result<Self> {
        let table = Self { connection: Self::connect(path, synchronous)? };
        table.connection.execute_batch(TABLE)?;
        Ok(table)
    }

    /// Opens an existing one.
    ///
    /// # Errors
    /// When SQLite does.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { connection: Self::connect(path, Synchronous::Normal)? })
    }

    fn connect(path: &Path, synchronous: Synchronous) -> Result<Connection> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let level = if synchronous == Synchronous::Full { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", level)?;
        // 64 MiB, as much as the store may use for its own buffers.
        connection.pragma_update(None, "cache_size", -65_536)?;
        Ok(connection)
    }

    /// Adds jobs in one transaction.
    ///
    /// # Errors
    /// When SQLite does.
    pub fn push<'a>(&mut self, jobs: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for job in jobs {
                insert.execute((0, job))?;
            }
        }
        transaction.commit()
    }

    /// Deletes what was claimed before and claims up to `limit` more, in one transaction.
    ///
    /// # Errors
    /// When SQLite does.
    pub fn step(&mut self, done: &[i64], limit: usize) -> Result<Vec<(i64, Vec<u8>)>> {
        let transaction = self.connection.transaction()?;
        let claimed = {
            let mut delete = transaction.prepare_cached(DELETE)?;
            for id in done {
                delete.execute([id])?;
            }
            let mut claim = transaction.prepare_cached(CLAIM)?;
            claim.query_map([1, limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?
        };
        transaction.commit()?;
        Ok(claimed)
    }
}

type Request = (Vec<u8>, oneshot::Sender<()>);

/// One thread that owns the table; whatever waits shares a transaction.
#[derive(Debug)]
pub struct SharedTable {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl SharedTable {
    /// Starts the thread.
    #[must_use]
    pub fn start(mut table: JobTable) -> Self {
        let (requests, receiver) = mpsc::channel::<Request>();
        let thread = std::thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                let group: Vec<Request> = std::iter::once(first).chain(receiver.try_iter()).collect();
                table.push(group.iter().map(|(job, _)| job.as_slice())).expect("an insert");
                for (_, answer) in group {
                    let _ = answer.send(());
                }
            }
        });
        Self { requests: Some(requests), thread: Some(thread) }
    }

    /// Gives each caller a sender of its own.
    ///
    /// # Panics
    /// Never while the table lives.
    #[must_use]
    pub fn caller(&self) -> mpsc::Sender<Request> {
        self.requests.clone().expect("present until dropped")
    }
}

impl Drop for SharedTable {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
