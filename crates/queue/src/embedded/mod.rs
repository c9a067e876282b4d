//! The embedded backend: the index in memory, the records in the store, one process.
//!
//! A verb locks its queue, lets the rules decide, hands the records to the store *within the lock* (so they are
//! written in the order of the decisions) and waits for the disk outside of it. A claim does not wait: what it writes
//! is durable with the next verb that does, and until then a crash only forgets that the attempt began.

mod delivery;
mod load;
mod queue;
mod read;
mod upkeep;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tidegate_metrics::Registry;
use tidegate_store::{Batch, Store};
use tokio::task::JoinHandle;

pub(crate) use queue::EmbeddedQueue;

use crate::alarm::Alarm;
use crate::core::{Core, Effects, Loader, Rules, queue_key};
use crate::record::{CLAIMS, HISTORY, IDEMPOTENCY, JOBS, QUEUES, StoredQueue, decode, encode, number_of};
use crate::totals::Totals;
use crate::{Config, Error, JobId, QueueName};

const EPOCH_KEY: &[u8] = b"epoch";

/// All queues in a store.
#[derive(Clone)]
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    /// The upkeep task; taken by whoever closes.
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the queues and the upkeep task share.
pub(crate) struct Shared {
    store: Store,
    config: Arc<Config>,
    registry: Registry,
    /// The number of this start, part of every job number and grant; larger than that of any start before.
    epoch: u32,
    seed: u64,
    /// Written when a queue is made, which is rare; never held across an await.
    queues: RwLock<BTreeMap<QueueName, Arc<EmbeddedQueue>>>,
    alarm: Arc<Alarm>,
    totals: Arc<Totals>,
}

impl Embedded {
    pub(crate) async fn open(store: Store, config: Config, registry: &Registry) -> Result<Self, Error> {
        let registry = registry.clone();
        let (shared, ticket) = blocking(move || {
            let shared = Shared::load(store, config, registry)?;
            let mut batch = Batch::new();
            batch.put(QUEUES, EPOCH_KEY, encode(&shared.epoch));
            let ticket = shared.store.submit(batch);
            Ok::<_, Error>((shared, ticket))
        })
        .await?;
        // No number of this epoch may leave the process before the epoch is durable.
        ticket.await?;
        let shared = Arc::new(shared);
        let task = tokio::spawn(upkeep::run(Arc::downgrade(&shared), Arc::clone(&shared.alarm)));
        Ok(Self { shared, task: Arc::new(Mutex::new(Some(task))) })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn durability(&self) -> &'static str {
        self.shared.store.durability().as_str()
    }

