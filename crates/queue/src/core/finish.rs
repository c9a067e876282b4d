//! Ending attempts and ending jobs.

use std::time::Duration;

use super::{Core, Effects, millis};
use crate::record::{CLAIMS, INLINE_MAX, PAYLOADS, RESULT, StoredJob, encode, key, payload_key};
use crate::{Change, Finish, Outcome, Retry, State};

/// The longest error text that is kept. 8 KiB: a stack trace fits.
const ERROR_MAX: usize = 8192;

impl Core {
    /// Ends one attempt.
    pub(crate) fn finish(&mut self, now: i64, finish: Finish, effects: &mut Effects) -> Outcome {
        let Some(index) = self.holder(now, finish.lease()) else { return Outcome::Stale };
        match finish {
            Finish::Complete { result, .. } => self.end(now, index, State::Completed, result.as_deref(), effects),
            Finish::Fail { error, retry, .. } => self.fail(now, index, &error, retry, effects),
            Finish::Release { .. } => self.release(now, index, effects),
        }
        Outcome::Ok
    }

    /// An attempt failed: again later, or to the dead letter set.
    pub(super) fn fail(&mut self, now: i64, index: u32, error: &str, retry: Retry, effects: &mut Effects) {
        let entry = &mut self.slab[index];
        entry.error = Some(cut(error, ERROR_MAX).into());
        if entry.cancelling {
            return self.end(now, index, State::Cancelled, None, effects);
        }
        let delay = match retry {
            Retry::Never => None,
            _ if entry.attempt >= entry.spec.max_attempts => None,
            Retry::In(delay) => Some(delay),
            Retry::Backoff => Some(self.random.up_to(entry.spec.backoff().ceiling(entry.attempt))),
        };
        match delay {
            None => self.end(now, index, State::Discarded, None, effects),
            Some(delay) => self.retry_later(now, index, delay, effects),
        }
    }

    fn retry_later(&mut self, now: i64, index: u32, delay: Duration, effects: &mut Effects) {
        // Its end may not be durable when somebody else gets it.
        self.slab[index].rescued = true;
        self.leave_running(index, effects);
        self.set_state(index, State::Retryable);
        let entry = &mut self.slab[index];
        entry.at = now.saturating_add(millis(delay));
        entry.turn = 0;
        self.due.insert((entry.at, entry.number));
        self.write(index, effects);
        self.note(index, Change::Retrying, effects);
    }

    fn release(&mut self, now: i64, index: u32, effects: &mut Effects) {
        if self.slab[index].cancelling {
            return self.end(now, index, State::Cancelled, None, effects);
        }
        self.slab[index].rescued = true;
        self.leave_running(index, effects);
        let entry = &mut self.slab[index];
        entry.attempt -= 1;
        if entry.attempt == 0 {
            entry.started_at = 0;
            if entry.spec.expires_at != i64::MAX {
                self.expiring.insert((entry.spec.expires_at, entry.number));
            }
        }
        self.enter(index, now);
        self.write(index, effects);
        self.note(index, Change::Released, effects);
    }

    /// The lease ran out: available again at its old place, unless it has no attempt or no time left.
    pub(super) fn rescue(&mut self, now: i64, index: u32, effects: &mut Effects) {
        // Whatever becomes of it, its lease must stay void: the next grant waits until that is durable.
        self.slab[index].rescued = true;
        let entry = &self.slab[index];
        let (attempt, attempts) = (entry.attempt, entry.spec.max_attempts);
        if entry.cancelling {
            self.end(now, index, State::Cancelled, None, effects);
        } else if entry.deadline <= now {
            let error = format!("timed out after {} ms", entry.spec.timeout_ms);
            self.fail(now, index, &error, Retry::Backoff, effects);
        } else if attempt >= attempts {
            let error = format!("lease expired on attempt {attempt} of {attempts}: the worker died or lost contact");
            self.fail(now, index, &error, Retry::Never, effects);
        } else {
            self.slab[index].error = Some(format!("lease expired on attempt {attempt} of {attempts}").into());
            self.leave_running(index, effects);
            self.enter(index, now);
            self.write(index, effects);
            self.note(index, Change::Rescued, effects);
        }
    }

    /// A waiting job's time is over.
    pub(super) fn expire(&mut self, now: i64, index: u32, effects: &mut Effects) {
        self.slab[index].error = Some("expired: it did not start in time".into());
        self.end(now, index, State::Discarded, None, effects);
    }

    /// Takes a running job out of the running; what it becomes is up to the caller.
    fn leave_running(&mut self, index: u32, effects: &mut Effects) {
        self.stop(index);
        let entry = &mut self.slab[index];
        entry.report = None;
        self.leases.remove(&(entry.at, entry.number));
        let grant = entry.grant;
        if let Some(left) = self.grants.get_mut(&grant) {
            *left -= 1;
            if *left == 0 {
                self.grants.remove(&grant);
                effects.batch.delete(CLAIMS, key(self.no, grant));
            }
        }
    }

    /// Ends a live job in any state: its record is rewritten, its place in every index given up.
    pub(super) fn end(&mut self, now: i64, index: u32, state: State, result: Option<&[u8]>, effects: &mut Effects) {
        let number = self.slab[index].number;
        let report = self.slab[index].report.take();
        match self.slab[index].state {
            State::Running => self.leave_running(index, effects),
            State::Available => self.leave_line(index),
            _ => _ = self.due.remove(&(self.slab[index].at, number)),
        }
        self.set_state(index, state);
        let change = match state {
            State::Completed => Change::Completed,
            State::Cancelled => Change::Cancelled,
            _ => Change::Discarded,
        };
        self.note(index, change, effects);
        let Some(mut entry) = self.slab.remove(index) else { return };
        (entry.cancelling, entry.report) = (false, report);
        self.forget_names(&entry);
        if let Some(result) = result.filter(|result| result.len() > INLINE_MAX) {
            effects.batch.put(PAYLOADS, payload_key(self.no, number, RESULT), result);
        }
        let record = encode(&StoredJob::of(&entry, now, result));
        self.retire(now, &entry, state, record, result.map_or(0, <[u8]>::len), effects);
        self.prune_excess(effects);
    }

    fn forget_names(&mut self, entry: &super::Entry) {
        self.bytes -= entry.spec.weight();
        if entry.attempt == 0 && entry.spec.expires_at != i64::MAX {
            self.expiring.remove(&(entry.spec.expires_at, entry.number));
        }
        if let Some(dedup) = &entry.spec.dedup
            && self.dedup.get(&dedup.0).is_some_and(|(number, _)| *number == entry.number)
        {
            self.dedup.remove(&dedup.0);
        }
    }

    /// Deletes a live job that was never handed out, without a trace but the log's.
    pub(super) fn erase(&mut self, index: u32, effects: &mut Effects) {
        let number = self.slab[index].number;
        match self.slab[index].state {
            State::Available => self.leave_line(index),
            _ => _ = self.due.remove(&(self.slab[index].at, number)),
        }
        self.note(index, Change::Pruned, effects);
        let Some(entry) = self.slab.remove(index) else { return };
        self.by_state[entry.state as usize].remove(&number);
        self.forget_names(&entry);
        let apart = matches!(entry.spec.data, super::Payload::Apart(_));
        self.delete_records(number, apart, false, effects);
    }
}

/// The longest prefix of whole characters within `max` bytes.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
