//! Handing jobs out, and renewing the right to them.

use std::sync::Arc;

use super::entry::Payload;
use super::{Core, Effects, millis};
use crate::record::{CLAIMS, StoredClaim, encode, key};
use crate::{Change, Lease, Progress, State};

/// Payload bytes handed out in one claim at most, but for a single job. 32 MiB: a thousand of the largest payloads
/// must not meet in memory.
const CLAIM_BYTES_MAX: usize = 32 << 20;

/// A job handed out; the payload may still have to be read.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) lease: Lease,
    pub(crate) kind: Arc<str>,
    pub(crate) data: Payload,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) attempt: u16,
    pub(crate) max_attempts: u16,
    pub(crate) priority: u8,
    pub(crate) deadline: i64,
    /// How long it had been available.
    pub(crate) waited_ms: i64,
    /// Somebody else held it before: their lease ran out, or they failed or gave it back, which may not be durable yet. It must
    /// be before this grant is told: after a crash that forgot it, the old lease would be good again.
    pub(crate) supersedes: bool,
}

/// The answer to one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    Ok,
    /// Stop: cancelled, or past its deadline.
    Cancelled,
    Stale,
}

impl Core {
    /// Hands out up to `limit` jobs, most urgent first.
    pub(crate) fn claim(&mut self, now: i64, local: bool, limit: usize, effects: &mut Effects) -> Vec<Grant> {
        let room = self.running_limit().saturating_sub(self.running());
        let limit = limit.min(room);
        if self.paused || limit == 0 {
            return Vec::new();
        }
        let number = self.next_grant;
        let mut grants = Vec::with_capacity(limit.min(self.line.len()));
        let mut bytes = 0;
        while grants.len() < limit {
            let Some(index) = self.line.first() else { break };
            let entry = &self.slab[index];
            if entry.attempt == 0 && entry.spec.expires_at <= now {
                self.expire(now, index, effects);
            } else if bytes + entry.spec.data.len() > CLAIM_BYTES_MAX && !grants.is_empty() {
                break;
            } else {
                bytes += entry.spec.data.len();
                grants.push(self.grant(now, index, number));
                self.note(index, Change::Claimed, effects);
            }
        }
        if !grants.is_empty() {
            self.next_grant += 1;
            self.grants.insert(number, u32::try_from(grants.len()).unwrap_or(u32::MAX));
            let jobs = grants.iter().map(|grant| (grant.lease.number, grant.attempt)).collect();
            effects.batch.put(CLAIMS, key(self.no, number), encode(&StoredClaim { at: now, local, jobs }));
        }
        grants
    }

    fn grant(&mut self, now: i64, index: u32, grant: u64) -> Grant {
        self.start(index);
        let lease = millis(self.rules.lease);
        let entry = &mut self.slab[index];
        if entry.attempt == 0 && entry.spec.expires_at != i64::MAX {
            self.expiring.remove(&(entry.spec.expires_at, entry.number));
        }
        let waited_ms = now.saturating_sub(entry.at);
        entry.attempt += 1;
        let supersedes = std::mem::take(&mut entry.rescued);
        entry.grant = grant;
        entry.started_at = now;
        entry.deadline = now.saturating_add_unsigned(entry.spec.timeout_ms);
        entry.at = now.saturating_add(lease);
        entry.report = None;
        self.leases.insert((entry.at, entry.number));
        Grant {
            lease: Lease { queue: self.no, number: entry.number, grant },
            kind: Arc::clone(&entry.spec.kind),
            data: entry.spec.data.clone(),
            key: entry.spec.key.clone(),
            attempt: entry.attempt,
            max_attempts: entry.spec.max_attempts,
            priority: entry.spec.priority,
            deadline: entry.deadline,
            waited_ms,
            supersedes,
        }
    }

    /// The running job this lease is good for.
    pub(super) fn holder(&self, now: i64, lease: Lease) -> Option<u32> {
        let index = self.slab.find(lease.number).filter(|_| lease.queue == self.no)?;
        let entry = &self.slab[index];
        (entry.state == State::Running && entry.grant == lease.grant && now < entry.at).then_some(index)
    }

    /// Extends a lease to a full length from now, but not beyond one length after the attempt's deadline.
    pub(crate) fn renew(&mut self, now: i64, lease: Lease) -> Renewed {
        let Some(index) = self.holder(now, lease) else { return Renewed::Stale };
        let length = millis(self.rules.lease);
        let entry = &mut self.slab[index];
        let until = now.saturating_add(length).min(entry.deadline.saturating_add(length)).max(entry.at);
        self.leases.remove(&(entry.at, entry.number));
        self.leases.insert((until, entry.number));
        entry.at = until;
        if entry.cancelling || entry.deadline <= now { Renewed::Cancelled } else { Renewed::Ok }
    }

    /// Notes progress; `false` when the lease is stale.
    pub(crate) fn progress(&mut self, now: i64, update: Progress, effects: &mut Effects) -> bool {
        let Some(index) = self.holder(now, update.lease) else { return false };
        let progress = if update.progress.is_nan() { 0.0 } else { update.progress.clamp(0.0, 1.0) };
        self.slab[index].report = Some(Box::new((progress, update.note.clone())));
        self.note(index, Change::Progress { progress, note: update.note }, effects);
        true
    }
}
