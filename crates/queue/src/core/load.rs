//! From the records back to the index, after a start.

use std::collections::BTreeMap;

use super::{Core, Effects, Entry, millis};
use crate::State;
use crate::record::{CLAIMS, StoredChunk, StoredClaim, StoredIdempotency, StoredJob, decode, key};

/// Gathers the records of one queue, then builds its index.
pub(crate) struct Loader {
    core: Core,
    live: BTreeMap<u64, Entry>,
    /// Finished records by end: finished at, number, record.
    finished: BTreeMap<(i64, u64), Vec<u8>>,
    claims: BTreeMap<u64, StoredClaim>,
}

impl Loader {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, live: BTreeMap::new(), finished: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// Takes a record of the jobs table.
    pub(crate) fn job(&mut self, number: u64, record: &[u8]) -> Result<(), String> {
        let job: StoredJob<'_> = decode(record)?;
        let state = job.state()?;
        if state.is_finished() {
            self.finished.insert((job.finished_at, number), record.to_vec());
        } else {
            let entry = job.entry(number, state, &mut |name| self.core.share(name));
            self.live.insert(number, entry);
        }
        Ok(())
    }

    /// Takes a record of the claims table.
    pub(crate) fn claim(&mut self, grant: u64, record: &[u8]) -> Result<(), String> {
        self.claims.insert(grant, decode(record)?);
        Ok(())
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
    /// those of this process, which died with it: their leases are over.
    pub(crate) fn finish(mut self, now: i64, effects: &mut Effects) -> Result<Core, String> {
        for ((_, number), record) in std::mem::take(&mut self.finished) {
            let job: StoredJob<'_> = decode(&record)?;
            let state = job.state()?;
            self.core.load_finished(number, &job, state, record.len());
        }
        let running = self.apply_claims(effects);
        for (number, mut entry) in std::mem::take(&mut self.live) {
            if let Some(dedup) = &entry.spec.dedup {
                self.core.dedup.insert(dedup.0.clone(), (number, dedup.1));
            }
            let claim = running.get(&number);
            // A promotion is not written down: whoever runs, or is due, was or will be promoted.
            if claim.is_some() || entry.at <= now {
                entry.state = State::Available;
            }
            let (state, at) = (entry.state, entry.at);
            let index = self.core.insert(entry);
            // Those that run enter their lanes first, so that no key exceeds its limit below.
            match claim {
                Some(claim) => self.run(now, index, *claim),
                None if state != State::Available => _ = self.core.due.insert((at, number)),
                None => {}
            }
        }
        let waiting: Vec<u64> = self.core.by_state[State::Available as usize].iter().copied().collect();
        for number in waiting {
            if let Some(index) = self.core.slab.find(number) {
                let since = self.core.slab[index].spec.created_at;
                self.core.enter(index, since);
            }
        }
        self.core.prune_excess(effects);
        Ok(self.core)
    }

    /// Which jobs run, by the newest claim that concerns each: number → started at, local.
    fn apply_claims(&mut self, effects: &mut Effects) -> BTreeMap<u64, (i64, bool)> {
        let mut running = BTreeMap::new();
        for (grant, claim) in std::mem::take(&mut self.claims) {
            for (number, attempt) in claim.jobs {
                let Some(entry) = self.live.get_mut(&number).filter(|entry| grant > entry.grant) else { continue };
                entry.grant = grant;
                entry.attempt = attempt;
                running.insert(number, (claim.at, claim.local));
                *self.core.grants.entry(grant).or_default() += 1;
            }
            if !self.core.grants.contains_key(&grant) {
                effects.batch.delete(CLAIMS, key(self.core.no, grant));
            }
        }
        running
    }

    fn run(&mut self, now: i64, index: u32, (started_at, local): (i64, bool)) {
        let core = &mut self.core;
        if core.slab[index].attempt > 0 {
            let entry = &core.slab[index];
            core.expiring.remove(&(entry.spec.expires_at, entry.number));
        }
        core.start_loaded(index);
        let lease = if local { 0 } else { millis(core.rules.lease) };
        let entry = &mut core.slab[index];
        entry.local = local;
        entry.started_at = started_at;
        entry.deadline = started_at.saturating_add_unsigned(entry.spec.timeout_ms);
        entry.at = now.saturating_add(lease);
        core.leases.insert((entry.at, entry.number));
    }
}
