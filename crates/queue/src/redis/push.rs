//! Accepting jobs: callers that push at the same time share one script.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::Coalescer;

use super::call::Slot;
use super::queue::{RedisQueue, SCRIPT_MAX, Shared};
use super::record::{Outgoing, number_in, outgoing};
use super::scripts::SCRIPTS;
use crate::stats::retry_after;
use crate::{Error, Idempotency, NewJob, Pushed, Rejected, State};

/// Bytes that weigh as much as a job: 1000 jobs or 4 MiB travel together.
const BYTES_PER_JOB: usize = 4096;

/// What may wait for its script: as much as 64 of them take, 256 MiB at most. Beyond it a slow Redis would fill our memory.
const HELD_MAX: usize = 64 * SCRIPT_MAX;

/// What one caller brings to the next script.
struct Batch {
    jobs: Vec<Outgoing>,
    /// Its name and fingerprint when the caller may come again with the same.
    idempotency: Option<(Bytes, Bytes)>,
}

impl Batch {
    /// One with a name goes alone, so that it is answered as soon as Redis has answered it.
    fn weight(&self) -> usize {
        if self.idempotency.is_some() { SCRIPT_MAX } else { self.jobs.iter().map(weight).sum() }
    }
}

/// How much of a script's room a job takes: one that needs a look of its own takes as long as three plain ones.
fn weight(job: &Outgoing) -> usize {
    (if job.is_plain { 1 } else { 3 }).max(job.bytes() / BYTES_PER_JOB)
}

/// What came of one job.
type Answer = Result<Pushed, Rejected>;
type Answers = Result<Vec<Answer>, Shareable>;

/// An error that all callers of one script get.
#[derive(Clone)]
enum Shareable {
    Mismatch,
    Redis(tidegate_redis_ops::Error),
    Other(String),
}

