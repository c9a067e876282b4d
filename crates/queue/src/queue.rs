//! [`Queue`]: a handle to one queue; the same verbs with the same meaning on every backend.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::embedded::EmbeddedQueue;
use crate::redis::RedisQueue;
use crate::{
    Beat, Claim, Claimed, Error, Finish, Idempotency, Job, JobFilter, JobId, JobPage, Lease, NewJob, Outcome, Progress,
    Pushed, QueueName, QueueStats, Rejected, State, Transition, Worker,
};

/// A cheap handle to one queue.
///
/// **Cancellation.** A dropped `push` or `finish` may or may not have been accepted; a dropped `claim` leaves nothing
/// behind: jobs it had taken go back to the front of the queue.
#[derive(Clone, Debug)]
pub struct Queue {
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    Embedded(Arc<EmbeddedQueue>),
    Redis(Arc<RedisQueue>),
}

impl Queue {
    pub(crate) fn embedded(queue: Arc<EmbeddedQueue>) -> Self {
        Self { inner: Inner::Embedded(queue) }
    }

    pub(crate) fn redis(queue: Arc<RedisQueue>) -> Self {
        Self { inner: Inner::Redis(queue) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        match &self.inner {
            Inner::Embedded(queue) => queue.name(),
            Inner::Redis(queue) => queue.name(),
        }
    }

    /// Accepts a job. The answer means it is as durable as the store's mode promises; callers that push at the same
    /// time share one write.
    ///
    /// # Errors
    /// [`Error::Rejected`] when it is refused, [`Error::Store`] or [`Error::Redis`] when the
    /// backend fails (the outcome may then be unknown).
    pub async fn push(&self, job: NewJob) -> Result<Pushed, Error> {
        let mut pushed = self.push_many(vec![job], None).await?;
        pushed.pop().unwrap_or(Err(Rejected::Expired)).map_err(Error::Rejected)
    }

    /// Accepts many jobs in one write, each on its own: the answers are in order. With `idempotency`, a repeated
    /// call answers with the jobs of the first.
    ///
    /// # Errors
    /// [`Error::IdempotencyMismatch`] when the key was used for something else, [`Error::Store`], [`Error::Redis`].
    pub async fn push_many(
        &self,
        jobs: Vec<NewJob>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Result<Pushed, Rejected>>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.push_many(jobs, idempotency).await,
            Inner::Redis(queue) => queue.push_many(jobs, idempotency).await,
        }
    }

