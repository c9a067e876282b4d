//! Looking at jobs, and the verbs of people: cancel, retry, purge, pause.

use std::iter::Peekable;
use std::time::Duration;

use bytes::Bytes;

use super::{Core, Effects, Entry, Payload};
use crate::record::{QUEUES, RESULT, StoredJob, StoredQueue, encode, payload_key};
use crate::{Change, Error, Job, JobFilter, State, UnixMillis};

/// One page looks at no more jobs than this, however many a filter passes over.
const LOOK_MAX: usize = 10_000;

/// A job that was found: known whole, or finished and to be read from its record.
#[derive(Debug)]
pub(crate) enum Found {
    /// Live; the length of its payload when that is kept apart.
    Live(Box<Job>, bool),
    /// Finished in this state.
    Finished(State),
}

/// Numbers of a page, live jobs already whole.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) found: Vec<(u64, Found)>,
    pub(crate) next: Option<u64>,
}

impl Core {
    pub(crate) fn find(&self, number: u64) -> Option<Found> {
        if let Some(index) = self.slab.find(number) {
            let entry = &self.slab[index];
            return Some(Found::Live(Box::new(self.view(entry)), matches!(entry.spec.data, Payload::Apart(_))));
        }
        self.done.get(number).map(|finished| Found::Finished(finished.state))
    }

    fn view(&self, entry: &Entry) -> Job {
        let spec = &entry.spec;
        let waits = matches!(entry.state, State::Scheduled | State::Retryable);
        Job {
            id: self.id(entry.number),
            kind: spec.kind.clone(),
            data: match &spec.data {
                Payload::Here(bytes) => Some(Bytes::clone(bytes)),
                Payload::Apart(_) => None,
            },
            state: entry.state,
            cancelling: entry.cancelling,
            priority: spec.priority,
            key: spec.key.clone(),
            dedup_key: spec.dedup.as_ref().map(|dedup| dedup.0.clone()),
            attempt: entry.attempt,
            max_attempts: spec.max_attempts,
            progress: entry.report.as_ref().map(|report| report.0),
            progress_note: entry.report.as_ref().and_then(|report| report.1.clone()),
            result: None,
            error: entry.error.clone(),
            created_at: UnixMillis(spec.created_at),
            run_at: waits.then_some(UnixMillis(entry.at)),
            expires_at: (spec.expires_at != i64::MAX).then_some(UnixMillis(spec.expires_at)),
            started_at: (entry.started_at != 0).then_some(UnixMillis(entry.started_at)),
            finished_at: None,
            timeout: Duration::from_millis(spec.timeout_ms),
        }
    }

    /// One page in order of submission: a walk over the members of a state, never over all jobs.
    pub(crate) fn list(&self, filter: &JobFilter) -> Listed {
        let mut listed = Listed::default();
        let from = filter.after.map_or(0, |after| after.saturating_add(1));
        let states: &[State] = filter.state.as_ref().map_or(&State::ALL, std::slice::from_ref);
        let mut members: Vec<_> = states.iter().map(|s| self.by_state[*s as usize].range(from..).peekable()).collect();
        let mut looked = 0;
        // The smallest of at most seven sorted walks.
        while let Some(number) = next_of(&mut members) {
            if listed.found.len() == filter.limit || looked == LOOK_MAX {
                return listed;
            }
            looked += 1;
            listed.next = Some(number);
            if self.matches(number, filter)
                && let Some(found) = self.find(number)
            {
                listed.found.push((number, found));
            }
        }
        listed.next = None;
        listed
    }

    fn matches(&self, number: u64, filter: &JobFilter) -> bool {
        let (kind, key) = match (self.slab.find(number), self.done.get(number)) {
            (Some(index), _) => (&self.slab[index].spec.kind, &self.slab[index].spec.key),
            (None, Some(finished)) => (&finished.kind, &finished.key),
            (None, None) => return false,
        };
        filter.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && filter.key.as_ref().is_none_or(|wanted| key.as_ref() == Some(wanted))
    }

