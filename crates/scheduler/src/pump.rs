//! The pump of one queue: claims as many jobs as there are free permits, starts them, and tells the queue how they
//! ended.
//!
//! It is one task and owns its state without locks. At any time it has at most one claim waiting in the queue and one
//! call with outcomes under way. The two are separate calls on purpose: an outcome waits for the disk and a claim does
//! not, so joining them in one `step` would let permits idle for the length of an fsync. While nothing is there to do
//! the pump is parked inside `claim`, without a timer of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tidegate_queue::{Claim, Claimed, Error, Finish, Queue, Retry, State};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::attempt::attempt;
use crate::breaker::Admit;
use crate::finish::{Told, tell};
use crate::handler::Kind;
use crate::progress::{Report, Reports};
use crate::run::{Run, RunGuard, Runs, Stop};
use crate::scheduler::Shared;
use crate::sizing::Sizing;
use crate::stats::PoolMetrics;

/// A claim waits this long for a job. A month: it is woken by a job or by the drain, never by the clock.
const CLAIM_WAIT: Duration = Duration::from_secs(30 * 86_400);
/// Jobs per claim at most; the queue allows no more.
const CLAIM_MAX: usize = 1000;
/// Outcomes that may wait for a slow store before no more jobs are claimed.
const UNTOLD_MAX: usize = 4096;
/// Pause after a claim that failed or came back empty before its time (the queue drains); doubled up to 5 s.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One served queue, as all parts of the scheduler see it.
pub(crate) struct Served {
    pub(crate) queue: Queue,
    pub(crate) runs: Arc<Runs>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) metrics: PoolMetrics,
    /// Rung when held jobs should be looked at: a breaker moved, or one was cancelled or lost.
    pub(crate) attention: Notify,
}

/// An attempt that is over, on its way to the queue; the guard keeps its lease alive until it is told.
struct Over {
    guard: RunGuard,
    finish: Option<Finish>,
    /// How long the handler ran.
    service: Duration,
}

/// A claimed job of a kind whose breaker is open.
struct Held {
    guard: RunGuard,
    kind: Arc<Kind>,
    data: Bytes,
    /// Given back then, before it times out without having started.
    release_at: Instant,
}

enum Answer {
    Claimed { limit: usize, asked: Instant, jobs: Result<Vec<Claimed>, Error> },
    Depth(u64),
}

enum Event {
    Over(Over),
    Answer(Answer),
    Told,
    Drain,
    Look,
}

pub(crate) struct Pump {
    shared: Arc<Shared>,
    served: Arc<Served>,
    sizing: Sizing,
    /// Handlers running.
    busy: usize,
    held: VecDeque<Held>,
    /// Ended, not yet told.
    untold: Vec<Over>,
    over: mpsc::Receiver<Over>,
    over_sender: mpsc::Sender<Over>,
    asking: Option<BoxFuture<'static, Answer>>,
    telling: Option<BoxFuture<'static, ()>>,
    /// The last claim was filled: ask how many more wait before the next.
    measure: bool,
    pause: Duration,
    not_before: Option<Instant>,
    stalls_at: Option<Instant>,
    draining: bool,
}

impl Pump {
    pub(crate) fn new(shared: Arc<Shared>, served: Arc<Served>) -> Self {
        let config = &shared.config;
        let sizing = Sizing::new(config.permits_min, config.permits_max, config.target_wait);
        let (over_sender, over) = mpsc::channel(config.permits_max + config.held_max + 1);
        Self {
            sizing,
            busy: 0,
            held: VecDeque::new(),
            untold: Vec::new(),
            over,
            over_sender,
            asking: None,
            telling: None,
            measure: false,
            pause: PAUSE,
            not_before: None,
            stalls_at: None,
            draining: false,
            shared,
            served,
        }
    }

