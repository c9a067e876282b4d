//! The rules of one queue as a pure state machine: `now` is an argument, there is no I/O, what must be written comes
//! back as [`Effects`]. It is the embedded backend's index and what the scripts of any other backend must agree with.
//!
//! - `entry.rs`: a live job, and the slab that holds them
//! - `line.rs`: who is next; fairness between keys
//! - `push.rs`, `claim.rs`, `finish.rs`, `manage.rs`: the verbs
//! - `upkeep.rs`: what time does
//! - `done.rs`: finished jobs and how long they are kept
//! - `load.rs`: from the records back to the index

mod claim;
mod done;
mod entry;
mod finish;
mod line;
mod load;
mod manage;
mod push;
mod upkeep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use tidegate_store::Batch;

pub(crate) use claim::{Grant, Renewed};
pub(crate) use entry::{Entry, Payload, Spec};
pub(crate) use finish::cut;
pub(crate) use load::Loader;
pub(crate) use manage::{Found, queue_key};
pub(crate) use push::check;

use crate::random::Random;
use crate::record::{JOBS, StoredJob, encode, key};
use crate::stats::Rate;
use crate::{Change, Counts, JobId, QueueConfig, QueueName, State};
use done::Done;
use entry::Slab;
use line::{Lanes, Line};

use upkeep::{Idempotencies, Log};

/// What a verb wants written and told.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// The records.
    pub(crate) batch: Batch,
    /// Number, attempt and change, in order.
    pub(crate) changes: Vec<(u64, u16, Change)>,
}

/// Settings the rules need.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) limits: QueueConfig,
    pub(crate) lease: Duration,
    pub(crate) payload_max: usize,
    pub(crate) history_max: u64,
    pub(crate) history_age: Duration,
    pub(crate) idempotency_max: usize,
    pub(crate) idempotency_window: Duration,
}

/// One queue.
pub(crate) struct Core {
    name: QueueName,
    /// The queue's number in the keys of its records.
    no: u32,
    rules: Rules,
    pub(crate) paused: bool,
    /// The steps of the clock up to the last verb, and when that was.
    clock_steps: i64,
    decided_at: i64,
    next_number: u64,
    next_grant: u64,
    next_turn: i64,
    slab: Slab,
    line: Line,
    lanes: Lanes,
    /// Members of each state, in order of submission, for lists and counts.
    by_state: [BTreeSet<u64>; 7],
    /// `run_at` of the scheduled and retryable.
    due: BTreeSet<(i64, u64)>,
    /// `expires_at` of those that expire and have not started.
    expiring: BTreeSet<(i64, u64)>,
    /// Expiry of the running.
    leases: BTreeSet<(i64, u64)>,
    /// Live jobs by dedup key: number, end of the window.
    dedup: HashMap<Arc<str>, (u64, i64)>,
    /// Claims with jobs still running, and how many.
    grants: HashMap<u64, u32>,
    /// Names of kinds and keys in use, so equal ones share their bytes.
    names: HashSet<Arc<str>>,
    /// Names that found no room among `names` since they were last looked through.
    unshared: usize,
    done: Done,
    log: Log,
    idempotencies: Idempotencies,
    /// Bytes of the live jobs.
    bytes: u64,
    enqueued: Rate,
    random: Random,
}

impl Core {
    /// An empty queue. Numbers and grants start above everything of earlier epochs.
    pub(crate) fn new(name: QueueName, no: u32, epoch: u32, rules: Rules, seed: u64) -> Self {
        let first = u64::from(epoch) << 32 | 1;
        Self {
            name,
            no,
            rules,
            paused: false,
            clock_steps: 0,
            decided_at: 0,
            next_number: first,
            next_grant: first,
            next_turn: 1,
            slab: Slab::default(),
            line: Line::default(),
            lanes: Lanes::default(),
            by_state: Default::default(),
            due: BTreeSet::new(),
            expiring: BTreeSet::new(),
            leases: BTreeSet::new(),
            dedup: HashMap::default(),
            grants: HashMap::default(),
            names: HashSet::default(),
            unshared: 0,
            done: Done::default(),
            log: Log::default(),
            idempotencies: Idempotencies::default(),
            bytes: 0,
            enqueued: Rate::default(),
            random: Random::new(seed ^ u64::from(no)),
        }
    }

    pub(crate) fn name(&self) -> &QueueName {
        &self.name
    }

    pub(crate) fn no(&self) -> u32 {
        self.no
    }

    pub(crate) fn limits(&self) -> &QueueConfig {
        &self.rules.limits
    }

    pub(crate) fn enqueued_per_second(&self, now: i64) -> f64 {
        self.enqueued.per_second(now)
    }

    pub(crate) fn id(&self, number: u64) -> JobId {
        JobId { queue: self.name.clone(), number }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for state in State::ALL {
            counts.set(state, self.by_state[state as usize].len() as u64);
        }
        counts
    }

