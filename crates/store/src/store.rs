//! [`Store`]: the handle everybody holds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tidegate_metrics::Registry;
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::memory::Memory;
use crate::writer::{Shared, Writer};
use crate::{Batch, Config, Durability, Error, Order, Table};

/// Between two looks at the free space at most this much is written.
const LOOK_EVERY: u64 = 8 << 20;

/// Tables of bytes; clones share them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidegate_store::Error> {
/// use tidegate_store::{Batch, Store, Table};
/// const NAMES: Table = Table(0);
/// let store = Store::memory(&["names"]);
/// let mut batch = Batch::new();
/// batch.put(NAMES, *b"ada", *b"Lovelace");
/// store.submit(batch).await?;
/// assert_eq!(store.get(NAMES, b"ada")?.as_deref(), Some(&b"Lovelace"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    Disk(Arc<OnDisk>),
    Memory(Arc<Memory>),
}

struct OnDisk {
    disk: Arc<Disk>,
    shared: Arc<Shared>,
    config: Config,
    /// `written_bytes` at the last look at the free space, and what was free then.
    looked_at: AtomicU64,
    free: AtomicU64,
    /// Taken once, by whoever closes.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes the store in a folder. Blocks, for as long as the journal takes to be read twice.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Damaged`] and [`Error::Lost`] when it is not what was
    /// acknowledged, [`Error::Io`], [`Error::DiskFull`] when there is no room to open it.
    pub fn open(config: Config, tables: &[&str], registry: &Registry) -> Result<Self, Error> {
        let (disk, last) = Disk::open(&config, tables)?;
        let disk = Arc::new(disk);
        let shared = Shared::new(registry);
        let writer =
            Writer { shared: Arc::clone(&shared), disk: Arc::clone(&disk), durability: config.durability, last };
        let thread = std::thread::Builder::new().name("tidegate-store".into()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(Error::io("start the writer thread for", &config.path))?));
        let free = AtomicU64::new(disk.folder.free_bytes()?);
        let on_disk = OnDisk { disk, shared, config, looked_at: AtomicU64::new(0), free, thread };
        Ok(Self { engine: Engine::Disk(Arc::new(on_disk)) })
    }

    /// A store that lives as long as its last clone.
    #[must_use]
    pub fn memory(tables: &[&str]) -> Self {
        Self { engine: Engine::Memory(Arc::new(Memory::new(tables.len()))) }
    }

    /// Writes a batch after all batches submitted before it. Await the ticket to know that it is durable; dropping
    /// the ticket changes nothing about the write.
    #[must_use = "without awaiting the ticket the write may not be durable; call `submit_loose` when that is meant"]
    pub fn submit(&self, batch: Batch) -> Ticket {
        match &self.engine {
            Engine::Disk(on_disk) => {
                let (answer, ticket) = oneshot::channel();
                on_disk.shared.submit(batch, Some(answer));
                Ticket(Some(ticket))
            }
            Engine::Memory(memory) => {
                memory.commit(batch.writes, true);
                Ticket(None)
            }
        }
    }

    /// Writes a batch that nobody waits for: it reaches the system soon and the disk with the next awaited one.
    pub fn submit_loose(&self, batch: Batch) {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.shared.submit(batch, None),
            Engine::Memory(memory) => memory.commit(batch.writes, false),
        }
    }

    /// The value of `key`, as of some moment after every write whose ticket has answered. May read the disk.
    ///
    /// # Errors
    /// [`Error::Read`] when the engine cannot read it.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.disk.get(table, key),
            Engine::Memory(memory) => Ok(memory.get(table, key)),
        }
    }

    /// Calls `each` with the keys that start with `prefix`, in order, until it answers `false`. Reads the
    /// disk; `each` must not call the store.
    ///
    /// # Errors
    /// [`Error::Read`] when the engine cannot read, or what `each` returns.
    pub fn scan<E: From<Error>>(
        &self,
        table: Table,
        prefix: &[u8],
        each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.disk.scan(table, prefix, each),
            Engine::Memory(memory) => memory.scan(table, prefix, each),
        }
    }

    /// Calls `each` with the keys from `from` up to, but without, `to`, in `order`, until it answers `false`. An empty
    /// or reversed range has no keys. Reads the disk; `each` must not call the store.
    ///
    /// # Errors
    /// [`Error::Read`] when the engine cannot read, or what `each` returns.
    pub fn range<E: From<Error>>(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        if from >= to {
            return Ok(());
        }
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.disk.range(table, from, to, order, each),
            Engine::Memory(memory) => memory.range(table, from, to, order, each),
        }
    }

    /// Whether everything that was written before this start is there, loose writes included: the process that had the
    /// store last closed it (or dropped its last clone), nothing has failed, and no repair gave anything up at this
    /// start. `false` after `kill -9`, a power cut or a failed write, though what was acknowledged is there even then
    /// as far as [`Durability`] promises. A new store and a memory store answer `true`.
    #[must_use]
    pub fn ended_cleanly(&self) -> bool {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.disk.ended_cleanly,
            Engine::Memory(_) => true,
        }
    }

    /// Whether this start gave something up that was acknowledged, as [`Config::repair`] permits; [`Self::ended_cleanly`] is
    /// `false` then. Told by this start only.
    #[must_use]
    pub fn was_repaired(&self) -> bool {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.disk.was_repaired,
            Engine::Memory(_) => false,
        }
    }

    /// Whether the store works at all.
    ///
    /// # Errors
    /// [`Error::Failed`] after a failed write.
    pub fn check(&self) -> Result<(), Error> {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.shared.failure.get().map_or(Ok(()), |failure| Err(failure.clone())),
            Engine::Memory(_) => Ok(()),
        }
    }

    /// Whether there is room for more than the work in progress.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::DiskFull`] below the reserve, [`Error::Overloaded`] when too much waits.
    pub fn check_growth(&self) -> Result<(), Error> {
        self.check()?;
        let Engine::Disk(on_disk) = &self.engine else { return Ok(()) };
        on_disk.check_growth()
    }

    /// What an answered ticket promises.
    #[must_use]
    pub fn durability(&self) -> Durability {
        match &self.engine {
            Engine::Disk(on_disk) => on_disk.config.durability,
            Engine::Memory(_) => Durability::Memory,
        }
    }

    /// Writes and syncs what waits and takes nothing more. Blocks until the writer thread has ended.
    ///
    /// # Errors
    /// [`Error::Failed`] when a write failed, now or before.
    pub fn close(&self) -> Result<(), Error> {
        if let Engine::Disk(on_disk) = &self.engine {
            on_disk.stop();
        }
        self.check()
    }

    /// Forgets the newest `batches` among those written loose since the last awaited one, as a power cut may; only a
    /// memory store does, for tests.
    pub fn crash(&self, batches: usize) {
        if let Engine::Memory(memory) = &self.engine {
            memory.crash(batches);
        }
    }
}

