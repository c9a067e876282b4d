//! Random histories, restarts and crashes included, against the naive model: every answer and every state agree.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{LEASE, Limits, Model, ModelJob};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestCaseError, TestRunner};
use tidegate_queue::{
    Claim, Clock, Config, Error, Finish, JobFilter, Lease, ManualClock, NewJob, Outcome, Queue, QueueConfig, QueueName,
    Queues, Rejected, Retry, State, UnixMillis, Worker,
};

const START: i64 = 1_700_000_000_000;
const DAY: i64 = 86_400_000;

#[derive(Clone, Debug)]
enum Op {
    Push(Push),
    Claim { limit: usize, local: bool },
    Complete(usize),
    Fail(usize, Option<i64>),
    Release(usize),
    Renew(usize),
    Cancel(usize),
    Retry(usize),
    Pause(bool),
    Purge(State),
    Advance(i64),
    Reopen { crash: bool },
}

#[derive(Clone, Debug)]
struct Push {
    priority: u8,
    key: Option<u8>,
    dedup: Option<(u8, Option<i64>)>,
    delay: i64,
    expires_in: Option<i64>,
    max_attempts: u16,
    timeout: i64,
    retention: i64,
}

fn push() -> impl Strategy<Value = Push> {
    let some = |range| proptest::option::weighted(0.4, range);
    let dedup = proptest::option::weighted(0.2, (0..2u8, proptest::option::of(1..20_000i64)));
    let delay = prop_oneof![3 => Just(0), 1 => 1..20_000i64];
    let expires = proptest::option::weighted(0.2, 1..30_000i64);
    let timeout = prop_oneof![2 => Just(DAY), 1 => 1..25_000i64];
    let retention = prop_oneof![2 => Just(DAY), 1 => Just(0), 1 => 1..30_000i64];
    (0..3u8, some(0..3u8), dedup, delay, expires, 1..4u16, timeout, retention).prop_map(
        |(priority, key, dedup, delay, expires_in, max_attempts, timeout, retention)| Push {
            priority,
            key,
            dedup,
            delay,
            expires_in,
            max_attempts,
            timeout,
            retention,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => push().prop_map(Op::Push),
        6 => (1..4usize, any::<bool>()).prop_map(|(limit, local)| Op::Claim { limit, local }),
        4 => any::<usize>().prop_map(Op::Complete),
        3 => (any::<usize>(), proptest::option::weighted(0.8, 0..9_000i64)).prop_map(|(i, delay)| Op::Fail(i, delay)),
        2 => any::<usize>().prop_map(Op::Release),
        2 => any::<usize>().prop_map(Op::Renew),
        2 => any::<usize>().prop_map(Op::Cancel),
        2 => any::<usize>().prop_map(Op::Retry),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => prop::sample::select(&State::ALL[..]).prop_map(Op::Purge),
        4 => (0..15_000i64).prop_map(Op::Advance),
        1 => any::<bool>().prop_map(|crash| Op::Reopen { crash }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (3..12usize, 1..8usize, 1..3usize, 2..6usize).prop_map(|(jobs, finished, per_key, running)| Limits {
        jobs,
        finished,
        per_key,
        running,
    })
}

/// Where the queues of a history live.
pub trait Place {
    /// Another start on what is kept.
    fn open(&self, config: Config) -> impl Future<Output = Queues>;

    /// Loses whatever was not durable; whether a start rebuilds the queue from what is kept, with fresh leases.
    fn restart(&self, crash: bool) -> bool;
}

/// The queue under test beside the model.
struct Pair<P> {
    place: P,
    clock: ManualClock,
    queue: Queue,
    queues: Queues,
    model: Model,
    /// The model as of the last answer that had to be durable.
    durable: Model,
    leases: Vec<Lease>,
    ids: Vec<String>,
    /// The newest lease that was told, by job: no older one may be believed again, whatever crashes.
    newest: std::collections::BTreeMap<String, Lease>,
}

fn config(limits: &Limits, clock: &ManualClock) -> Config {
    let queue = QueueConfig {
        jobs_max: limits.jobs as u64,
        finished_max: limits.finished as u64,
        key_limit: Some(limits.per_key as u32),
        running_limit: Some(limits.running as u32),
        ..QueueConfig::default()
    };
    Config { default: queue, clock: Clock::Manual(clock.clone()), seed: Some(7), ..Config::default() }
}

impl<P: Place> Pair<P> {
    async fn new(place: P, limits: Limits) -> Self {
        let clock = ManualClock::new(UnixMillis(START));
        let queues = place.open(config(&limits, &clock)).await;
        let queue = queues.queue(&QueueName::new("q").unwrap()).await.unwrap();
        let model = Model::new(limits);
        Self {
            place,
            clock,
            queue,
            queues,
            durable: model.clone(),
            model,
            leases: Vec::new(),
            ids: Vec::new(),
            newest: Default::default(),
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().0
    }

    async fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Push(push) => self.push(push).await?,
            Op::Claim { limit, local } => self.claim(limit, local).await?,
            Op::Complete(i) => {
                self.finish(
                    i,
                    |lease| Finish::Complete { lease, result: None },
                    |m, now, at| m.end(now, at, State::Completed),
                )
                .await?;
            }
            Op::Fail(i, delay) => {
                let retry = delay.map_or(Retry::Never, |ms| Retry::In(Duration::from_millis(ms as u64)));
                self.finish(
                    i,
                    |lease| Finish::Fail { lease, error: "no".into(), retry },
                    |m, now, at| m.fail(now, at, delay),
                )
                .await?;
            }
            Op::Release(i) => self.finish(i, |lease| Finish::Release { lease }, Model::release).await?,
            Op::Renew(i) => self.renew(i).await?,
            Op::Cancel(i) => self.cancel(i).await?,
            Op::Retry(i) => self.retry(i).await?,
            Op::Pause(paused) => {
                let answer = if paused { self.queue.pause().await } else { self.queue.resume().await };
                answer.unwrap();
                self.model.paused = paused;
                self.durable = self.model.clone();
            }
            Op::Purge(state) => self.purge(state).await?,
            Op::Advance(ms) => self.clock.advance(Duration::from_millis(ms as u64)),
            Op::Reopen { crash } => self.reopen(crash).await,
        }
        self.queue.upkeep().await.unwrap();
        self.model.upkeep(self.now(), true);
        self.compare().await
    }

    async fn push(&mut self, push: Push) -> Result<(), TestCaseError> {
        let now = self.now();
        let ms = |ms: i64| Duration::from_millis(ms as u64);
        // No jitter: a timed out attempt is retried at once.
        let mut job =
            NewJob::new("k", "{}").priority(push.priority).max_attempts(push.max_attempts).timeout(ms(push.timeout));
        job = job.delay(ms(push.delay)).backoff(Duration::ZERO, Duration::ZERO);
        job.key = push.key.map(|key| Arc::from(format!("key{key}")));
        job.dedup_key = push.dedup.map(|(key, _)| Arc::from(format!("dedup{key}")));
        job.dedup_window = push.dedup.and_then(|(_, window)| window).map(ms);
        job.expires_in = push.expires_in.map(ms);
        job.retention = ms(push.retention);
        let answer = self.queue.push(job).await;

        let expires_at = push.expires_in.map_or(i64::MAX, |after| now + after);
        if let Some(first) = push.dedup.and_then(|(key, _)| self.model.duplicate(now, key)) {
            let pushed = answer.unwrap();
            prop_assert!(pushed.duplicate);
            prop_assert_eq!(pushed.id.to_string(), first.id.clone());
        } else if expires_at <= now + push.delay {
            prop_assert!(matches!(answer, Err(Error::Rejected(Rejected::Expired))), "{:?}", answer);
        } else if self.model.live() >= self.model.limits.jobs {
            prop_assert!(matches!(answer, Err(Error::Rejected(Rejected::Full { .. }))), "{:?}", answer);
        } else {
            let pushed = answer.unwrap();
            prop_assert!(!pushed.duplicate);
            self.ids.push(pushed.id.to_string());
            self.model.push(now, model_job(now, &push, pushed.id.to_string(), expires_at));
        }
        self.durable = self.model.clone();
        Ok(())
    }

    async fn claim(&mut self, limit: usize, local: bool) -> Result<(), TestCaseError> {
        let worker = Worker { name: "w".into(), local };
        let claimed = self.queue.claim(Claim { worker, limit, wait: Duration::ZERO }).await.unwrap();
        let taken = self.model.claim(self.now(), limit, local);
        let expected: Vec<_> =
            taken.iter().map(|i| (self.model.jobs[*i].id.clone(), self.model.jobs[*i].attempt)).collect();
        let got: Vec<_> = claimed.iter().map(|job| (job.id.to_string(), job.attempt)).collect();
        prop_assert_eq!(got, expected);
        let mut supersedes = false;
        for (index, job) in taken.into_iter().zip(claimed) {
            prop_assert!(!self.leases.contains(&job.lease), "a lease was granted twice");
            self.model.jobs[index].lease = Some(job.lease);
            supersedes |= std::mem::take(&mut self.model.jobs[index].rescued);
            self.leases.push(job.lease);
            self.newest.insert(job.id.to_string(), job.lease);
        }
        // Whoever held it before must not be believed again, not even after a crash.
        if supersedes {
            self.durable = self.model.clone();
        }
        Ok(())
    }

    async fn finish(
        &mut self,
        pick: usize,
        finish: impl FnOnce(Lease) -> Finish,
        then: impl FnOnce(&mut Model, i64, usize),
    ) -> Result<(), TestCaseError> {
        let Some(lease) = pick_of(&self.leases, pick) else { return Ok(()) };
        let outcome = self.queue.finish(vec![finish(lease)]).await.unwrap()[0];
        if outcome == Outcome::Ok {
            prop_assert!(self.newest.values().any(|newest| *newest == lease), "a superseded lease was believed");
        }
        let holder = self.model.holder(self.now(), lease);
        prop_assert_eq!(outcome, if holder.is_some() { Outcome::Ok } else { Outcome::Stale });
        if let Some(index) = holder {
            then(&mut self.model, self.clock.now().0, index);
        }
        self.durable = self.model.clone();
        Ok(())
    }

    async fn renew(&mut self, pick: usize) -> Result<(), TestCaseError> {
        let Some(lease) = pick_of(&self.leases, pick) else { return Ok(()) };
        let beat = self.queue.beat(&Worker::remote("w"), &[lease]).await.unwrap();
        let now = self.now();
        match self.model.holder(now, lease) {
            None => prop_assert_eq!(beat.stale, vec![lease]),
            Some(index) => prop_assert_eq!(beat.cancelled.contains(&lease), self.model.renew(now, index)),
        }
        Ok(())
    }

    async fn cancel(&mut self, pick: usize) -> Result<(), TestCaseError> {
        let Some(id) = pick_of(&self.ids, pick) else { return Ok(()) };
        let answer = self.queues.cancel(&id.parse().unwrap()).await;
        let now = self.now();
        let found = self.model.jobs.iter().position(|job| job.id == id);
        match found.map(|index| (index, self.model.jobs[index].state)) {
            None => prop_assert!(matches!(answer, Err(Error::JobNotFound { .. })), "{:?}", answer),
            Some((_, State::Completed | State::Discarded)) => {
                prop_assert!(matches!(answer, Err(Error::Conflict { .. })), "{:?}", answer);
            }
            Some((_, State::Cancelled)) => prop_assert!(answer.is_ok()),
            Some((index, State::Running)) => self.model.jobs[index].cancelling = true,
            Some((index, _)) => {
                prop_assert_eq!(answer.unwrap().state, State::Cancelled);
                self.model.end(now, index, State::Cancelled);
            }
        }
        self.durable = self.model.clone();
        Ok(())
    }

    async fn retry(&mut self, pick: usize) -> Result<(), TestCaseError> {
        let Some(id) = pick_of(&self.ids, pick) else { return Ok(()) };
        let answer = self.queues.retry(&id.parse().unwrap()).await;
        let now = self.now();
        let Some(index) = self.model.jobs.iter().position(|job| job.id == id) else {
            prop_assert!(matches!(answer, Err(Error::JobNotFound { .. })), "{:?}", answer);
            return Ok(());
        };
        let job = &self.model.jobs[index];
        if !job.state.is_finished() {
            prop_assert!(matches!(answer, Err(Error::Conflict { .. })), "{:?}", answer);
            return Ok(());
        }
        let held = job.dedup.is_some_and(|(key, _)| self.model.duplicate(now, key).is_some());
        if job.state == State::Completed || held {
            prop_assert!(matches!(answer, Err(Error::Conflict { .. })), "{:?}", answer);
        } else if self.model.live() >= self.model.limits.jobs {
            prop_assert!(matches!(answer, Err(Error::Rejected(Rejected::Full { .. }))), "{:?}", answer);
        } else {
            prop_assert!(answer.is_ok(), "{:?}", answer);
            self.model.retry(now, index);
        }
        self.durable = self.model.clone();
        Ok(())
    }

    async fn purge(&mut self, state: State) -> Result<(), TestCaseError> {
        let answer = self.queue.purge(state).await;
        if state == State::Running {
            prop_assert!(answer.is_err());
            return Ok(());
        }
        prop_assert_eq!(answer.unwrap(), self.model.purge(state));
        self.durable = self.model.clone();
        Ok(())
    }

    async fn reopen(&mut self, crash: bool) {
        let rebuilds = self.place.restart(crash);
        if rebuilds && crash {
            self.model = self.durable.clone();
        }
        let config = config(&self.model.limits, &self.clock);
        self.queues = self.place.open(config).await;
        self.queue = self.queues.queue(&QueueName::new("q").unwrap()).await.unwrap();
        if rebuilds {
            self.model.reopen(self.now());
        }
        self.durable = self.model.clone();
    }

    /// Every job, in order of submission, in every detail the model knows.
    async fn compare(&self) -> Result<(), TestCaseError> {
        let page = self.queue.jobs(JobFilter { limit: 1000, ..JobFilter::default() }).await.unwrap();
        let got: Vec<_> =
            page.jobs.iter().map(|job| (job.id.to_string(), job.state, job.attempt, job.cancelling)).collect();
        let mut expected: Vec<_> = self.model.jobs.iter().collect();
        expected.sort_by_key(|job| job.id.parse::<tidegate_queue::JobId>().unwrap());
        let expected: Vec<_> =
            expected.into_iter().map(|job| (job.id.clone(), job.state, job.attempt, job.cancelling)).collect();
        prop_assert_eq!(got, expected);
        let stats = self.queue.stats().await.unwrap();
        for state in State::ALL {
            let count = self.model.jobs.iter().filter(|job| job.state == state).count() as u64;
            prop_assert_eq!(stats.counts.of(state), count);
        }
        Ok(())
    }
}

fn pick_of<T: Clone>(items: &[T], pick: usize) -> Option<T> {
    // One time in four any, else one of the four newest.
    let any = pick.is_multiple_of(4);
    let span = if any { items.len() } else { items.len().min(4) };
    let at = items.len() - span + (pick / 4).checked_rem(span)?;
    items.get(at).cloned()
}

fn model_job(now: i64, push: &Push, id: String, expires_at: i64) -> ModelJob {
    ModelJob {
        id,
        priority: push.priority,
        key: push.key,
        dedup: push.dedup.map(|(key, window)| (key, window.map_or(i64::MAX, |window| now + window))),
        state: State::Scheduled,
        attempt: 0,
        max_attempts: push.max_attempts,
        at: now + push.delay,
        expires_at,
        timeout: push.timeout,
        deadline: 0,
        started_at: 0,
        retention: push.retention,
        lease: None,
        local: false,
        cancelling: false,
        rescued: false,
        turn: 0,
    }
}

/// Runs this many random histories, each in a place of its own, and panics with the shortest one that disagrees.
pub fn agree<P: Place>(runtime: &tokio::runtime::Runtime, cases: u32, place: impl Fn() -> P) {
    assert_eq!(Config::default().lease, Duration::from_millis(LEASE as u64));
    let mut runner = TestRunner::new(Runs { cases, failure_persistence: None, ..Runs::default() });
    let history = (limits(), prop::collection::vec(op(), 1..60));
    let outcome = runner.run(&history, |(limits, ops)| {
        runtime.block_on(async {
            let mut pair = Pair::new(place(), limits).await;
            for op in ops {
                pair.step(op).await?;
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
