//! Ending attempts and handing out jobs: whoever finishes or claims at the same time shares one script.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_redis_ops::Coalescer;
use tokio::time::Instant;

use super::call::Slot;
use super::decode::{Granted, granted};
use super::push::lost;
use super::queue::{RedisQueue, Shared, outcome};
use super::record;
use super::scripts::SCRIPTS;
use crate::waiting::Waiting;
use crate::{Claim, Claimed, Error, Finish, Lease, Outcome, Retry};

/// Payload bytes handed out in one script at most, but for a single job, as on the embedded store.
const CLAIM_BYTES_MAX: usize = 32 << 20;
/// Attempts ended and jobs handed out in one script at most: with keys, 500 of each take 5 ms.
const STEP_MAX: usize = 500;
/// Bytes of what `step` says of a job it hands out, beside its record.
const HEAD: usize = 20;
/// Bytes that weigh as much as a job.
const BYTES_PER_JOB: usize = 4096;
/// The longest error text that is kept. 8 KiB: a stack trace fits.
const ERROR_MAX: usize = 8192;

/// What one caller wants done.
struct Wish {
    finishes: Vec<Finish>,
    /// Jobs wanted.
    limit: usize,
    /// Whether the caller will wait when there are none.
    waits: bool,
}

/// What one script answered.
struct Stepped {
    outcomes: Vec<Outcome>,
    jobs: Vec<Granted>,
    /// There were more, but not within the bytes of one claim.
    is_cut: bool,
}

/// What came of it.
struct Done {
    outcomes: Vec<Outcome>,
    jobs: Undelivered,
    /// What had been heard when it was asked.
    news: u64,
    is_short: bool,
}

type Answer = Result<Done, tidegate_redis_ops::Error>;

/// Jobs granted to a caller who may still go away; dropped, it gives them back.
struct Undelivered {
    shared: Arc<Shared>,
    jobs: Vec<Granted>,
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        let leases: Vec<Lease> = self.jobs.drain(..).map(|job| job.claimed.lease).collect();
        if !leases.is_empty() {
            let shared = Arc::clone(&self.shared);
            self.shared.tasks.spawn(async move { shared.give_back(leases).await });
        }
    }
}

/// Finishes and claims of one queue, one script at a time.
pub(super) struct Steps(Coalescer<Wish, Answer>);

impl Steps {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let slot = Arc::new(Slot::new(shared.keys.operation(&shared.process, 's')));
        let shared = Arc::clone(shared);
        Self(Coalescer::new(STEP_MAX, weigh, move |wishes| {
            let (shared, slot) = (Arc::clone(&shared), Arc::clone(&slot));
            async move { shared.step_all(&slot, wishes).await }
        }))
    }

    async fn submit(&self, wish: Wish) -> Result<Done, Error> {
        Ok(self.0.submit(wish).await.ok_or_else(lost)??)
    }
}

fn weigh(wish: &Wish) -> usize {
    let bytes: usize = wish.finishes.iter().map(bytes_of).sum();
    wish.finishes.len().max(wish.limit.min(STEP_MAX)).max(bytes / BYTES_PER_JOB)
}

fn bytes_of(finish: &Finish) -> usize {
    match finish {
        Finish::Complete { result, .. } => result.as_ref().map_or(0, Bytes::len),
        Finish::Fail { error, .. } => error.len().min(ERROR_MAX),
        Finish::Release { .. } => 0,
    }
}