    pub(crate) fn find(&self, name: &QueueName) -> Option<Arc<EmbeddedQueue>> {
        self.shared.read_queues().get(name).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Arc<EmbeddedQueue>> {
        self.shared.read_queues().values().cloned().collect()
    }

    pub(crate) async fn queue(&self, name: &QueueName) -> Result<Arc<EmbeddedQueue>, Error> {
        if let Some(queue) = self.find(name) {
            return Ok(queue);
        }
        self.shared.store.check_growth()?;
        let (queue, ticket) = self.shared.make(name)?;
        if let Some(ticket) = ticket {
            ticket.await?;
        }
        Ok(queue)
    }

    pub(crate) fn drain(&self) {
        self.shared.alarm.drain();
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.drain();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        let store = self.shared.store.clone();
        blocking(move || store.close()).await?;
        Ok(())
    }
}

impl Shared {
    fn read_queues(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<QueueName, Arc<EmbeddedQueue>>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every record once and builds the queues.
    fn load(store: Store, config: Config, registry: Registry) -> Result<Self, Error> {
        let stored = match store.get(QUEUES, EPOCH_KEY)? {
            None => 0,
            Some(bytes) => decode::<u32>(&bytes).map_err(|detail| damaged("the epoch", &detail))?,
        };
        // At least the time in seconds: when a repair or a backup has lost the newest epochs, theirs are not used again.
        let seconds = u32::try_from(config.clock.now().0 / 1000).unwrap_or(0);
        let epoch = seconds.max(stored.saturating_add(1));
        let seed = config
            .seed
            .unwrap_or_else(|| std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), epoch));
        let shared = Self {
            store,
            config: Arc::new(config),
            registry,
            epoch,
            seed,
            queues: RwLock::default(),
            alarm: Arc::default(),
            totals: Arc::default(),
        };
        let mut stored = Vec::new();
        shared.store.scan(QUEUES, b"q", |key, value| {
            let name = std::str::from_utf8(&key[1..]).map_err(|e| damaged("a queue's name", &e.to_string()))?;
            let name = QueueName::new(name).map_err(|e| damaged("a queue's name", &e.to_string()))?;
            let queue: StoredQueue = decode(value).map_err(|detail| damaged(&format!("queue {name}"), &detail))?;
            stored.push((name, queue));
            Ok::<_, Error>(true)
        })?;
        for (name, queue) in stored {
            let queue = shared.load_queue(&name, &queue)?;
            shared.queues.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(queue));
        }
        Ok(shared)
    }

    fn load_queue(&self, name: &QueueName, stored: &StoredQueue) -> Result<EmbeddedQueue, Error> {
        let mut loader = Loader::new(self.core(name, stored.no, stored.paused), self.config.clock.now().0);
        let prefix = stored.no.to_be_bytes();
        let place = |what: &str, number: u64| format!("{what} {}", JobId { queue: name.clone(), number });
        self.store.scan(CLAIMS, &prefix, |key, value| {
            let number = number_of(key).map_err(|e| damaged("a claim's key", &e))?;
            loader.claim(number, value).map_err(|e| damaged(&place("claim", number), &e)).map(|()| true)
        })?;
        load::read_ahead(&self.store, JOBS, &prefix, |key, value| {
            let number = number_of(key).map_err(|e| damaged("a job's key", &e))?;
            loader.job(number, value).map_err(|e| damaged(&place("job", number), &e))
        })?;
        self.store.scan(HISTORY, &prefix, |key, value| {
            let number = number_of(key).map_err(|e| damaged("a history key", &e))?;
            loader.chunk(number, value).map_err(|e| damaged(&place("history", number), &e)).map(|()| true)
        })?;
        self.store.scan(IDEMPOTENCY, &prefix, |key, value| {
            let number = number_of(key).map_err(|e| damaged("an idempotency key", &e))?;
            loader.idempotency(number, value).map_err(|e| damaged(&place("idempotency", number), &e)).map(|()| true)
        })?;
        let mut effects = Effects::default();
        let core = loader.finish(&mut effects).map_err(|e| damaged(name.as_str(), &e))?;
        self.store.submit_loose(effects.batch);
        Ok(EmbeddedQueue::new(core, self))
    }

    /// A new queue and the ticket of its record; or the one somebody else made meanwhile.
    fn make(&self, name: &QueueName) -> Result<(Arc<EmbeddedQueue>, Option<tidegate_store::Ticket>), Error> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(name) {
            return Ok((Arc::clone(queue), None));
        }
        if queues.len() >= self.config.queues_max {
            return Err(Error::TooManyQueues { capacity: self.config.queues_max });
        }
        let no = queues.values().map(|queue| queue.no()).max().map_or(1, |no| no + 1);
        let mut batch = Batch::new();
        batch.put(QUEUES, queue_key(name.as_str()), encode(&StoredQueue { no, paused: false }));
        let ticket = self.store.submit(batch);
        let queue = Arc::new(EmbeddedQueue::new(self.core(name, no, false), self));
        queues.insert(name.clone(), Arc::clone(&queue));
        Ok((queue, Some(ticket)))
    }

    fn core(&self, name: &QueueName, no: u32, paused: bool) -> Core {
        let config = &self.config;
        let rules = Rules {
            limits: config.queue(name).clone(),
            lease: config.lease,
            payload_max: config.payload_max,
            history_max: config.history_max,
            history_age: config.history_age,
            idempotency_max: config.idempotency_max,
            idempotency_window: config.idempotency_window,
        };
        let mut core = Core::new(name.clone(), no, self.epoch, rules, self.seed);
        core.paused = paused;
        core
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The upkeep task finds nothing left to keep up, and ends.
        self.alarm.earlier.notify_one();
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("epoch", &self.shared.epoch).finish_non_exhaustive()
    }
}

fn damaged(what: &str, detail: &str) -> Error {
    Error::Store(tidegate_store::Error::Damaged { place: format!("record of {what}"), detail: detail.to_owned() })
}

/// Runs what may wait for the disk off the async threads.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking work is only cancelled by a runtime that shuts down, and then nobody polls this any more.
            Err(_) => std::future::pending().await,
        },
    }
}
