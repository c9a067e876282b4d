//! [`Queue`]: a handle to one queue; the same verbs with the same meaning on every backend.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::embedded::EmbeddedQueue;
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
}

impl Queue {
    pub(crate) fn embedded(queue: Arc<EmbeddedQueue>) -> Self {
        Self { inner: Inner::Embedded(queue) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        let Inner::Embedded(queue) = &self.inner;
        queue.name()
    }

    /// Accepts a job. The answer means it is as durable as the store's mode promises; callers that push at the same
    /// time share one write.
    ///
    /// # Errors
    /// [`Error::Rejected`] when it is refused, [`Error::Store`] when the store fails (the outcome is then unknown).
    pub async fn push(&self, job: NewJob) -> Result<Pushed, Error> {
        let mut pushed = self.push_many(vec![job], None).await?;
        pushed.pop().unwrap_or(Err(Rejected::Expired)).map_err(Error::Rejected)
    }

    /// Accepts many jobs in one write, each on its own: the answers are in order. With `idempotency`, a repeated
    /// call answers with the jobs of the first.
    ///
    /// # Errors
    /// [`Error::IdempotencyMismatch`] when the key was used for something else, [`Error::Store`].
    pub async fn push_many(
        &self,
        jobs: Vec<NewJob>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Result<Pushed, Rejected>>, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.push_many(jobs, idempotency).await
    }

    /// Takes up to `limit` jobs, most urgent first; waits up to `wait` for the first one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit or worker name out of range, [`Error::Store`].
    pub async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.claim(claim).await
    }

    /// Renews leases and learns what was cancelled or lost meanwhile. Call it every fifth of the lease.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn beat(&self, worker: &Worker, leases: &[Lease]) -> Result<Beat, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.beat(worker, leases).await
    }

    /// Ends attempts; the outcomes are in order, and durable when answered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a result over the bound, [`Error::Store`] (the outcome is then unknown).
    pub async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Outcome>, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.finish(finishes).await
    }

    /// [`finish`](Self::finish) and [`claim`](Self::claim) in one call: what ended makes room for what is claimed, and
    /// the claim does not wait for the disk.
    ///
    /// # Errors
    /// As of the two; when finishing fails nothing is claimed.
    pub async fn step(&self, finishes: Vec<Finish>, claim: Claim) -> Result<(Vec<Outcome>, Vec<Claimed>), Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.step(finishes, claim).await
    }

    /// Notes the progress of running attempts.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn progress(&self, updates: Vec<Progress>) -> Result<Vec<Outcome>, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.progress(updates)
    }

    /// What is known about a job of this queue.
    ///
    /// # Errors
    /// [`Error::JobNotFound`], [`Error::Damaged`], [`Error::Store`].
    pub async fn job(&self, id: &JobId) -> Result<Job, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.job(id).await
    }

    /// Like [`job`](Self::job), but payloads and results above 4 KiB are left out.
    ///
    /// # Errors
    /// As there.
    pub async fn look(&self, id: &JobId) -> Result<Job, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.look(id).await
    }

    /// See [`Queues::cancel`](crate::Queues::cancel).
    ///
    /// # Errors
    /// As there.
    pub async fn cancel(&self, id: &JobId) -> Result<Job, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.cancel(id).await
    }

    /// See [`Queues::retry`](crate::Queues::retry).
    ///
    /// # Errors
    /// As there.
    pub async fn retry(&self, id: &JobId) -> Result<Job, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.retry(id).await
    }

    /// Lists jobs without scanning: pages of one state, or of all, in order of submission.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit out of range, [`Error::Damaged`], [`Error::Store`].
    pub async fn jobs(&self, filter: JobFilter) -> Result<JobPage, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.jobs(filter).await
    }

    /// Deletes all jobs in this state for good and says how many; running jobs cannot be purged.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `Running`, [`Error::Store`].
    pub async fn purge(&self, state: State) -> Result<u64, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.purge(state).await
    }

    /// Holds off claims until [`resume`](Self::resume); running jobs go on. Survives a restart.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn pause(&self) -> Result<(), Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.set_paused(true).await
    }

    /// Lets claims through again.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn resume(&self) -> Result<(), Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.set_paused(false).await
    }

    /// A snapshot of the queue.
    ///
    /// # Errors
    /// [`Error::Store`] when the backend cannot be asked.
    pub async fn stats(&self) -> Result<QueueStats, Error> {
        let Inner::Embedded(queue) = &self.inner;
        Ok(queue.stats())
    }

    /// Up to `limit` transitions after `place` (0 = from the oldest kept), oldest first: the log can be replayed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn history(&self, place: u64, limit: usize) -> Result<Vec<Transition>, Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.history(place, limit).await
    }

    /// Transitions and progress as they happen. A receiver that falls more than 1024 behind is told how many it
    /// missed and should look again at what it watches.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Transition> {
        let Inner::Embedded(queue) = &self.inner;
        queue.subscribe()
    }

    /// Transitions and progress of one job as they happen; others do not wake the receiver. One that falls more than
    /// 16 behind is told how many it missed and should look again.
    #[must_use]
    pub fn follow(&self, id: &JobId) -> broadcast::Receiver<Transition> {
        let Inner::Embedded(queue) = &self.inner;
        queue.follow(id)
    }

    /// Runs due upkeep now (promote, rescue, expire, prune); it happens by itself, tests with a manual clock call it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn upkeep(&self) -> Result<(), Error> {
        let Inner::Embedded(queue) = &self.inner;
        queue.upkeep().await
    }
}
