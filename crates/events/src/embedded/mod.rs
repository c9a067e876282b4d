//! The embedded backend: what is known of streams in memory, their events in the store, one process.
//!
//! A publish locks its stream, gives out the places and hands the batch to the store within the lock; one task makes
//! visible what has become durable, in order, and answers (`commit`). The store gathers batches by itself while one is on
//! its way, so [`Config::batch_wait`] has no effect here. Locks are taken in this order: the directory, a stream's state,
//! its groups, a group's ledger, the agenda.

mod claims;
mod commit;
mod group;
mod meters;
mod open;
mod publish;
mod read;
mod removal;
mod seen;
mod stream;
mod tail;
mod tombs;
mod upkeep;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tidegate_metrics::{Gauge, Registry};
use tidegate_store::{Batch, Error as StoreError, Store, Ticket};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::commit::{Commit, Committer};
use self::meters::Meters;
use self::publish::Draft;
use self::stream::Stream;
use self::tombs::Tombs;
use self::upkeep::Agenda;
use crate::backend::{Bounds, Step, Stepped};
use crate::hub::Hub;
use crate::record::{DOOMED, STREAM, TOMB, Tables, encode, key};
use crate::{
    Config, Error, EventId, GroupInfo, GroupName, NewEvent, Page, Pattern, Pending, Published, Read, StreamInfo,
    StreamName, StreamPage, Trim,
};

/// All streams in a store. Clones share them; the tasks end with [`close`](Self::close) or the last clone.
#[derive(Clone)]
pub(crate) struct Embedded(Arc<Running>);

/// What the handles share: when the last is gone, the tasks end.
struct Running {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Taken by whoever closes.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What the handles and the tasks share.
struct Shared {
    store: Store,
    tables: Tables,
    config: Arc<Config>,
    /// Written when a stream is made or deleted; never held across an await.
    directory: RwLock<Directory>,
    /// What all events kept weigh.
    bytes: AtomicU64,
    tails: Arc<Tails>,
    /// To the committer, until it is taken away by whoever closes. What waits in it is bounded by the bytes that may wait
    /// for the disk.
    commits: RwLock<Option<UnboundedSender<Commit>>>,
    reads: Arc<Semaphore>,
    agenda: Arc<Agenda>,
    meters: Meters,
}

/// The streams there are.
struct Directory {
    by_name: BTreeMap<StreamName, Arc<Stream>>,
    tombs: Tombs,
    next_no: u32,
}

/// The bytes of all tails.
struct Tails {
    bytes: AtomicUsize,
    gauge: Gauge,
}

impl Tails {
    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn changed(&self, before: usize, after: usize) {
        // Wraps when it shrinks, and back.
        let all = self.bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        self.gauge.set(all.wrapping_add(after).wrapping_sub(before) as f64);
    }
}

impl Embedded {
    /// The tables in `store` begin at `first_table`.
    pub(crate) async fn open(
        store: Store,
        first_table: u8,
        config: Arc<Config>,
        hub: Hub,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let meters = Meters::new(registry);
        let tables = Tables::from(first_table);
        let (commits, committed) = unbounded_channel();
        let tails = Arc::new(Tails { bytes: AtomicUsize::new(0), gauge: meters.tail_bytes.clone() });
        let shared = Arc::new(Shared {
            store,
            tables,
            config,
            directory: RwLock::new(Directory { by_name: BTreeMap::new(), tombs: Tombs::default(), next_no: 1 }),
            bytes: AtomicU64::new(0),
            tails: Arc::clone(&tails),
            commits: RwLock::new(Some(commits)),
            reads: Arc::new(Semaphore::new(read::READS_MAX as usize)),
            agenda: Arc::default(),
            meters,
        });
        let (losses, ticket) = shared.blocking(Shared::load).await?;
        ticket.await?;
        for (from_ms, to_ms) in losses {
            hub.restarted(from_ms, to_ms);
        }
        let stop = CancellationToken::new();
        let upkeep = upkeep::run(Arc::downgrade(&shared), Arc::clone(&shared.agenda), stop.clone());
        let tasks = vec![tokio::spawn(upkeep), tokio::spawn(Committer::new(hub, tails).run(committed))];
        Ok(Self(Arc::new(Running { shared, stop, tasks: Mutex::new(tasks) })))
    }

