//! One queue of the embedded backend: the verbs around the lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_store::{Store, Ticket};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use super::Shared;
use super::upkeep::BUDGET;
use crate::alarm::Alarm;
use crate::core::{Core, Effects, Found, Grant, Renewed};
use crate::followers::Followers;
use crate::meters::Meters;
use crate::totals::Totals;
use crate::waiting::Waiting;
use crate::{
    Beat, Claim, Claimed, Clock, Config, Error, Finish, Idempotency, Job, JobId, Lease, NewJob, Outcome, Progress,
    Pushed, QueueName, QueueStats, Rejected, State, Transition, UnixMillis, Worker,
};

/// Subscribers may be this far behind.
const SUBSCRIBER_LAG: usize = 1024;

/// One queue.
pub(crate) struct EmbeddedQueue {
    name: QueueName,
    no: u32,
    store: Store,
    /// Held while the rules decide and their records are handed to the store; never across an await.
    core: Mutex<Core>,
    /// Wakes waiting claims, one for each job that became available.
    arrivals: Notify,
    waiting: AtomicU64,
    /// Made for the first subscriber.
    events: OnceLock<broadcast::Sender<Transition>>,
    /// Made for the first who must stop running jobs.
    cancels: OnceLock<broadcast::Sender<JobId>>,
    /// Those who follow single jobs.
    followers: Followers,
    alarm: Arc<Alarm>,
    totals: Arc<Totals>,
    config: Arc<Config>,
    meters: Meters,
}

impl EmbeddedQueue {
    pub(super) fn new(mut core: Core, shared: &Shared) -> Self {
        core.start_clock(shared.config.clock.read().1);
        shared.totals.change((0, 0), (core.live(), core.bytes()));
        let name = core.name().clone();
        Self {
            no: core.no(),
            store: shared.store.clone(),
            arrivals: Notify::new(),
            waiting: AtomicU64::new(0),
            events: OnceLock::new(),
            cancels: OnceLock::new(),
            followers: Followers::default(),
            alarm: Arc::clone(&shared.alarm),
            totals: Arc::clone(&shared.totals),
            config: Arc::clone(&shared.config),
            meters: Meters::new(&shared.registry, name.as_str()),
            core: Mutex::new(core),
            name,
        }
    }

    pub(crate) fn name(&self) -> &QueueName {
        &self.name
    }

