//! From the records back to the index, after a start.
//!
//! Claims come before jobs, so that each job is known to run or to wait when it is read, and goes to its place at once.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;

use super::{Core, Effects, millis};
use crate::State;
use crate::record::{CLAIMS, StoredChunk, StoredClaim, StoredIdempotency, StoredJob, decode, key};

/// Gathers the records of one queue, then builds its index.
pub(crate) struct Loader {
    core: Core,
    now: i64,
    /// Finished records by end: finished at, number, record.
    finished: BTreeMap<(i64, u64), Vec<u8>>,
    /// What was handed out, by job, newest last.
    claimed: HashMap<u64, Vec<Claimed>>,
    grants: BTreeSet<u64>,
    /// Available jobs in order: number and index; they enter when all that run are known.
    available: Vec<(u64, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Claimed {
    grant: u64,
    attempt: u16,
    at: i64,
    local: bool,
}

impl Loader {
    pub(crate) fn new(core: Core, now: i64) -> Self {
        Self {
            core,
            now,
            finished: BTreeMap::new(),
            claimed: HashMap::default(),
            grants: BTreeSet::new(),
            available: Vec::new(),
        }
    }

    /// Takes a record of the claims table, in order; all before the first job.
    pub(crate) fn claim(&mut self, grant: u64, record: &[u8]) -> Result<(), String> {
        let StoredClaim { at, local, jobs } = decode(record)?;
        self.grants.insert(grant);
        for (number, attempt) in jobs {
            self.claimed.entry(number).or_default().push(Claimed { grant, attempt, at, local });
        }
        Ok(())
    }

    /// Takes a record of the jobs table, in order.
    pub(crate) fn job(&mut self, number: u64, record: &[u8]) -> Result<(), String> {
        let job: StoredJob<'_> = decode(record)?;
        let state = job.state()?;
        if state.is_finished() {
            self.finished.insert((job.finished_at, number), record.to_vec());
        } else {
            self.live(number, &job, state);
        }
        Ok(())
    }

    fn live(&mut self, number: u64, job: &StoredJob<'_>, state: State) {
        let core = &mut self.core;
        let newest = self.claimed.get(&number).and_then(|claims| claims.last()).filter(|claim| claim.grant > job.floor);
        // A promotion is not written down: whoever runs, or is due, was or will be promoted.
        let waits = matches!(state, State::Scheduled | State::Retryable) && job.run_at > self.now;
        let state = if newest.is_none() && waits { state } else { State::Available };
        let mut entry = job.entry(number, state, &mut |name| core.share(name));
        if let Some(dedup) = &entry.spec.dedup {
            // The window of one at most is open, and not always that of the youngest: a job may have been retried by hand.
            let is_held = core.dedup.get(&dedup.0).is_some_and(|(_, until)| self.now < *until);
            if !is_held {
                core.dedup.insert(dedup.0.clone(), (number, dedup.1));
            }
        }
        if let Some(claim) = newest.copied() {
            entry.attempt = claim.attempt;
            entry.grant = claim.grant;
            let index = core.insert(entry);
            Self::run(core, self.now, index, claim);
            return;
        }
        if state != State::Available {
            core.due.insert((entry.at, number));
            core.insert(entry);
            return;
        }
        entry.at = entry.spec.created_at;
        // The set of the available and the line are built at the end, in one go.
        let index = core.insert_unlisted(entry);
        self.available.push((number, index));
    }

    fn run(core: &mut Core, now: i64, index: u32, claim: Claimed) {
        core.start_loaded(index);
        let lease = if claim.local { 0 } else { millis(core.rules.lease) };
        let entry = &mut core.slab[index];
        entry.started_at = claim.at;
        entry.deadline = claim.at.saturating_add_unsigned(entry.spec.timeout_ms);
        entry.at = now.saturating_add(lease);
        core.leases.insert((entry.at, entry.number));
        *core.grants.entry(claim.grant).or_default() += 1;
    }

    /// Takes a record of the history table.
    pub(crate) fn chunk(&mut self, first: u64, record: &[u8]) -> Result<(), String> {
        let chunk: StoredChunk = decode(record)?;
        self.core.log.load(first, chunk.entries.len() as u64, chunk.at);
        Ok(())
    }

    /// Takes a record of the idempotency table.
    pub(crate) fn idempotency(&mut self, place: u64, record: &[u8]) -> Result<(), String> {
        let record: StoredIdempotency = decode(record)?;
        self.core.idempotencies.load(place, record);
        Ok(())
    }

    /// Builds the index. Jobs that ran keep running under a fresh lease, so that their workers may go on, but for
    /// those of this process, which died with it: their leases are over. Those that waited stand in line in the order
    /// of their submission.
    pub(crate) fn finish(mut self, effects: &mut Effects) -> Result<Core, String> {
        for ((_, number), record) in std::mem::take(&mut self.finished) {
            let job: StoredJob<'_> = decode(&record)?;
            let state = job.state()?;
            self.core.load_finished(number, &job, state, record.len());
        }
        let core = &mut self.core;
        for grant in self.grants.iter().filter(|grant| !core.grants.contains_key(*grant)) {
            effects.batch.delete(CLAIMS, key(core.no, *grant));
        }
        core.list_available(&self.available);
        self.core.prune_excess(effects);
        Ok(self.core)
    }
}
