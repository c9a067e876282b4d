//! Accepting jobs: validation, dedup, bounds.

use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Payload, Spec};
use super::upkeep::Remembered;
use super::{Core, Effects, millis};
use crate::record::{DATA, INLINE_MAX, PAYLOADS, payload_key};
use crate::{Change, Error, Idempotency, NewJob, Overflow, Pushed, Rejected, State};

const DAY: Duration = Duration::from_secs(86_400);
/// Ten years: further away is a mistake in the unit.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Why a shed job is in the dead letter set.
pub(super) const SHED: &str = "shed: the queue was full and its policy drops waiting jobs";

impl Core {
    /// Accepts each job on its own; the answers are in order.
    pub(crate) fn push(
        &mut self,
        now: i64,
        jobs: Vec<NewJob>,
        idempotency: Option<&Idempotency>,
        effects: &mut Effects,
    ) -> Result<Vec<Result<Pushed, Rejected>>, Error> {
        let Some(idempotency) = idempotency else {
            return Ok(jobs.into_iter().map(|job| self.push_one(now, job, effects)).collect());
        };
        let remembered = self.idempotencies.recall(now, idempotency, millis(self.rules.idempotency_window))?;
        let answers: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(place, job)| match remembered.answer(place) {
                Some((number, state, duplicate)) => {
                    let state = State::from_code(state).unwrap_or(State::Available);
                    Ok(Pushed { id: self.id(number), state, duplicate })
                }
                None => self.push_one(now, job, effects),
            })
            .collect();
        self.remember(now, idempotency, &remembered, &answers, effects);
        Ok(answers)
    }

    fn push_one(&mut self, now: i64, job: NewJob, effects: &mut Effects) -> Result<Pushed, Rejected> {
        check(&job, self.rules.payload_max)?;
        if let Some(pushed) = self.duplicate(now, &job) {
            return Ok(pushed);
        }
        let run_at = job.run_at.map_or(now, |at| at.0).max(now.saturating_add(millis(job.delay)));
        if run_at > now.saturating_add(millis(FAR)) {
            return Err(invalid("runAt", "at most 10 years from now"));
        }
        let expires_at = job.expires_in.map_or(i64::MAX, |after| now.saturating_add(millis(after)));
        if expires_at <= run_at {
            return Err(Rejected::Expired);
        }
        let weight = (job.data.len() + job.kind.len() + length(&job.key) + length(&job.dedup_key)) as u64;
        self.make_room(now, weight, job.priority, effects)?;
        let state = if run_at > now { State::Scheduled } else { State::Available };
        Ok(self.admit(now, job, state, run_at, expires_at, effects))
    }

    fn admit(
        &mut self,
        now: i64,
        job: NewJob,
        state: State,
        run_at: i64,
        expires_at: i64,
        effects: &mut Effects,
    ) -> Pushed {
        let number = self.next_number;
        self.next_number += 1;
        self.enqueued.add(now, 1);
        let spec = self.spec(now, job, expires_at);
        if let Payload::Here(data) = &spec.data
            && data.len() > INLINE_MAX
        {
            effects.batch.put(PAYLOADS, payload_key(self.no, number, DATA), data.to_vec());
        }
        if let Some(dedup) = &spec.dedup {
            self.dedup.insert(Arc::clone(&dedup.0), (number, dedup.1));
        }
        let index = self.insert(Entry::new(number, spec, state, run_at));
        match state {
            State::Scheduled => _ = self.due.insert((run_at, number)),
            _ => self.enter(index, now),
        }
        self.write(index, effects);
        let data = &mut self.slab[index].spec.data;
        if data.len() > INLINE_MAX {
            *data = Payload::Apart(u32::try_from(data.len()).unwrap_or(u32::MAX));
        }
        self.note(index, Change::Enqueued, effects);
        Pushed { id: self.id(number), state, duplicate: false }
    }

    fn spec(&mut self, now: i64, job: NewJob, expires_at: i64) -> Spec {
        let window = job.dedup_window.map_or(i64::MAX, |window| now.saturating_add(millis(window)));
        let as_u64 = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Spec {
            kind: self.share(&job.kind),
            data: Payload::Here(job.data),
            key: job.key.map(|key| self.share(&key)),
            dedup: job.dedup_key.map(|key| Box::new((key, window))),
            created_at: now,
            expires_at,
            timeout_ms: as_u64(job.timeout),
            backoff_base_ms: as_u64(job.backoff.base),
            backoff_cap_ms: as_u64(job.backoff.cap),
            retention_ms: as_u64(job.retention),
            max_attempts: job.max_attempts,
            priority: job.priority,
        }
    }

    /// Adds a live entry to every index that does not depend on the line.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        self.by_state[entry.state as usize].insert(entry.number);
        self.insert_unlisted(entry)
    }

    /// Like [`insert`](Self::insert), but for the members of its state.
    pub(super) fn insert_unlisted(&mut self, entry: Entry) -> u32 {
        self.bytes += entry.spec.weight();
        if entry.attempt == 0 && entry.spec.expires_at != i64::MAX {
            self.expiring.insert((entry.spec.expires_at, entry.number));
        }
        self.slab.insert(entry)
    }

    fn duplicate(&self, now: i64, job: &NewJob) -> Option<Pushed> {
        let number = self.live_with(now, job.dedup_key.as_ref()?)?;
        let state = self.slab[self.slab.find(number)?].state;
        Some(Pushed { id: self.id(number), state, duplicate: true })
    }

    /// The live job that holds off others with this dedup key.
    pub(super) fn live_with(&self, now: i64, dedup_key: &str) -> Option<u64> {
        self.dedup.get(dedup_key).filter(|(_, until)| now < *until).map(|(number, _)| *number)
    }

    /// Makes sure that one more job of this weight fits, by the queue's policy.
    pub(super) fn make_room(
        &mut self,
        now: i64,
        weight: u64,
        priority: u8,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        loop {
            let (jobs_max, bytes_max) = (self.rules.limits.jobs_max, self.rules.limits.bytes_max);
            let full = if self.live() >= jobs_max {
                Rejected::Full { depth: self.live(), capacity: jobs_max, retry_after: self.done.retry_after(now) }
            } else if self.bytes + weight > bytes_max {
                Rejected::FullBytes { bytes: self.bytes, capacity: bytes_max, retry_after: self.done.retry_after(now) }
            } else {
                return Ok(());
            };
            let victim = match self.rules.limits.overflow {
                Overflow::Reject => None,
                Overflow::DropOldest => self.line.first_of_last(),
                Overflow::DropNewest => self.line.last(),
            };
            // Never for a job that is less urgent than what would go, nor one that cannot fit at all.
            let victim = victim.filter(|index| self.slab[*index].spec.priority >= priority && weight <= bytes_max);
            let Some(index) = victim else { return Err(full) };
            self.slab[index].error = Some(SHED.into());
            self.end(now, index, State::Discarded, None, effects);
        }
    }

    fn remember(
        &mut self,
        now: i64,
        idempotency: &Idempotency,
        remembered: &Remembered,
        answers: &[Result<Pushed, Rejected>],
        effects: &mut Effects,
    ) {
        let answers = answers
            .iter()
            .map(|answer| answer.as_ref().ok().map(|p| (p.id.number, p.state as u8, p.duplicate)))
            .collect();
        self.idempotencies.remember(
            now,
            self.no,
            idempotency,
            remembered,
            answers,
            self.rules.idempotency_max,
            effects,
        );
    }
}