    /// Calls a job off; a running one is told at its next beat, and at once through the log.
    pub(crate) fn cancel(&mut self, now: i64, number: u64, effects: &mut Effects) -> Result<(), Error> {
        let Some(index) = self.slab.find(number) else {
            return match self.done.get(number).map(|finished| finished.state) {
                Some(State::Cancelled) => Ok(()),
                Some(state) => Err(Error::Conflict { id: self.id(number), state, verb: "cancel" }),
                None => Err(Error::JobNotFound { id: self.id(number) }),
            };
        };
        if self.slab[index].state != State::Running {
            self.end(now, index, State::Cancelled, None, effects);
        } else if !self.slab[index].cancelling {
            self.slab[index].cancelling = true;
            self.write(index, effects);
            self.note(index, Change::CancelRequested, effects);
        }
        Ok(())
    }

    /// Puts a finished job back to the end of the line with all its attempts; `record` is what is stored of it.
    pub(crate) fn retry(
        &mut self,
        now: i64,
        number: u64,
        record: &StoredJob<'_>,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        let state = match (self.done.get(number), self.slab.find(number)) {
            (Some(finished), _) => finished.state,
            (None, Some(index)) => self.slab[index].state,
            (None, None) => return Err(Error::JobNotFound { id: self.id(number) }),
        };
        let conflict = |verb| Err(Error::Conflict { id: self.id(number), state, verb });
        if !matches!(state, State::Discarded | State::Cancelled) {
            return conflict("retry");
        }
        if record.dedup.is_some_and(|(key, _)| self.live_with(now, key).is_some()) {
            return conflict("retry while another job with its dedup key is live");
        }
        let (_, result) = record.apart();
        let mut entry = record.entry(number, state, &mut |name| self.share(name));
        self.make_room(now, entry.spec.weight(), entry.spec.priority, effects)?;
        // Making room may have forgotten the very job.
        if self.unretire(number).is_none() {
            return Err(Error::JobNotFound { id: self.id(number) });
        }
        entry.attempt = 0;
        entry.started_at = 0;
        entry.spec.expires_at = i64::MAX;
        if let Some(dedup) = &entry.spec.dedup {
            self.dedup.insert(dedup.0.clone(), (number, dedup.1));
        }
        if result.is_some() {
            effects.batch.delete(crate::record::PAYLOADS, payload_key(self.no, number, RESULT));
        }
        let index = self.insert(entry);
        self.enter(index, now);
        self.write(index, effects);
        self.note(index, Change::Retried, effects);
        Ok(())
    }

    /// Deletes up to `limit` jobs of a state that is not `Running`; says how many.
    pub(crate) fn purge(&mut self, state: State, limit: usize, effects: &mut Effects) -> usize {
        let numbers: Vec<u64> = self.by_state[state as usize].iter().take(limit).copied().collect();
        for number in &numbers {
            match self.slab.find(*number) {
                Some(index) => self.erase(index, effects),
                None => self.prune(*number, effects),
            }
        }
        numbers.len()
    }

    /// Holds off claims, or lets them through again.
    pub(crate) fn set_paused(&mut self, paused: bool, effects: &mut Effects) {
        self.paused = paused;
        effects.batch.put(QUEUES, queue_key(self.name.as_str()), encode(&StoredQueue { no: self.no, paused }));
    }
}

/// Takes the smallest head of sorted walks.
fn next_of<'a>(walks: &mut [Peekable<impl Iterator<Item = &'a u64>>]) -> Option<u64> {
    let heads = walks.iter_mut().enumerate().filter_map(|(at, walk)| walk.peek().map(|number| (**number, at)));
    let (number, at) = heads.min()?;
    walks[at].next();
    Some(number)
}

/// The key of a queue's own record.
pub(crate) fn queue_key(name: &str) -> Vec<u8> {
    [b"q", name.as_bytes()].concat()
}