    pub(crate) async fn publish(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        let shared = &self.0.shared;
        shared.store.check_growth()?;
        let drafts = events.into_iter().map(Draft::new).collect();
        let (published, answered) = shared.accept(stream, drafts)?;
        if let Some(answered) = answered {
            answered.await.map_err(|_| StoreError::Closed)??;
        }
        Ok(published)
    }

    pub(crate) async fn info(&self, stream: &StreamName) -> Result<StreamInfo, Error> {
        let found = self.0.shared.find(stream).and_then(|stream| stream.info());
        found.ok_or_else(|| Error::StreamNotFound { name: stream.to_string() })
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Result<StreamPage, Error> {
        let cached_at_ms = self.0.shared.config.clock.now_ms();
        let directory = self.0.shared.directory.read();
        let from = match after.map(StreamName::as_str).filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let found = directory.by_name.range::<str, _>((from, Bound::Unbounded));
        let found = found.take_while(|(name, _)| name.as_str().starts_with(prefix));
        let mut streams: Vec<_> = found.filter_map(|(_, stream)| stream.info()).take(limit + 1).collect();
        let more = streams.len() > limit;
        streams.truncate(limit);
        let next = streams.last().filter(|_| more).map(|last| last.name.clone());
        Ok(StreamPage { streams, next, cached_at_ms })
    }

    pub(crate) async fn matching(&self, pattern: &Pattern, limit: usize) -> Result<Vec<StreamName>, Error> {
        let prefix = pattern.literal_prefix();
        let directory = self.0.shared.directory.read();
        let found = directory.by_name.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let found = found.take_while(|(name, _)| name.as_str().starts_with(prefix));
        let matches = |(name, stream): &(&StreamName, &Arc<Stream>)| {
            pattern.matches(name.as_str()) && stream.state.lock().settled
        };
        Ok(found.filter(matches).take(limit).map(|(name, _)| name.clone()).collect())
    }

    pub(crate) async fn read(&self, stream: &StreamName, read: Read) -> Result<Page, Error> {
        self.0.shared.read(&self.0.shared.seen(stream)?, read).await
    }

    pub(crate) async fn bounds(&self, stream: &StreamName) -> Result<Bounds, Error> {
        Ok(self.0.shared.seen(stream).map(|stream| stream.state.lock().bounds()).unwrap_or_default())
    }

    pub(crate) async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<u64, Error> {
        let shared = &self.0.shared;
        shared.store.check()?;
        shared.remove_oldest(&shared.seen(stream)?, trim).await
    }

    pub(crate) async fn delete(&self, streams: &[StreamName]) -> Result<Vec<Option<EventId>>, Error> {
        let shared = &self.0.shared;
        shared.store.check()?;
        let (deleted, doomed, ticket) = shared.delete(streams);
        if let Some(ticket) = ticket {
            ticket.await?;
            shared.agenda.doom(doomed);
        }
        Ok(deleted)
    }

    pub(crate) async fn step(&self, stream: &StreamName, group: &GroupName, step: Step) -> Result<Stepped, Error> {
        let shared = &self.0.shared;
        shared.store.check()?;
        let stream = shared.seen(stream)?;
        let members = shared.group(&stream, group)?;
        shared.step(&stream, group, &members, &step).await
    }

    pub(crate) async fn ack(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<bool>, Error> {
        match self.0.shared.members(stream, group) {
            Some((stream, members)) => self.0.shared.ack(&stream, &members, ids).await,
            None => Ok(vec![false; ids.len()]),
        }
    }

    pub(crate) async fn free(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<Option<u32>>, Error> {
        match self.0.shared.members(stream, group) {
            Some((stream, members)) => Ok(self.0.shared.free(&stream, &members, ids)),
            None => Ok(vec![None; ids.len()]),
        }
    }

    pub(crate) async fn pending(
        &self,
        stream: &StreamName,
        group: &GroupName,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Pending>, Error> {
        let found = self.0.shared.seen(stream)?.group(group);
        let not_found = || Error::GroupNotFound { stream: stream.to_string(), group: group.to_string() };
        let group = found.ok_or_else(not_found)?;
        let now = self.0.shared.config.clock.now_ms();
        Ok(group.ledger.lock().after(after, now, limit))
    }

    pub(crate) async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupInfo>, Error> {
        let stream = self.0.shared.seen(stream)?;
        let groups: Vec<_> = stream.groups.lock().by_name.clone().into_iter().collect();
        let info = |(name, group): (GroupName, Arc<group::Members>)| {
            let ledger = group.ledger.lock();
            let (pending, consumers) = (ledger.len() as u64, ledger.consumers() as u64);
            GroupInfo { name, delivered_to: ledger.delivered_to, pending, consumers }
        };
        Ok(groups.into_iter().map(info).collect())
    }

    pub(crate) fn durability(&self) -> &'static str {
        self.0.shared.store.durability().as_str()
    }

    /// The store stays open: it belongs to whoever opened it.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        let shared = &self.0.shared;
        // The committer settles what was submitted, and ends.
        drop(shared.commits.write().take());
        self.0.stop.cancel();
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            let _ = task.await;
        }
        // Reads under way hold the store open.
        let _ = shared.reads.acquire_many(read::READS_MAX).await;
        shared.reads.close();
        match shared.store.submit(Batch::new()).await {
            Ok(()) | Err(StoreError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// Fills in what the store knows; answers the losses it knows of.
    fn load(&self) -> Result<(Vec<(u64, u64)>, Ticket), Error> {
        let loaded = open::load(&self.store, self.tables, &self.config)?;
        let bytes = loaded.streams.values().map(|stream| stream.state.lock().bytes).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
        self.meters.bytes.set(bytes as f64);
        self.meters.streams.set(loaded.streams.len() as f64);
        let now = self.config.clock.now_ms();
        for stream in loaded.streams.values() {
            self.look_ahead(stream, &mut stream.state.lock(), now);
        }
        self.agenda.doom(loaded.doomed);
        *self.directory.write() = Directory { by_name: loaded.streams, tombs: loaded.tombs, next_no: loaded.next_no };
        Ok((loaded.losses, self.store.submit(loaded.batch)))
    }

    fn find(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.directory.read().by_name.get(name).cloned()
    }

    /// A stream whose first events are durable.
    fn seen(&self, name: &StreamName) -> Result<Arc<Stream>, Error> {
        let found = self.find(name).filter(|stream| stream.state.lock().settled);
        found.ok_or_else(|| Error::StreamNotFound { name: name.to_string() })
    }

    fn members(&self, stream: &StreamName, group: &GroupName) -> Option<(Arc<Stream>, Arc<group::Members>)> {
        let stream = self.find(stream)?;
        let members = stream.group(group)?;
        Some((stream, members))
    }

    /// Takes streams out of the directory; their records go later. Answers which were there, their numbers, and the
    /// ticket of the batch that says so.
    fn delete(&self, names: &[StreamName]) -> (Vec<Option<EventId>>, Vec<u32>, Option<Ticket>) {
        let directory = &mut *self.directory.write();
        let mut batch = Batch::new();
        let (mut deleted, mut doomed) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            let stream = directory.by_name.remove(name);
            let last = stream.as_ref().map(|stream| self.let_go(stream));
            deleted.push(last);
            if let (Some(stream), Some(last)) = (stream, last) {
                doomed.push(stream.no);
                batch.delete(self.tables.streams, key(STREAM, name.as_str().as_bytes()));
                batch.put(self.tables.streams, key(DOOMED, &stream.no.to_be_bytes()), Vec::new());
                batch.put(self.tables.streams, key(TOMB, name.as_str().as_bytes()), encode(&last));
                if let Some(forgotten) = directory.tombs.insert(name.clone(), last) {
                    batch.delete(self.tables.streams, key(TOMB, forgotten.as_str().as_bytes()));
                }
            }
        }
        self.meters.streams.set(directory.by_name.len() as f64);
        let ticket = (!doomed.is_empty()).then(|| self.store.submit(batch));
        (deleted, doomed, ticket)
    }

    /// From now on nobody writes anything of this stream. Answers its last place.
    fn let_go(&self, stream: &Arc<Stream>) -> EventId {
        let state = &mut *stream.state.lock();
        state.deleted = true;
        self.agenda.forget(stream, state);
        let before = state.tail.bytes();
        state.tail.clear();
        self.tails.changed(before, 0);
        self.freed(state.bytes);
        let groups = &mut *stream.groups.lock();
        groups.gone = true;
        for group in std::mem::take(&mut groups.by_name).into_values() {
            group.ledger.lock().gone = true;
        }
        state.last
    }
}

/// A record that cannot be read.
fn damaged(stream: &str, detail: &str) -> Error {
    Error::Damaged { stream: stream.to_owned(), detail: detail.to_owned() }
}
