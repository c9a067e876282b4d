//! [`Queues`]: all queues of a process, and the verbs that find a job by its id.

use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tidegate_store::Store;

use crate::backend::Backend;
use crate::embedded::Embedded;
use crate::redis::RedisQueues;
use crate::{Config, Error, Job, JobId, Queue, QueueName, QueueStats};

/// All queues of a process; clones share them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tidegate_queue::{Claim, Config, Finish, NewJob, QueueName, Queues, TABLES, Worker};
///
/// let store = tidegate_store::Store::memory(TABLES);
/// let queues = Queues::open(store, Config::default(), &tidegate_metrics::Registry::new()).await?;
/// let mail = queues.queue(&QueueName::new("mail")?).await?;
/// let pushed = mail.push(NewJob::new("welcome", "{}")).await?;
///
/// let claim = Claim { worker: Worker::local("w1"), limit: 10, wait: Duration::ZERO };
/// let claimed = mail.claim(claim).await?;
/// assert_eq!(claimed[0].id, pushed.id);
/// mail.finish(vec![Finish::Complete { lease: claimed[0].lease, result: None }]).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Queues {
    backend: Backend,
}

impl Queues {
    /// Opens the queues kept in `store`, which must have been opened with [`TABLES`](crate::TABLES).
    ///
    /// Rebuilds the index from the records, so it takes time in proportion to the live jobs (about a second per
    /// million). Must be called within a tokio runtime; it owns one upkeep task, which ends with [`close`](Self::close)
    /// or the last handle.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound that cannot work, [`Error::Damaged`] for a record that cannot be read,
    /// [`Error::Store`] when the store fails.
    pub async fn open(store: Store, config: Config, registry: &Registry) -> Result<Self, Error> {
        config.check().map_err(|e| Error::Invalid { field: e.field, reason: e.reason.into() })?;
        Ok(Self { backend: Backend::Embedded(Embedded::open(store, config, registry).await?) })
    }

    /// Uses the queues on a Redis, together with every other process that does.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use tidegate_queue::{Config, NewJob, QueueName, Queues};
    /// use tidegate_redis_ops::Redis;
    ///
    /// let registry = tidegate_metrics::Registry::new();
    /// let redis = Redis::connect(tidegate_redis_ops::Config::parse("redis://localhost:6379")?, &registry).await?;
    /// let queues = Queues::connect(redis, Config::default(), &registry).await?;
    /// let mail = queues.queue(&QueueName::new("mail")?).await?;
    /// mail.push(NewJob::new("welcome", "{}")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// All of them should have the same `Config`: a bound holds as the process sees it that makes a call. Must be called
    /// within a tokio runtime; it owns one upkeep task and one listening task per queue, which end with
    /// [`close`](Self::close) or the last handle.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound that cannot work, [`Error::Redis`] when Redis cannot be asked.
    pub async fn connect(redis: Redis, config: Config, registry: &Registry) -> Result<Self, Error> {
        config.check().map_err(|e| Error::Invalid { field: e.field, reason: e.reason.into() })?;
        Ok(Self { backend: Backend::Redis(RedisQueues::open(redis, config, registry).await?) })
    }

    /// The queue of this name; made when there is none yet.
    ///
    /// # Errors
    /// [`Error::TooManyQueues`] at the bound, [`Error::Store`].
    pub async fn queue(&self, name: &QueueName) -> Result<Queue, Error> {
        match &self.backend {
            Backend::Embedded(embedded) => Ok(Queue::embedded(embedded.queue(name).await?)),
            Backend::Redis(redis) => Ok(Queue::redis(redis.queue(name).await?)),
        }
    }

    /// The queue of this name, if there is one, whatever process made it.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis cannot be asked.
    pub async fn find(&self, name: &QueueName) -> Result<Option<Queue>, Error> {
        match &self.backend {
            Backend::Embedded(embedded) => Ok(embedded.find(name).map(Queue::embedded)),
            Backend::Redis(redis) => Ok(redis.find(name).await?.map(Queue::redis)),
        }
    }

    /// All queues, by name.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis cannot be asked.
    pub async fn list(&self) -> Result<Vec<Queue>, Error> {
        match &self.backend {
            Backend::Embedded(embedded) => Ok(embedded.list().into_iter().map(Queue::embedded).collect()),
            Backend::Redis(redis) => Ok(redis.list().await?.into_iter().map(Queue::redis).collect()),
        }
    }

    /// A snapshot of every queue, by name; also brings the exported gauges up to date.
    ///
    /// # Errors
    /// [`Error::Store`] when the backend cannot be asked.
    pub async fn stats(&self) -> Result<Vec<QueueStats>, Error> {
        let mut all = Vec::new();
        for queue in self.list().await? {
            all.push(queue.stats().await?);
        }
        Ok(all)
    }

    /// What is known about a job.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], [`Error::Damaged`], [`Error::Store`].
    pub async fn job(&self, id: &JobId) -> Result<Job, Error> {
        self.queue_of(id).await?.job(id).await
    }

    /// Like [`job`](Self::job), but payloads and results above 4 KiB are left out.
    ///
    /// # Errors
    /// As there.
    pub async fn look(&self, id: &JobId) -> Result<Job, Error> {
        self.queue_of(id).await?.look(id).await
    }

    /// Calls a job off: a waiting one is `Cancelled` at once, a running one is told to stop and shows `cancelling`.
    /// Cancelling a cancelled job again changes nothing.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], [`Error::Conflict`] when it is completed or discarded, [`Error::Store`].
    pub async fn cancel(&self, id: &JobId) -> Result<Job, Error> {
        self.queue_of(id).await?.cancel(id).await
    }

    /// Puts a discarded or cancelled job back to the end of its queue with all its attempts.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], [`Error::Conflict`] in any other state, [`Error::Rejected`] when the queue is full,
    /// [`Error::Store`].
    pub async fn retry(&self, id: &JobId) -> Result<Job, Error> {
        self.queue_of(id).await?.retry(id).await
    }

    /// How long a lease lasts without a beat.
    #[must_use]
    pub fn lease(&self) -> std::time::Duration {
        match &self.backend {
            Backend::Embedded(embedded) => embedded.config().lease,
            Backend::Redis(redis) => redis.config().lease,
        }
    }

    /// What an acknowledgement promises: `sync`, `everysec` or `memory` embedded; on Redis what its persistence does:
    /// `always`, `everysec`, `snapshots`, `none` or `unknown`.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        match &self.backend {
            Backend::Embedded(embedded) => embedded.durability(),
            Backend::Redis(redis) => redis.durability(),
        }
    }

    /// Answers waiting claims with what there is and lets none wait from now on. Pushes and finishes still work.
    pub fn drain(&self) {
        match &self.backend {
            Backend::Embedded(embedded) => embedded.drain(),
            Backend::Redis(redis) => redis.drain(),
        };
    }

    /// Drains, stops the upkeep task and makes everything durable.
    ///
    /// # Errors
    /// [`Error::Store`] when the last write fails.
    pub async fn close(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Embedded(embedded) => embedded.close().await,
            Backend::Redis(redis) => redis.close().await,
        }
    }

    async fn queue_of(&self, id: &JobId) -> Result<Queue, Error> {
        self.find(id.queue()).await?.ok_or_else(|| Error::JobNotFound { id: id.clone() })
    }
}