impl From<Error> for Shareable {
    fn from(error: Error) -> Self {
        match error {
            Error::IdempotencyMismatch => Self::Mismatch,
            Error::Redis(error) => Self::Redis(error),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Shareable> for Error {
    fn from(error: Shareable) -> Self {
        match error {
            Shareable::Mismatch => Self::IdempotencyMismatch,
            Shareable::Redis(error) => Self::Redis(error),
            Shareable::Other(detail) => Self::Invalid { field: "reply", reason: detail },
        }
    }
}

/// Pushes of one queue, one script at a time.
pub(super) struct Pushes {
    batches: Coalescer<Batch, Answers>,
    /// What callers hold here, in jobs as [`weight`] counts them.
    held: AtomicUsize,
}

/// What one caller holds until it is answered or leaves.
struct Held<'a> {
    all: &'a AtomicUsize,
    mine: usize,
}

impl<'a> Held<'a> {
    fn new(all: &'a AtomicUsize, mine: usize) -> Self {
        all.fetch_add(mine, Ordering::Relaxed);
        Self { all, mine }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

impl Pushes {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let weigh = |batch: &Batch| batch.weight();
        let slot = Arc::new(Slot::new(shared.keys.operation(&shared.process, 'p')));
        let shared = Arc::clone(shared);
        let batches = Coalescer::new(SCRIPT_MAX, weigh, move |batches| {
            let (shared, slot) = (Arc::clone(&shared), Arc::clone(&slot));
            async move { shared.push_all(&slot, batches).await }
        });
        Self { batches, held: AtomicUsize::new(0) }
    }

    async fn submit(&self, batch: Batch) -> Result<Vec<Answer>, Error> {
        let held = self.held.load(Ordering::Relaxed);
        if held > HELD_MAX {
            return Err(Error::Redis(tidegate_redis_ops::Error::NotSent {
                code: "BACKPRESSURE",
                detail: format!("{held} jobs wait for Redis already").into(),
                retry_after: Duration::from_secs(1),
            }));
        }
        let _held = Held::new(&self.held, batch.jobs.iter().map(weight).sum());
        match self.batches.submit(batch).await {
            Some(answers) => Ok(answers?),
            None => Err(lost()),
        }
    }
}

/// A batch died without an answer: a bug of ours, told as what it is to the caller, an unknown outcome.
pub(super) fn lost() -> Error {
    Error::Redis(tidegate_redis_ops::Error::Lost { code: "DISCONNECTED", detail: "the call was given up".into() })
}

impl RedisQueue {
    pub(crate) async fn push_many(
        &self,
        jobs: Vec<NewJob>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Answer>, Error> {
        crate::check::length("jobs", jobs.len())?;
        crate::check::idempotency(idempotency.as_ref())?;
        let meters = &self.shared.meters;
        if let Some(full) = self.shared.full() {
            meters.rejected.add(jobs.len() as u64);
            return Ok(vec![Err(full); jobs.len()]);
        }
        // What no queue would accept is answered here; the rest travels.
        let (payload_max, now) = (self.shared.config.payload_max, self.shared.redis_now());
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(jobs.len());
        let mut travels = Vec::with_capacity(jobs.len());
        for job in jobs {
            match crate::core::check(&job, payload_max) {
                Err(rejected) => answers.push(Some(Err(rejected))),
                Ok(()) => {
                    answers.push(None);
                    travels.push(outgoing(job, now));
                }
            }
        }
        let mut arrived = self.send_in_pieces(travels, idempotency).await?.into_iter();
        let answers: Vec<Answer> = answers
            .into_iter()
            .map(|answer| answer.or_else(|| arrived.next()).unwrap_or(Err(Rejected::Expired)))
            .collect();
        for answer in &answers {
            match answer {
                Err(_) => meters.rejected.inc(),
                Ok(pushed) if pushed.duplicate => meters.duplicates.inc(),
                Ok(_) => {}
            }
        }
        Ok(answers)
    }

    async fn send_in_pieces(
        &self,
        jobs: Vec<Outgoing>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Answer>, Error> {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter().peekable();
        for piece in 0.. {
            let (mut some, mut room) = (Vec::with_capacity(jobs.len().min(SCRIPT_MAX)), SCRIPT_MAX);
            while let Some(job) = jobs.next_if(|job| some.is_empty() || weight(job) <= room) {
                room = room.saturating_sub(weight(&job));
                some.push(job);
            }
            if some.is_empty() {
                break;
            }
            let idempotency = idempotency.as_ref().map(|wanted| {
                // Each piece is remembered on its own.
                (format!("{piece}:{}", wanted.key).into(), Bytes::copy_from_slice(&wanted.fingerprint.to_be_bytes()))
            });
            answers.extend(self.pushes.submit(Batch { jobs: some, idempotency }).await?);
        }
        Ok(answers)
    }
}

impl Shared {
    /// Runs one script for all of them: either one with a name, or any number without.
    async fn push_all(&self, slot: &Slot, batches: Vec<Batch>) -> Vec<Answers> {
        let lengths: Vec<usize> = batches.iter().map(|batch| batch.jobs.len()).collect();
        let (mut jobs, mut idempotency) = (Vec::with_capacity(lengths.iter().sum()), None);
        for batch in batches {
            jobs.extend(batch.jobs);
            idempotency = idempotency.or(batch.idempotency);
        }
        let pushed = self.push_script(slot, jobs, idempotency).await;
        // Waiting claims of this process need no message, unless this may still happen later.
        self.watch.set_unknown(pushed.is_err());
        self.watch.ring();
        match pushed {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                lengths.into_iter().map(|length| Ok(answers.by_ref().take(length).collect())).collect()
            }
            Err(error) => {
                let error = Shareable::from(error);
                lengths.into_iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    async fn push_script(
        &self,
        slot: &Slot,
        jobs: Vec<Outgoing>,
        idempotency: Option<(Bytes, Bytes)>,
    ) -> Result<Vec<Answer>, Error> {
        let count = jobs.len();
        let is_plain = idempotency.is_none() && jobs.iter().all(|job| job.is_plain);
        let weight: u64 = jobs.iter().map(|job| job.weight).sum();
        let (name, fingerprint) = idempotency.unwrap_or_default();
        let mut args = Vec::with_capacity(count + 5);
        args.push(name);
        args.push(fingerprint);
        args.push(if is_plain { weight.to_string().into() } else { Bytes::new() });
        args.push(count.to_string().into());
        let mut apart = Vec::new();
        for job in jobs {
            args.push(job.record);
            apart.extend(job.apart);
        }
        args.extend(apart);
        let mut reply = self.operate(&SCRIPTS.push, slot, args).await?;
        self.count(&reply.bytes()?);
        let (live, bytes) = (reply.number()?, reply.number()?);
        self.filled(live, bytes);
        let (answers, finished) = (reply.bytes()?, reply.number()?);
        self.read_answers(count, &answers, retry_after(finished as f64 / 60.0))
    }

    /// `a` and the first id when all were accepted and are available, `s` and 8 bytes for each otherwise, `m` for a name that
    /// was used for something else.
    fn read_answers(&self, count: usize, answers: &[u8], retry_after: Duration) -> Result<Vec<Answer>, Error> {
        let pushed = |number, state, duplicate| Ok(Pushed { id: self.id(number), state, duplicate });
        match answers.split_first() {
            Some((b'a', first)) => {
                let first = number_in(first);
                Ok((first..first + count as u64).map(|number| pushed(number, State::Available, false)).collect())
            }
            Some((b's', all)) if all.len() == count * 8 => Ok(all
                .chunks_exact(8)
                .map(|answer| {
                    let (value, state) =
                        (number_in(&answer[1..7]), State::from_code(answer[7]).unwrap_or(State::Available));
                    match answer[0] {
                        b'P' => pushed(value, state, false),
                        b'D' => pushed(value, state, true),
                        b'F' => Err(Rejected::Full { depth: value, capacity: self.rules.jobs_max, retry_after }),
                        b'B' => Err(Rejected::FullBytes { bytes: value, capacity: self.rules.bytes_max, retry_after }),
                        b'R' => Err(Rejected::Invalid { field: "runAt", reason: "at most 10 years from now".into() }),
                        _ => Err(Rejected::Expired),
                    }
                })
                .collect()),
            Some((b'm', _)) => Err(Error::IdempotencyMismatch),
            _ => Err(Error::Redis(tidegate_redis_ops::Error::Reply { expected: "an answer per job", got: "others" })),
        }
    }
}