    pub(super) fn no(&self) -> u32 {
        self.no
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn id(&self, number: u64) -> JobId {
        JobId { queue: self.name.clone(), number }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic inside the rules is a bug; going on with the index it left is better than losing the queue, and the
        // records on disk are only ever written whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the rules decide and hands over what they want written, in one critical section; then tells others.
    fn act<T, W>(
        &self,
        decide: impl FnOnce(&mut Core, i64, &mut Effects) -> T,
        write: impl FnOnce(&Store, tidegate_store::Batch, &T) -> W,
    ) -> (T, W) {
        let mut effects = Effects::default();
        let mut core = self.lock();
        let (UnixMillis(now), steps) = self.config.clock.read();
        core.follow_clock(steps);
        if matches!(self.config.clock, Clock::System) {
            core.forgive_standstill(now);
        }
        let before = (core.live(), core.bytes());
        let answer = decide(&mut core, now, &mut effects);
        self.totals.change(before, (core.live(), core.bytes()));
        let first = core.log(now, &mut effects);
        let written = write(&self.store, std::mem::take(&mut effects.batch), &answer);
        let (ready, next_at) = (core.ready(), core.next_at());
        drop(core);
        self.tell(now, first, effects);
        self.wake(ready);
        if let Some(next_at) = next_at {
            self.alarm.arm(next_at);
        }
        (answer, written)
    }

    /// Like [`act`](Self::act), for verbs whose answer must be durable.
    fn act_durably<T>(&self, decide: impl FnOnce(&mut Core, i64, &mut Effects) -> T) -> (T, Ticket) {
        self.act(decide, |store, batch, _| store.submit(batch))
    }

    /// Like [`act`](Self::act), for what a crash may undo.
    fn act_loosely<T>(&self, decide: impl FnOnce(&mut Core, i64, &mut Effects) -> T) -> T {
        self.act(decide, |store, batch, _| submit_loose(store, batch)).0
    }

    fn tell(&self, now: i64, first: u64, effects: Effects) {
        for (number, _, change) in &effects.changes {
            self.meters.count(change, 1);
            if *change == crate::Change::CancelRequested
                && let Some(cancels) = self.cancels.get()
            {
                // Nobody may be left to hear it.
                let _ = cancels.send(self.id(*number));
            }
        }
        let events = self.events.get().filter(|events| events.receiver_count() > 0);
        if events.is_none() && self.followers.is_empty() {
            return;
        }
        let mut place = first;
        for (number, attempt, change) in effects.changes {
            let logged = !matches!(change, crate::Change::Progress { .. });
            let at = if logged { place } else { 0 };
            place += u64::from(logged);
            let transition = Transition { place: at, at: UnixMillis(now), id: self.id(number), attempt, change };
            self.followers.tell(number, &transition);
            if let Some(events) = events {
                // Fails only when the last subscriber has just left.
                let _ = events.send(transition);
            }
        }
    }

    fn wake(&self, ready: usize) {
        let waiting = usize::try_from(self.waiting.load(Ordering::SeqCst)).unwrap_or(usize::MAX);
        for _ in 0..ready.min(waiting) {
            self.arrivals.notify_one();
        }
    }

    pub(crate) async fn push_many(
        &self,
        jobs: Vec<NewJob>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Result<Pushed, Rejected>>, Error> {
        crate::check::length("jobs", jobs.len())?;
        crate::check::idempotency(idempotency.as_ref())?;
        self.store.check_growth()?;
        if let Some(full) = self.totals.full(&self.config) {
            self.meters.rejected.add(jobs.len() as u64);
            return Ok(vec![Err(full); jobs.len()]);
        }
        let (answers, ticket) = self.act_durably(|core, now, effects| {
            core.upkeep(now, BUDGET, effects);
            core.push(now, jobs, idempotency.as_ref(), effects)
        });
        let answers = answers?;
        ticket.await?;
        for answer in &answers {
            match answer {
                Err(_) => self.meters.rejected.inc(),
                Ok(pushed) if pushed.duplicate => self.meters.duplicates.inc(),
                Ok(_) => {}
            }
        }
        Ok(answers)
    }

    pub(crate) async fn claim(self: &Arc<Self>, claim: Claim) -> Result<Vec<Claimed>, Error> {
        crate::check::claim(&claim)?;
        let until = Instant::now() + claim.wait;
        let waiting = (!claim.wait.is_zero()).then(|| Waiting::new(&self.waiting));
        loop {
            let mut arrival = std::pin::pin!(self.arrivals.notified());
            let mut drain = std::pin::pin!(self.alarm.drain.notified());
            // Registered before looking, so nothing that arrives after the look is missed.
            arrival.as_mut().enable();
            drain.as_mut().enable();
            self.store.check()?;
            let (grants, ticket) = self.grant(&claim);
            if !grants.is_empty() {
                drop(waiting);
                return self.deliver(grants, [ticket, None]).await;
            }
            if waiting.is_none() || self.alarm.is_draining() {
                return Ok(Vec::new());
            }
            tokio::select! {
                () = arrival => {}
                () = drain => {}
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }

    /// Takes jobs; with a ticket when a crash must not forget it, see [`Grant::supersedes`].
    fn grant(&self, claim: &Claim) -> (Vec<Grant>, Option<Ticket>) {
        let decide = |core: &mut Core, now, effects: &mut Effects| {
            core.upkeep(now, BUDGET, effects);
            core.claim(now, claim.worker.local, claim.limit, effects)
        };
        let (grants, ticket) = self.act(decide, |store, batch, grants| {
            let durable = grants.iter().any(|grant| grant.supersedes);
            if durable {
                return Some(store.submit(batch));
            }
            submit_loose(store, batch);
            None
        });
        for grant in &grants {
            self.meters.wait.record(Duration::from_millis(u64::try_from(grant.waited_ms).unwrap_or(0)));
        }
        (grants, ticket)
    }

    pub(crate) async fn beat(&self, worker: &Worker, leases: &[Lease]) -> Result<Beat, Error> {
        crate::check::length("leases", leases.len())?;
        crate::check::worker(worker)?;
        self.store.check()?;
        let (answers, paused) = self.act_loosely(|core, now, _| {
            let answers: Vec<Renewed> = leases.iter().map(|lease| core.renew(now, *lease)).collect();
            (answers, core.paused)
        });
        let of =
            |wanted: Renewed| leases.iter().zip(&answers).filter(|(_, a)| **a == wanted).map(|(l, _)| *l).collect();
        let beat =
            Beat { lease: self.config.lease, cancelled: of(Renewed::Cancelled), stale: of(Renewed::Stale), paused };
        self.meters.stale.add(beat.stale.len() as u64);
        Ok(beat)
    }

    pub(crate) async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Outcome>, Error> {
        if finishes.is_empty() {
            return Ok(Vec::new());
        }
        let (outcomes, ticket) = self.submit_finishes(finishes)?;
        ticket.await?;
        Ok(outcomes)
    }

    pub(crate) async fn step(
        self: &Arc<Self>,
        finishes: Vec<Finish>,
        claim: Claim,
    ) -> Result<(Vec<Outcome>, Vec<Claimed>), Error> {
        crate::check::claim(&claim)?;
        if finishes.is_empty() {
            return Ok((Vec::new(), self.claim(claim).await?));
        }
        let (outcomes, finished) = self.submit_finishes(finishes)?;
        // What is there now is taken while the finishes are on their way to the disk, and handed out after them.
        let (grants, claimed) = self.grant(&claim);
        if grants.is_empty() {
            finished.await?;
            return Ok((outcomes, self.claim(claim).await?));
        }
        let claimed = self.deliver(grants, [Some(finished), claimed]).await?;
        Ok((outcomes, claimed))
    }

    fn submit_finishes(&self, finishes: Vec<Finish>) -> Result<(Vec<Outcome>, Ticket), Error> {
        crate::check::finishes(&finishes, self.config.payload_max)?;
        self.store.check()?;
        let (outcomes, ticket) = self.act_durably(|core, now, effects| {
            finishes.into_iter().map(|finish| core.finish(now, finish, effects)).collect::<Vec<_>>()
        });
        self.count_stale(&outcomes);
        Ok((outcomes, ticket))
    }

    /// [`finish`](Self::finish) for those who cannot wait.
    pub(super) fn finish_loose(&self, finishes: Vec<Finish>) {
        if !finishes.is_empty() {
            self.act_loosely(|core, now, effects| {
                for finish in finishes {
                    core.finish(now, finish, effects);
                }
            });
        }
    }

    pub(crate) fn progress(&self, updates: Vec<Progress>) -> Result<Vec<Outcome>, Error> {
        crate::check::length("updates", updates.len())?;
        crate::check::notes(&updates)?;
        self.store.check()?;
        let outcomes = self.act_loosely(|core, now, effects| {
            let outcome = |ok| if ok { Outcome::Ok } else { Outcome::Stale };
            updates.into_iter().map(|update| outcome(core.progress(now, update, effects))).collect::<Vec<_>>()
        });
        self.count_stale(&outcomes);
        Ok(outcomes)
    }

    fn count_stale(&self, outcomes: &[Outcome]) {
        self.meters.stale.add(outcomes.iter().filter(|outcome| **outcome == Outcome::Stale).count() as u64);
    }

    pub(crate) async fn cancel(self: &Arc<Self>, id: &JobId) -> Result<Job, Error> {
        self.store.check()?;
        let ((before, answer), ticket) = self.act_durably(|core, now, effects| {
            let before = core.find(id.number);
            (before, core.cancel(now, id.number, effects))
        });
        answer?;
        ticket.await?;
        match (self.look(id).await, before) {
            // With no retention it is gone by now; it was cancelled all the same.
            (Err(Error::JobNotFound { .. }), Some(Found::Live(job, _))) => {
                Ok(Job { state: State::Cancelled, run_at: None, finished_at: Some(self.config.clock.now()), ..*job })
            }
            (answer, _) => answer,
        }
    }

    pub(crate) async fn retry(self: &Arc<Self>, id: &JobId) -> Result<Job, Error> {
        self.store.check_growth()?;
        // Read first: the rules decide on the record, and refuse when the state has changed meanwhile.
        let job = self.look(id).await?;
        let record = match job.state {
            state if state.is_finished() => self.record(id.number, state).await?,
            state => return Err(Error::Conflict { id: id.clone(), state, verb: "retry" }),
        };
        let record = record.ok_or_else(|| Error::JobNotFound { id: id.clone() })?;
        let stored = self.decode_job(id.number, &record)?;
        let (answer, ticket) = self.act_durably(|core, now, effects| core.retry(now, id.number, &stored, effects));
        answer?;
        ticket.await?;
        self.look(id).await
    }

    pub(crate) async fn purge(&self, state: State) -> Result<u64, Error> {
        crate::check::purge(state)?;
        self.store.check()?;
        let mut total = 0;
        loop {
            let (count, ticket) = self.act_durably(|core, _, effects| core.purge(state, BUDGET, effects));
            ticket.await?;
            total += count as u64;
            if count < BUDGET {
                return Ok(total);
            }
        }
    }

    pub(crate) async fn set_paused(&self, paused: bool) -> Result<(), Error> {
        self.store.check()?;
        let ((), ticket) = self.act_durably(|core, _, effects| core.set_paused(paused, effects));
        Ok(ticket.await?)
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let core = self.lock();
        let now = self.config.clock.now();
        let limits = core.limits();
        let stats = QueueStats {
            name: self.name.clone(),
            counts: core.counts(),
            paused: core.paused,
            oldest_wait: core.oldest_available().map(|at| now.since(UnixMillis(at))),
            bytes: core.bytes(),
            jobs_max: limits.jobs_max,
            bytes_max: limits.bytes_max,
            key_limit: limits.key_limit,
            running_limit: limits.running_limit,
            enqueued_per_second: core.enqueued_per_second(now.0),
            finished_per_second: core.finished_per_second(now.0),
            waiting_claims: self.waiting.load(Ordering::Relaxed),
        };
        self.meters.idempotency_forgotten.set(core.forgotten_early() as f64);
        drop(core);
        self.meters.show(&stats);
        stats
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Transition> {
        self.events.get_or_init(|| broadcast::channel(SUBSCRIBER_LAG).0).subscribe()
    }

    pub(crate) fn cancels(&self) -> broadcast::Receiver<JobId> {
        self.cancels.get_or_init(|| broadcast::channel(SUBSCRIBER_LAG).0).subscribe()
    }

    pub(crate) fn follow(&self, id: &JobId) -> broadcast::Receiver<Transition> {
        self.followers.follow(id.number)
    }

    pub(crate) async fn upkeep(&self) -> Result<(), Error> {
        self.store.check()?;
        while self.keep_up() {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Does some of the upkeep that is due; `true` when there may be more.
    pub(super) fn keep_up(&self) -> bool {
        let due = self.lock().next_at().is_some_and(|at| at <= self.config.clock.now().0);
        due && self.store.check().is_ok() && self.act_loosely(|core, now, effects| core.upkeep(now, BUDGET, effects))
    }

    pub(super) fn next_at(&self) -> i64 {
        self.lock().next_at().unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for EmbeddedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedQueue").field("name", &self.name).finish_non_exhaustive()
    }
}

fn submit_loose(store: &Store, batch: tidegate_store::Batch) {
    if !batch.is_empty() {
        store.submit_loose(batch);
    }
}