impl OnDisk {
    fn check_growth(&self) -> Result<(), Error> {
        let pending = self.shared.pending_bytes.load(Ordering::Relaxed);
        if pending > self.config.pending_max {
            return Err(Error::Overloaded { pending, limit: self.config.pending_max });
        }
        let reserve = self.config.reserve_bytes;
        let written = self.shared.written_bytes.load(Ordering::Relaxed);
        let free = self.free.load(Ordering::Relaxed);
        let written_since = written.saturating_sub(self.looked_at.load(Ordering::Relaxed));
        // Near the reserve look each time: one system call, and others may fill the disk as well.
        if written_since > LOOK_EVERY || free < reserve.saturating_add(2 * LOOK_EVERY) {
            self.free.store(self.disk.folder.free_bytes()?, Ordering::Relaxed);
            self.looked_at.store(written, Ordering::Relaxed);
        }
        let free = self.free.load(Ordering::Relaxed);
        if free < reserve { Err(Error::DiskFull { free, reserve }) } else { Ok(()) }
    }

    fn stop(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic in the writer has been reported by the panic hook; its callers see their answers dropped.
            let _ = thread.join();
        }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("durability", &self.durability()).finish_non_exhaustive()
    }
}

/// Tells when a batch is durable. Dropping it changes nothing about the write.
///
/// Resolves to [`Error::Failed`] when the write failed: it may or may not be there after a restart.
#[derive(Debug)]
pub struct Ticket(Option<oneshot::Receiver<Result<(), Error>>>);

impl Future for Ticket {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(())),
            Some(receiver) => Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or(Err(Error::Closed))),
        }
    }
}
