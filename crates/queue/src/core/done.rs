//! Finished jobs: found by number, kept for their retention and within the bounds, then pruned.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::{Core, Effects, Entry, Payload};
use crate::record::{DATA, INLINE_MAX, JOBS, PAYLOADS, RESULT, StoredJob, key, payload_key};
use crate::stats::Rate;
use crate::{Change, State};

/// What memory keeps of a finished job; the rest is in its record.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(super) state: State,
    pub(super) kind: Arc<str>,
    pub(super) key: Option<Arc<str>>,
    pub(super) attempt: u16,
    prune_at: i64,
    bytes: u64,
    data_apart: bool,
    result_apart: bool,
}

/// All finished jobs.
#[derive(Debug, Default)]
pub(crate) struct Done {
    jobs: HashMap<u64, Finished>,
    /// By the end of their retention.
    prune: BTreeSet<(i64, u64)>,
    /// In the order they give way when there are too many: the dead letter set last, then by the end of their retention.
    order: BTreeSet<(bool, i64, u64)>,
    bytes: u64,
    rate: Rate,
}

impl Done {
    pub(super) fn get(&self, number: u64) -> Option<&Finished> {
        self.jobs.get(&number)
    }

    pub(super) fn next_prune(&self) -> Option<i64> {
        self.prune.first().map(|(at, _)| *at)
    }

    pub(super) fn first_due(&self, now: i64) -> Option<u64> {
        self.prune.first().filter(|(at, _)| *at <= now).map(|(_, number)| *number)
    }

    pub(crate) fn per_second(&self, now: i64) -> f64 {
        self.rate.per_second(now)
    }

    /// When a full queue will have room again, from the recent rate: 1 s to 60 s.
    pub(super) fn retry_after(&self, now: i64) -> Duration {
        crate::stats::retry_after(self.rate.per_second(now))
    }

    fn insert(&mut self, number: u64, finished: Finished) {
        self.bytes += finished.bytes;
        self.prune.insert((finished.prune_at, number));
        self.order.insert((finished.state == State::Discarded, finished.prune_at, number));
        self.jobs.insert(number, finished);
    }

    fn remove(&mut self, number: u64) -> Option<Finished> {
        let finished = self.jobs.remove(&number)?;
        self.bytes -= finished.bytes;
        self.prune.remove(&(finished.prune_at, number));
        self.order.remove(&(finished.state == State::Discarded, finished.prune_at, number));
        Some(finished)
    }
}

impl Core {
    /// Rates of finished jobs per second over the last minute.
    pub(crate) fn finished_per_second(&self, now: i64) -> f64 {
        self.done.per_second(now)
    }

    /// Keeps the record of a job that just ended.
    pub(super) fn retire(
        &mut self,
        now: i64,
        entry: &Entry,
        state: State,
        record: Vec<u8>,
        result: usize,
        effects: &mut Effects,
    ) {
        self.done.rate.add(now, 1);
        let data_apart = matches!(entry.spec.data, Payload::Apart(_));
        let result_apart = result > INLINE_MAX;
        if entry.spec.retention_ms == 0 {
            self.by_state[state as usize].remove(&entry.number);
            self.delete_records(entry.number, data_apart, result_apart, effects);
            return;
        }
        let apart = if data_apart { entry.spec.data.len() } else { 0 } + if result_apart { result } else { 0 };
        let finished = Finished {
            state,
            kind: Arc::clone(&entry.spec.kind),
            key: entry.spec.key.clone(),
            attempt: entry.attempt,
            prune_at: now.saturating_add_unsigned(entry.spec.retention_ms),
            bytes: (record.len() + apart) as u64,
            data_apart,
            result_apart,
        };
        self.done.insert(entry.number, finished);
        effects.batch.put(JOBS, key(self.no, entry.number), record);
    }

    /// Takes a finished record into the index, when it is built.
    pub(super) fn load_finished(&mut self, number: u64, job: &StoredJob<'_>, state: State, length: usize) {
        let (data, result) = job.apart();
        let apart = u64::from(data.unwrap_or(0)) + u64::from(result.unwrap_or(0));
        let finished = Finished {
            state,
            kind: self.share(job.kind),
            key: job.key.map(|key| self.share(key)),
            attempt: job.attempt,
            prune_at: job.finished_at.saturating_add_unsigned(job.retention_ms),
            bytes: length as u64 + apart,
            data_apart: data.is_some(),
            result_apart: result.is_some(),
        };
        self.by_state[state as usize].insert(number);
        self.done.insert(number, finished);
    }

    /// Forgets the finished jobs whose time would come first while there are too many, the dead letter set last.
    pub(super) fn prune_excess(&mut self, effects: &mut Effects) {
        let (jobs_max, bytes_max) = (self.rules.limits.finished_max, self.rules.limits.finished_bytes_max);
        while self.done.jobs.len() as u64 > jobs_max || self.done.bytes > bytes_max {
            let Some((_, _, number)) = self.done.order.first().copied() else { return };
            self.prune(number, effects);
        }
    }

    /// Deletes a finished job for good.
    pub(super) fn prune(&mut self, number: u64, effects: &mut Effects) {
        let Some(finished) = self.unretire(number) else { return };
        effects.changes.push((number, finished.attempt, Change::Pruned));
        self.delete_records(number, finished.data_apart, finished.result_apart, effects);
    }

    /// Takes a finished job out of the index, its records staying.
    pub(super) fn unretire(&mut self, number: u64) -> Option<Finished> {
        let finished = self.done.remove(number)?;
        self.by_state[finished.state as usize].remove(&number);
        Some(finished)
    }

    pub(super) fn delete_records(&self, number: u64, data_apart: bool, result_apart: bool, effects: &mut Effects) {
        effects.batch.delete(JOBS, key(self.no, number));
        for (apart, part) in [(data_apart, DATA), (result_apart, RESULT)] {
            if apart {
                effects.batch.delete(PAYLOADS, payload_key(self.no, number, part));
            }
        }
    }
}