    pub(crate) fn live(&self) -> u64 {
        self.slab.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Jobs that could be claimed right now.
    pub(crate) fn ready(&self) -> usize {
        if self.paused || self.running() >= self.running_limit() { 0 } else { self.line.len() }
    }

    fn running(&self) -> usize {
        self.leases.len()
    }

    fn running_limit(&self) -> usize {
        self.rules.limits.running_limit.map_or(usize::MAX, |limit| limit as usize)
    }

    /// Since when the job that waits longest is available.
    pub(crate) fn oldest_available(&self) -> Option<i64> {
        self.line.heads().map(|index| self.slab[index].at).min()
    }

    /// Starts to follow a clock that has made these steps already.
    pub(crate) fn start_clock(&mut self, steps: i64) {
        self.clock_steps = steps;
    }

    /// Moves leases and deadlines along when the clock was set, so that they keep their length.
    pub(crate) fn follow_clock(&mut self, steps: i64) {
        let step = steps - std::mem::replace(&mut self.clock_steps, steps);
        if step == 0 {
            return;
        }
        for (at, number) in std::mem::take(&mut self.leases) {
            if let Some(index) = self.slab.find(number) {
                let entry = &mut self.slab[index];
                entry.at = at.saturating_add(step);
                entry.deadline = entry.deadline.saturating_add(step);
                self.leases.insert((entry.at, number));
            }
        }
    }

    /// Forgives leases that ran out while this process stood still (stopped, or starved): their workers could not beat.
    ///
    /// Upkeep wakes at the first expiry. When that is long past and nothing was decided since, nobody was awake to take
    /// a beat either.
    pub(crate) fn forgive_standstill(&mut self, now: i64) {
        /// 500 ms: a busy machine is late by tens of milliseconds.
        const SLACK: i64 = 500;
        let before = std::mem::replace(&mut self.decided_at, now);
        let Some((first, _)) = self.leases.first().copied() else { return };
        if first.saturating_add(SLACK) >= now || before > first {
            return;
        }
        let until = now.saturating_add(millis(self.rules.lease));
        while let Some((at, number)) = self.leases.first().copied().filter(|(at, _)| *at <= now) {
            self.leases.remove(&(at, number));
            if let Some(index) = self.slab.find(number) {
                self.slab[index].at = until;
                self.leases.insert((until, number));
            }
        }
    }

    /// The one way into a state: every index that depends on the state is brought along.
    fn set_state(&mut self, index: u32, state: State) {
        let entry = &mut self.slab[index];
        let from = std::mem::replace(&mut entry.state, state);
        debug_assert!(from == state || from.can_become(state), "{from:?} → {state:?}");
        if from != state {
            self.by_state[from as usize].remove(&entry.number);
            self.by_state[state as usize].insert(entry.number);
        }
    }

    /// The turn at the end of the line.
    fn next_turn(&mut self) -> i64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        turn
    }

    /// Shares the bytes of equal names.
    fn share(&mut self, name: &str) -> Arc<str> {
        /// Beyond this many, names nobody else holds are let go.
        const NAMES_MAX: usize = 10_000;
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= NAMES_MAX {
            self.unshared += 1;
            // A look at all of them costs as much as this many names that are not shared.
            if self.unshared >= NAMES_MAX {
                self.unshared = 0;
                self.names.retain(|name| Arc::strong_count(name) > 1);
            }
        }
        let name: Arc<str> = name.into();
        // Still full of names in use: not sharing costs memory, never correctness.
        if self.names.len() < NAMES_MAX {
            self.names.insert(Arc::clone(&name));
        }
        name
    }

    fn write(&self, index: u32, effects: &mut Effects) {
        let entry = &self.slab[index];
        effects.batch.put(JOBS, key(self.no, entry.number), encode(&StoredJob::of(entry, 0, None)));
    }

    fn note(&self, index: u32, change: Change, effects: &mut Effects) {
        let entry = &self.slab[index];
        effects.changes.push((entry.number, entry.attempt, change));
    }
}

/// Milliseconds of a duration, saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Finish, NewJob, Outcome};

    fn core() -> Core {
        let config = Config::default();
        let rules = Rules {
            limits: QueueConfig::default(),
            lease: config.lease,
            payload_max: config.payload_max,
            history_max: 0,
            history_age: config.history_age,
            idempotency_max: 1,
            idempotency_window: config.idempotency_window,
        };
        Core::new(QueueName::new("q").unwrap(), 1, 1, rules, 1)
    }

    /// What the worker of a job with a lease from 0 to 10 000 is told at `now`, when the verbs before came at `decided`.
    fn outcome(decided: &[i64], now: i64) -> Outcome {
        let (mut core, mut effects) = (core(), Effects::default());
        core.push(0, vec![NewJob::new("k", "{}")], None, &mut effects).unwrap();
        let lease = core.claim(0, false, 1, &mut effects)[0].lease;
        for at in decided.iter().chain([&now]) {
            core.forgive_standstill(*at);
            core.upkeep(*at, 10, &mut effects);
        }
        core.finish(now, Finish::Release { lease }, &mut effects)
    }

    #[test]
    fn a_lease_that_ran_out_while_we_stood_still_is_forgiven_and_no_other() {
        assert_eq!(outcome(&[], 9_999), Outcome::Ok);
        assert_eq!(outcome(&[], 10_001), Outcome::Stale, "upkeep was in time, the worker was not");
        assert_eq!(outcome(&[9_000], 60_000), Outcome::Ok, "nobody was awake");
        assert_eq!(outcome(&[9_000, 60_000], 70_001), Outcome::Stale, "forgiven once");
        assert_eq!(outcome(&[10_100], 60_000), Outcome::Stale, "it was rescued in time");
    }
}