    /// Runs until drained, or until told to quit.
    pub(crate) async fn run(mut self) {
        let quit = self.shared.quit.clone();
        tokio::select! {
            biased;
            () = quit.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            self.look_after_held();
            self.begin_telling();
            self.begin_asking();
            self.show();
            if self.is_drained() {
                return;
            }
            match self.next_event().await {
                Event::Over(over) => {
                    // Those that end in the same moment are told together, and free their permits together.
                    tokio::task::yield_now().await;
                    self.on_over(over);
                }
                Event::Answer(answer) => self.on_answer(answer),
                Event::Told => self.telling = None,
                Event::Drain => self.on_drain(),
                Event::Look => self.on_look(),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let shared = Arc::clone(&self.shared);
        let served = Arc::clone(&self.served);
        let wake = self.wakes_at();
        tokio::select! {
            biased;
            () = shared.draining.cancelled(), if !self.draining => Event::Drain,
            Some(over) = self.over.recv() => Event::Over(over),
            () = pending_or(self.telling.as_mut()) => Event::Told,
            answer = pending_or(self.asking.as_mut()) => Event::Answer(answer),
            () = served.attention.notified() => Event::Look,
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Event::Look,
        }
    }

    // What happened.

    fn on_over(&mut self, over: Over) {
        self.take_over(over);
        while let Ok(over) = self.over.try_recv() {
            self.take_over(over);
        }
    }

    fn take_over(&mut self, over: Over) {
        self.busy -= 1;
        self.stalls_at = None;
        self.sizing.ended(self.busy, over.service);
        if self.shared.draining.is_cancelled() {
            self.shared.count_drained(over.finish.as_ref());
        }
        self.untold.push(over);
    }

    fn on_answer(&mut self, answer: Answer) {
        self.asking = None;
        match answer {
            Answer::Depth(depth) => self.sizing.depth(self.busy, depth),
            Answer::Claimed { limit, asked, jobs: Ok(jobs) } => {
                let (got, waited) = (jobs.len(), asked.elapsed());
                for job in jobs {
                    self.admit(job);
                }
                self.on_claimed(got, limit, waited);
            }
            Answer::Claimed { jobs: Err(error), .. } => {
                self.served.metrics.claim_errors.inc();
                tracing::warn!(queue = %self.served.queue.name(), %error, "claim failed");
                self.take_a_break();
            }
        }
    }

    fn on_claimed(&mut self, got: usize, limit: usize, waited: Duration) {
        if got == 0 && waited < CLAIM_WAIT / 2 {
            return self.take_a_break();
        }
        self.pause = PAUSE;
        self.measure = got == limit && self.sizing.can_grow();
        if got < limit {
            self.sizing.emptied(self.busy);
        }
    }

    fn take_a_break(&mut self) {
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn on_look(&mut self) {
        let now = Instant::now();
        if self.stalls_at.is_some_and(|at| at <= now) {
            self.stalls_at = None;
            self.sizing.stalled(self.busy);
        }
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
    }

    fn on_drain(&mut self) {
        self.draining = true;
        // A dropped claim leaves nothing behind.
        self.asking = None;
        for held in std::mem::take(&mut self.held) {
            self.hand_back(held.guard);
        }
    }

    // What to do.

    fn admit(&mut self, job: Claimed) {
        let report = Report::new(job.lease, Arc::clone(&self.served.reports));
        let run = Run::new(&job, &self.shared.config.clock, report);
        let guard = self.served.runs.insert(run, self.served.metrics.active.clone());
        let Some(kind) = self.shared.kinds.get(&job.kind).cloned() else {
            self.served.metrics.unknown_kinds.inc();
            return self.fail(guard, format!("no handler for kind {:?}", job.kind), Retry::Never);
        };
        match kind.admit(Instant::now()) {
            Admit::Run => self.start(guard, kind, job.data, false),
            Admit::Probe => self.start(guard, kind, job.data, true),
            Admit::Hold => self.hold(guard, kind, job.data),
        }
    }

    fn start(&mut self, mut guard: RunGuard, kind: Arc<Kind>, data: Bytes, probe: bool) {
        self.busy += 1;
        let (shared, sender) = (Arc::clone(&self.shared), self.over_sender.clone());
        self.shared.tasks.spawn(async move {
            let (run, started) = (Arc::clone(&guard.run), Instant::now());
            let finish = attempt(&shared, &kind, &run, data, probe).await;
            guard.handler_ended();
            // Fails only when the pump was told to quit; then nobody is left to tell the queue.
            let _ = sender.send(Over { guard, finish, service: started.elapsed() }).await;
        });
    }

    fn hold(&mut self, guard: RunGuard, kind: Arc<Kind>, data: Bytes) {
        let (attempt, max_attempts) = (guard.run.attempt, guard.run.max_attempts);
        if self.held.len() < self.shared.config.held_max {
            let timeout = guard.run.deadline - guard.run.claimed;
            let release_at = guard.run.deadline - (timeout / 4).min(Duration::from_secs(1));
            self.held.push_back(Held { guard, kind, data, release_at });
        } else if attempt < max_attempts {
            kind.metrics.deferred.inc();
            let open = kind.ask_again_at().map_or(self.shared.config.breaker.open, |at| at - Instant::now());
            // Spread over half the open time, so that they do not come back all at once.
            let spread = (open / 2).mul_f64(f64::from(self.untold.len() as u32 % 16) / 16.0);
            self.fail(guard, format!("circuit breaker of kind {:?} is open", kind.name), Retry::In(open + spread));
        } else {
            self.start(guard, kind, data, false);
        }
    }

    fn look_after_held(&mut self) {
        let now = Instant::now();
        for _ in 0..self.held.len() {
            let Some(held) = self.held.pop_front() else { return };
            match held.guard.run.stopped() {
                Stop::Lost => self.end(held.guard, None),
                Stop::No if now >= held.release_at => self.hand_back(held.guard),
                Stop::No => self.start_held(held, now),
                _ => self.fail(held.guard, "cancelled".into(), Retry::Never),
            }
        }
    }

    fn start_held(&mut self, held: Held, now: Instant) {
        let has_room = self.busy < self.sizing.size();
        match if has_room { held.kind.admit(now) } else { Admit::Hold } {
            Admit::Hold => return self.held.push_back(held),
            Admit::Run => self.start(held.guard, held.kind, held.data, false),
            Admit::Probe => self.start(held.guard, held.kind, held.data, true),
        }
        // The waiting claim asked for the permit that was just taken; dropped, it leaves nothing behind.
        self.asking = None;
    }

    /// Ends an attempt that never started; `None` when there is nobody to tell.
    fn end(&mut self, mut guard: RunGuard, finish: Option<Finish>) {
        guard.handler_ended();
        self.untold.push(Over { guard, finish, service: Duration::ZERO });
    }

    fn fail(&mut self, guard: RunGuard, error: String, retry: Retry) {
        let lease = guard.run.lease;
        self.end(guard, Some(Finish::Fail { lease, error: error.into(), retry }));
    }

    fn hand_back(&mut self, guard: RunGuard) {
        let lease = guard.run.lease;
        self.served.metrics.released.inc();
        if self.draining {
            self.shared.count_drained(Some(&Finish::Release { lease }));
        }
        self.end(guard, Some(Finish::Release { lease }));
    }

    fn begin_telling(&mut self) {
        if self.telling.is_some() || self.untold.is_empty() {
            return;
        }
        let mut guards = Vec::with_capacity(self.untold.len());
        let mut finishes = Vec::with_capacity(self.untold.len());
        for over in self.untold.drain(..) {
            if let Some(finish) = over.finish {
                guards.push(over.guard);
                finishes.push(finish);
            }
        }
        if finishes.is_empty() {
            return;
        }
        let (served, patience) = (Arc::clone(&self.served), self.shared.lease);
        self.telling = Some(tell_all(served, guards, finishes, patience).boxed());
    }

    fn begin_asking(&mut self) {
        let free = self.sizing.free(self.busy).min(CLAIM_MAX);
        if self.asking.is_some() || self.draining || self.not_before.is_some() || self.untold.len() >= UNTOLD_MAX {
            return;
        }
        let queue = self.served.queue.clone();
        if std::mem::take(&mut self.measure) {
            self.asking = Some(depth(queue).boxed());
        } else if free > 0 {
            self.asking = Some(claim(queue, self.shared.worker.clone(), free).boxed());
        } else if self.sizing.may_stall(self.busy) && self.stalls_at.is_none() {
            self.stalls_at = Some(Instant::now() + self.shared.config.target_wait);
        }
    }

    /// The next moment something is due without anybody ringing; `None` when idle.
    fn wakes_at(&self) -> Option<Instant> {
        let held = self.held.iter().map(|held| {
            // With no permit free the end of a run is what to wait for.
            let ask_again = held.kind.ask_again_at().filter(|_| self.busy < self.sizing.size());
            ask_again.map_or(held.release_at, |at| at.min(held.release_at))
        });
        held.chain(self.stalls_at).chain(self.not_before).min()
    }

    fn is_drained(&self) -> bool {
        self.draining && self.busy == 0 && self.untold.is_empty() && self.telling.is_none()
    }

    fn show(&self) {
        self.served.metrics.permits.set(self.sizing.size() as f64);
        self.served.metrics.held.set(self.held.len() as f64);
    }
}

async fn claim(queue: Queue, worker: tidegate_queue::Worker, limit: usize) -> Answer {
    let asked = Instant::now();
    let jobs = queue.claim(Claim { worker, limit, wait: CLAIM_WAIT }).await;
    Answer::Claimed { limit, asked, jobs }
}

async fn depth(queue: Queue) -> Answer {
    let stats = queue.stats().await;
    Answer::Depth(stats.map_or(0, |stats| stats.counts.of(State::Available)))
}

async fn tell_all(served: Arc<Served>, guards: Vec<RunGuard>, finishes: Vec<Finish>, patience: Duration) {
    let told = tell(&served.queue, finishes, patience).await;
    for (guard, told) in guards.into_iter().zip(told) {
        match told {
            Told::Accepted => {}
            // Counted already when the beat noticed first.
            Told::Stale if guard.run.stopped() == Stop::Lost => {}
            Told::Stale => served.metrics.stale.inc(),
            Told::Unknown | Told::GivenUp => served.metrics.unknown.inc(),
        }
    }
}

async fn pending_or<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