impl RedisQueue {
    pub(crate) async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, Error> {
        crate::check::claim(&claim)?;
        let until = Instant::now() + claim.wait;
        let waiting = (!claim.wait.is_zero()).then(|| Waiting::new(&self.shared.waiting));
        if waiting.is_some() {
            self.shared.listen();
        }
        loop {
            let mut arrival = std::pin::pin!(self.shared.watch.arrivals.notified());
            let mut drain = std::pin::pin!(self.shared.alarm.drain.notified());
            // Registered before asking, so nothing that arrives after the answer is missed.
            arrival.as_mut().enable();
            drain.as_mut().enable();
            let waits = waiting.is_some() && !self.shared.alarm.is_draining();
            if !(waits && self.shared.watch.is_empty()) {
                let done = self.steps.submit(Wish { finishes: Vec::new(), limit: claim.limit, waits }).await?;
                if done.is_short {
                    self.shared.watch.found_empty(done.news);
                }
                if !done.jobs.jobs.is_empty() {
                    return self.deliver(done.jobs).await;
                }
            }
            if !waits {
                return Ok(Vec::new());
            }
            let deaf = self.shared.deaf_wait();
            let is_deaf = !self.shared.watch.is_live();
            tokio::select! {
                () = arrival => {}
                () = drain => {}
                () = tokio::time::sleep(deaf), if is_deaf => {}
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }

    pub(crate) async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Outcome>, Error> {
        crate::check::finishes(&finishes, self.shared.config.payload_max)?;
        let mut outcomes = Vec::with_capacity(finishes.len());
        let mut finishes = finishes.into_iter().peekable();
        while finishes.peek().is_some() {
            let some: Vec<Finish> = in_pieces(&mut finishes);
            outcomes.extend(self.steps.submit(Wish { finishes: some, limit: 0, waits: false }).await?.outcomes);
        }
        self.count_stale(&outcomes);
        Ok(outcomes)
    }

    pub(crate) async fn step(
        &self,
        finishes: Vec<Finish>,
        claim: Claim,
    ) -> Result<(Vec<Outcome>, Vec<Claimed>), Error> {
        crate::check::claim(&claim)?;
        if finishes.is_empty() || finishes.len() > STEP_MAX {
            return Ok((self.finish(finishes).await?, self.claim(claim).await?));
        }
        crate::check::finishes(&finishes, self.shared.config.payload_max)?;
        let waits = !claim.wait.is_zero();
        if waits {
            self.shared.listen();
        }
        let mut done = self.steps.submit(Wish { finishes, limit: claim.limit, waits: false }).await?;
        let outcomes = std::mem::take(&mut done.outcomes);
        self.count_stale(&outcomes);
        let claimed = match done.jobs.jobs.is_empty() && waits {
            true => self.claim(claim).await,
            false => self.deliver(done.jobs).await,
        };
        // What was finished is finished and must be told, so a claim that fails brings no jobs; those it had go back.
        let claimed = claimed.unwrap_or_else(|error| {
            tracing::warn!(queue = %self.shared.name, %error, "failed to claim after finishing");
            Vec::new()
        });
        Ok((outcomes, claimed))
    }

    /// Completes granted jobs with the payloads that are kept apart. One whose payload is gone is discarded, with the reason.
    async fn deliver(&self, mut undelivered: Undelivered) -> Result<Vec<Claimed>, Error> {
        let mut at = 0;
        while at < undelivered.jobs.len() {
            let job = &undelivered.jobs[at];
            if job.apart.is_some() {
                match self.large('d', &job.claimed.id).await {
                    Ok(data) => undelivered.jobs[at].claimed.data = data,
                    Err(error @ Error::Damaged { .. }) => {
                        let lease = undelivered.jobs.remove(at).claimed.lease;
                        let finish = Finish::Fail { lease, error: error.to_string().into(), retry: Retry::Never };
                        self.finish(vec![finish]).await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            at += 1;
        }
        let jobs = std::mem::take(&mut undelivered.jobs);
        for job in &jobs {
            self.shared.meters.wait.record(job.waited);
        }
        Ok(jobs.into_iter().map(|job| job.claimed).collect())
    }
}

/// As many finishes as one script takes.
fn in_pieces(finishes: &mut std::iter::Peekable<std::vec::IntoIter<Finish>>) -> Vec<Finish> {
    let (mut some, mut bytes): (Vec<Finish>, usize) = (Vec::new(), 0);
    while let Some(finish) = finishes.next_if(|finish| {
        some.is_empty() || (some.len() < STEP_MAX && bytes + bytes_of(finish) <= STEP_MAX * BYTES_PER_JOB)
    }) {
        bytes += bytes_of(&finish);
        some.push(finish);
    }
    some
}

/// The places, in order, of finishes whose lease was named before in the same call: a lease is good once.
fn named_twice(wishes: &[Wish]) -> Vec<usize> {
    let finishes = wishes.iter().flat_map(|wish| &wish.finishes);
    let mut named = foldhash::HashSet::default();
    finishes.enumerate().filter(|(_, finish)| !named.insert(finish.lease())).map(|(place, _)| place).collect()
}

impl Shared {
    async fn step_all(self: &Arc<Self>, slot: &Slot, wishes: Vec<Wish>) -> Vec<Answer> {
        let limit = wishes.iter().map(|wish| wish.limit).sum::<usize>().min(STEP_MAX);
        let waits = wishes.iter().any(|wish| wish.waits);
        let news = self.watch.news();
        let twice = named_twice(&wishes);
        let parts: Vec<(usize, usize)> = wishes.iter().map(|wish| (wish.finishes.len(), wish.limit)).collect();
        let args = self.step_args(wishes, &twice, limit, waits);
        match self.step_script(slot, args).await {
            Ok(stepped) => self.share_out(parts, stepped, limit, news),
            Err(error) => {
                let error = match error {
                    Error::Redis(error) => error,
                    other => tidegate_redis_ops::Error::Unusable(other.to_string().into()),
                };
                parts.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Gives each caller the outcomes of its finishes, and jobs in the order of asking.
    fn share_out(
        self: &Arc<Self>,
        parts: Vec<(usize, usize)>,
        stepped: Stepped,
        limit: usize,
        news: u64,
    ) -> Vec<Answer> {
        let is_short = stepped.jobs.len() < limit && !stepped.is_cut;
        let (mut outcomes, mut jobs) = (stepped.outcomes.into_iter(), stepped.jobs.into_iter());
        parts
            .into_iter()
            .map(|(finishes, limit)| {
                Ok(Done {
                    outcomes: outcomes.by_ref().take(finishes).collect(),
                    jobs: Undelivered { shared: Arc::clone(self), jobs: jobs.by_ref().take(limit).collect() },
                    news,
                    is_short,
                })
            })
            .collect()
    }

    /// Gives jobs back whose caller is gone. Unheard, they are rescued when their leases run out.
    async fn give_back(&self, leases: Vec<Lease>) {
        let slot = self.releases.lock().await;
        let finishes = leases.into_iter().map(|lease| Finish::Release { lease }).collect();
        let args = self.step_args(vec![Wish { finishes, limit: 0, waits: false }], &[], 0, false);
        if let Err(error) = self.step_script(&slot, args).await {
            tracing::warn!(queue = %self.name, %error, "jobs nobody took wait for their leases to run out");
        }
        drop(slot);
        self.watch.ring();
    }

    /// Finishes at the places `twice` go without a lease: the script takes every lease for the only one of its job.
    fn step_args(&self, wishes: Vec<Wish>, twice: &[usize], limit: usize, waits: bool) -> Vec<Bytes> {
        let mut args = vec![
            limit.to_string().into(),
            CLAIM_BYTES_MAX.to_string().into(),
            if waits { "1".into() } else { "0".into() },
            Bytes::new(),
        ];
        let mut ends = BytesMut::with_capacity(wishes.iter().map(|wish| wish.finishes.len()).sum::<usize>() * 15);
        for (place, finish) in wishes.into_iter().flat_map(|wish| wish.finishes).enumerate() {
            let lease = finish.lease();
            match finish {
                Finish::Complete { result: None, .. } => ends.put_u8(b'c'),
                Finish::Complete { result: Some(result), .. } => {
                    ends.put_u8(b'C');
                    let (tail, apart) = record::result(result);
                    args.push(tail);
                    args.extend(apart);
                }
                Finish::Fail { error, retry, .. } => {
                    ends.put_u8(b'f');
                    args.push(record::failure(retry, crate::core::cut(&error, ERROR_MAX)));
                }
                Finish::Release { .. } => ends.put_u8(b'r'),
            }
            match twice.binary_search(&place) {
                Ok(_) => ends.put_bytes(0, 14),
                Err(_) => self.put_lease(&mut ends, lease),
            }
        }
        args[3] = ends.freeze();
        args
    }

    async fn step_script(&self, slot: &Slot, args: Vec<Bytes>) -> Result<Stepped, Error> {
        let mut reply = self.operate(&SCRIPTS.step, slot, args).await?;
        self.count(&reply.bytes()?);
        let (live, bytes) = (reply.number()?, reply.number()?);
        self.filled(live, bytes);
        let outcomes = reply.bytes()?.iter().map(|letter| outcome(*letter)).collect();
        let is_cut = reply.number()? == 1;
        let mut jobs = Vec::new();
        let mut heads = reply.bytes()?;
        while !heads.is_empty() {
            let head = heads.split_to(HEAD.min(heads.len()));
            match granted(self.no, &self.name, head, reply.bytes()?) {
                Ok(job) => jobs.push(job),
                // Left to its lease; whoever looks at it is told what is wrong with it.
                Err(error) => tracing::error!(queue = %self.name, %error, "a job that cannot be read"),
            }
        }
        Ok(Stepped { outcomes, jobs, is_cut })
    }
}