    /// Takes up to `limit` jobs, most urgent first; waits up to `wait` for the first one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit or worker name out of range, [`Error::Store`], [`Error::Redis`].
    pub async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.claim(claim).await,
            Inner::Redis(queue) => queue.claim(claim).await,
        }
    }

    /// Renews leases and learns what was cancelled or lost meanwhile. Call it every fifth of the lease.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`].
    pub async fn beat(&self, worker: &Worker, leases: &[Lease]) -> Result<Beat, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.beat(worker, leases).await,
            Inner::Redis(queue) => queue.beat(worker, leases).await,
        }
    }

    /// Ends attempts; the outcomes are in order, and durable when answered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a result over the bound, [`Error::Store`], [`Error::Redis`] (the outcome is then unknown).
    pub async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Outcome>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.finish(finishes).await,
            Inner::Redis(queue) => queue.finish(finishes).await,
        }
    }

    /// [`finish`](Self::finish) and [`claim`](Self::claim) in one call: what ended makes room for what is claimed, and
    /// the claim does not wait for the disk.
    ///
    /// # Errors
    /// Those of finishing, and of a claim out of range; then nothing is claimed. When Redis fails after the finishing, the
    /// outcomes are told and no jobs come.
    pub async fn step(&self, finishes: Vec<Finish>, claim: Claim) -> Result<(Vec<Outcome>, Vec<Claimed>), Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.step(finishes, claim).await,
            Inner::Redis(queue) => queue.step(finishes, claim).await,
        }
    }

    /// Notes the progress of running attempts.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`].
    pub async fn progress(&self, updates: Vec<Progress>) -> Result<Vec<Outcome>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.progress(updates),
            Inner::Redis(queue) => queue.progress(updates).await,
        }
    }

    /// What is known about a job of this queue.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], [`Error::Damaged`], [`Error::Store`], [`Error::Redis`].
    pub async fn job(&self, id: &JobId) -> Result<Job, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.job(id).await,
            Inner::Redis(queue) => queue.job(id).await,
        }
    }

    /// Like [`job`](Self::job), but payloads and results above 4 KiB are left out.
    ///
    /// # Errors
    /// As there.
    pub async fn look(&self, id: &JobId) -> Result<Job, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.look(id).await,
            Inner::Redis(queue) => queue.look(id).await,
        }
    }

    /// See [`Queues::cancel`](crate::Queues::cancel).
    ///
    /// # Errors
    /// As there.
    pub async fn cancel(&self, id: &JobId) -> Result<Job, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.cancel(id).await,
            Inner::Redis(queue) => queue.cancel(id).await,
        }
    }

    /// See [`Queues::retry`](crate::Queues::retry).
    ///
    /// # Errors
    /// As there.
    pub async fn retry(&self, id: &JobId) -> Result<Job, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.retry(id).await,
            Inner::Redis(queue) => queue.retry(id).await,
        }
    }

    /// Lists jobs without scanning: pages of one state, or of all, in order of submission.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit out of range, [`Error::Damaged`], [`Error::Store`], [`Error::Redis`].
    pub async fn jobs(&self, filter: JobFilter) -> Result<JobPage, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.jobs(filter).await,
            Inner::Redis(queue) => queue.jobs(filter).await,
        }
    }

    /// Deletes all jobs in this state for good and says how many; running jobs cannot be purged.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `Running`, [`Error::Store`], [`Error::Redis`].
    pub async fn purge(&self, state: State) -> Result<u64, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.purge(state).await,
            Inner::Redis(queue) => queue.purge(state).await,
        }
    }

    /// Holds off claims until [`resume`](Self::resume); running jobs go on. Survives a restart.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`].
    pub async fn pause(&self) -> Result<(), Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.set_paused(true).await,
            Inner::Redis(queue) => queue.set_paused(true).await,
        }
    }

    /// Lets claims through again.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`].
    pub async fn resume(&self) -> Result<(), Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.set_paused(false).await,
            Inner::Redis(queue) => queue.set_paused(false).await,
        }
    }

    /// A snapshot of the queue.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`] when the backend cannot be asked.
    pub async fn stats(&self) -> Result<QueueStats, Error> {
        match &self.inner {
            Inner::Embedded(queue) => Ok(queue.stats()),
            Inner::Redis(queue) => queue.stats().await,
        }
    }

    /// Up to `limit` transitions after `place` (0 = from the oldest kept), oldest first: the log can be replayed.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`].
    pub async fn history(&self, place: u64, limit: usize) -> Result<Vec<Transition>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.history(place, limit).await,
            Inner::Redis(queue) => queue.history(place, limit).await,
        }
    }

    /// Transitions and progress as they happen. A receiver that falls more than 1024 behind is told how many it
    /// missed and should look again at what it watches; one that ends has lost its link to Redis and should subscribe
    /// and look again. What happens after the return is heard.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis cannot be reached.
    pub async fn subscribe(&self) -> Result<broadcast::Receiver<Transition>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => Ok(queue.subscribe()),
            Inner::Redis(queue) => queue.subscribe().await,
        }
    }

    /// Transitions and progress of one job as they happen; others do not wake the receiver. One that falls more than
    /// 16 behind is told how many it missed and should look again; one that ends, too, after following anew.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis cannot be reached.
    pub async fn follow(&self, id: &JobId) -> Result<broadcast::Receiver<Transition>, Error> {
        match &self.inner {
            Inner::Embedded(queue) => Ok(queue.follow(id)),
            Inner::Redis(queue) => queue.follow(id).await,
        }
    }

    /// Running jobs of this queue somebody has asked to cancel, at once and from whatever process. A message may be lost
    /// with its link: what [`beat`](Self::beat) says is complete.
    #[must_use]
    pub fn cancels(&self) -> broadcast::Receiver<JobId> {
        match &self.inner {
            Inner::Embedded(queue) => queue.cancels(),
            Inner::Redis(queue) => queue.cancels(),
        }
    }

    /// Runs due upkeep now (promote, rescue, expire, prune); it happens by itself, tests with a manual clock call it.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Redis`].
    pub async fn upkeep(&self) -> Result<(), Error> {
        match &self.inner {
            Inner::Embedded(queue) => queue.upkeep().await,
            Inner::Redis(queue) => queue.upkeep().await,
        }
    }
}