fn length(name: &Option<Arc<str>>) -> usize {
    name.as_ref().map_or(0, |name| name.len())
}

fn invalid(field: &'static str, reason: impl Into<String>) -> Rejected {
    Rejected::Invalid { field, reason: reason.into() }
}

/// Refuses what no queue would accept, naming the option as it is called on the wire.
pub(crate) fn check(job: &NewJob, payload_max: usize) -> Result<(), Rejected> {
    let text = |field, text: &str, max: usize| {
        if (1..=max).contains(&text.len()) { Ok(()) } else { Err(invalid(field, format!("1 to {max} bytes"))) }
    };
    let span = |field, value: Duration, min: Duration, max: Duration, words: &str| {
        if (min..=max).contains(&value) { Ok(()) } else { Err(invalid(field, words)) }
    };
    let tick = Duration::from_millis(1);
    text("jobType", &job.kind, 200)?;
    if job.data.len() > payload_max {
        return Err(invalid("data", format!("at most {payload_max} bytes")));
    }
    if let Some(key) = &job.key {
        text("key", key, 512)?;
    }
    if let Some(key) = &job.dedup_key {
        text("dedupKey", key, 512)?;
    }
    if let Some(window) = job.dedup_window {
        if job.dedup_key.is_none() {
            return Err(invalid("dedupWindow", "only together with dedupKey"));
        }
        span("dedupWindow", window, tick, 365 * DAY, "1 ms to 365 days")?;
    }
    span("delay", job.delay, Duration::ZERO, FAR, "0 to 10 years")?;
    if let Some(expires_in) = job.expires_in {
        span("expiresIn", expires_in, tick, FAR, "1 ms to 10 years")?;
    }
    span("timeout", job.timeout, tick, 30 * DAY, "1 ms to 30 days")?;
    span("retention", job.retention, Duration::ZERO, 365 * DAY, "0 to 365 days")?;
    span("backoff.cap", job.backoff.cap, Duration::ZERO, 7 * DAY, "0 to 7 days")?;
    span("backoff.base", job.backoff.base, Duration::ZERO, job.backoff.cap, "0 to backoff.cap")?;
    if !(1..=1000).contains(&job.max_attempts) {
        return Err(invalid("maxAttempts", "1 to 1000"));
    }
    Ok(())
}
