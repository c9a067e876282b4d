//! Queues on Redis: any number of processes share them, each may die at any instant.
//!
//! Every verb is one script, so it happens as a whole or not at all; the scripts hold the same rules as `core`. Leases are
//! measured by the clock of Redis, so the clocks of the processes do not matter. What may be sent twice carries the number
//! of the operation, and Redis keeps the answer to the last one of each process: a lost reply is asked for again, the work
//! is not done again. Nobody polls: see `watch.rs`.

mod beat;
mod call;
mod decode;
mod docs;
mod feed;
pub(crate) mod keys;
mod push;
mod queue;
mod record;
pub(crate) mod scripts;
mod step;
mod upkeep;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use docs::redis_reference;
pub(crate) use queue::RedisQueue;

use crate::alarm::Alarm;
use crate::meters::Meters;
use crate::totals::Totals;
use crate::{Config, Error, QueueName};

/// All queues this process uses on a Redis.
#[derive(Clone)]
pub(crate) struct RedisQueues {
    shared: Arc<Shared>,
    /// The upkeep task; taken by whoever closes.
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the queues of a process share.
struct Shared {
    redis: Redis,
    config: Arc<Config>,
    registry: Registry,
    process: Arc<str>,
    seed: u64,
    /// Those used so far; written when one is met, never held across an await.
    queues: RwLock<BTreeMap<QueueName, Arc<RedisQueue>>>,
    /// In milliseconds of the stopwatch.
    alarm: Arc<Alarm>,
    stopwatch: Stopwatch,
    totals: Arc<Totals>,
    tasks: TaskTracker,
    closed: CancellationToken,
    beats: beat::BeatLine,
}

/// A clock of this process that nobody sets.
#[derive(Clone, Copy)]
struct Stopwatch(Instant);

impl Stopwatch {
    /// Milliseconds since it was started.
    fn now(self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl RedisQueues {
    pub(crate) async fn open(redis: Redis, config: Config, registry: &Registry) -> Result<Self, Error> {
        let unique = uuid();
        let seed = config.seed.unwrap_or(unique);
        let closed = CancellationToken::new();
        let shared = Arc::new(Shared {
            beats: beat::BeatLine::start(&redis, closed.clone()),
            redis,
            config: Arc::new(config),
            registry: registry.clone(),
            process: format!("{unique:016x}").into(),
            seed,
            queues: RwLock::default(),
            alarm: Arc::default(),
            stopwatch: Stopwatch(Instant::now()),
            totals: Arc::default(),
            tasks: TaskTracker::new(),
            closed,
        });
        shared.may_publish().await?;
        // What is there already counts against the bound on all queues together.
        for name in shared.names().await? {
            shared.meet(&name).stats().await?;
        }
        let task = tokio::spawn(upkeep::run(Arc::downgrade(&shared), Arc::clone(&shared.alarm)));
        Ok(Self { shared, task: Arc::new(Mutex::new(Some(task))) })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn durability(&self) -> &'static str {
        self.shared.redis.durability().as_str()
    }

    pub(crate) async fn find(&self, name: &QueueName) -> Result<Option<Arc<RedisQueue>>, Error> {
        if let Some(queue) = self.shared.met(name) {
            return Ok(Some(queue));
        }
        let key = self.shared.directory();
        let args = vec![key.clone(), Bytes::copy_from_slice(name.as_str().as_bytes())];
        let known = self.shared.redis.command("HEXISTS", Some(key), args).await?.as_int()? == 1;
        Ok(known.then(|| self.shared.meet(name)))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Arc<RedisQueue>>, Error> {
        let mut names = self.shared.names().await?;
        names.sort();
        Ok(names.iter().map(|name| self.shared.meet(name)).collect())
    }

    pub(crate) async fn queue(&self, name: &QueueName) -> Result<Arc<RedisQueue>, Error> {
        if let Some(queue) = self.shared.met(name) {
            return Ok(queue);
        }
        let capacity = self.shared.config.queues_max;
        let args = vec![Bytes::copy_from_slice(name.as_str().as_bytes()), capacity.to_string().into()];
        let made = self.shared.redis.run(&scripts::SCRIPTS.make, &[self.shared.directory()], args).await?.as_int()?;
        if made == 0 { Err(Error::TooManyQueues { capacity }) } else { Ok(self.shared.meet(name)) }
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
        self.shared.closed.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        Ok(())
    }
}

impl Shared {
    fn directory(&self) -> Bytes {
        keys::queues(&self.config.redis_prefix)
    }

    /// What a script has done before the command it is refused stays done, so a user without channels must hear of it
    /// before the first script: users made by hand on Redis 7 have none unless told `&*`.
    async fn may_publish(&self) -> Result<(), Error> {
        let channel = Bytes::from(format!("{}:start", self.config.redis_prefix));
        self.redis.command("PUBLISH", None, vec![channel, Bytes::new()]).await?;
        Ok(())
    }

    /// The queues there are; bounded by `queues_max`.
    async fn names(&self) -> Result<Vec<QueueName>, Error> {
        let key = self.directory();
        let names = self.redis.command("HKEYS", Some(key.clone()), vec![key]).await?.into_array()?;
        names.into_iter().map(|name| QueueName::new(name.as_str()?)).collect()
    }

    fn met(&self, name: &QueueName) -> Option<Arc<RedisQueue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The handle of a queue that is there.
    fn meet(&self, name: &QueueName) -> Arc<RedisQueue> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(name.clone()).or_insert_with(|| {
            Arc::new(RedisQueue::new(
                name.clone(),
                queue::Parts {
                    redis: self.redis.clone(),
                    config: Arc::clone(&self.config),
                    meters: Meters::new(&self.registry, name.as_str()),
                    alarm: Arc::clone(&self.alarm),
                    stopwatch: self.stopwatch,
                    tasks: self.tasks.clone(),
                    closed: self.closed.clone(),
                    beats: self.beats.clone(),
                    process: Arc::clone(&self.process),
                    totals: Arc::clone(&self.totals),
                    seed: self.seed,
                },
            ))
        });
        Arc::clone(queue)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closed.cancel();
        // The upkeep task finds nothing left to keep up, and ends.
        self.alarm.earlier.notify_one();
    }
}

impl fmt::Debug for RedisQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueues").field("process", &self.shared.process).finish_non_exhaustive()
    }
}

/// A number no other start has.
fn uuid() -> u64 {
    use std::hash::BuildHasher;
    // Seeded by the system for every hasher; the time and the process id make it another one in any other process.
    let state = std::collections::hash_map::RandomState::new();
    state.hash_one((std::process::id(), std::time::SystemTime::now()))
}
