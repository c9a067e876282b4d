//! How much of everything there was: a run that did nothing proves nothing.

use std::collections::BTreeMap;

use super::history::History;
use super::judge::Judged;

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Runs.
    pub seeds: u64,
    /// Answers that were judged.
    pub reads: u64,
    /// Of these, those whose value came from a process that was killed before it told.
    pub unknown: u64,
    /// Acknowledged changes, by kind.
    pub changes: BTreeMap<String, u64>,
    /// What broke, by kind.
    pub faults: BTreeMap<String, u64>,
    /// What the caches counted.
    pub counters: BTreeMap<String, u64>,
    /// The longest read, in milliseconds; processes and their Redis stand still now and then.
    pub slowest_read_ms: u64,
    /// Broken promises.
    pub violations: u64,
}

impl Figures {
    pub(super) fn of(history: &History, judged: &Judged) -> Self {
        let mut changes: BTreeMap<String, u64> = BTreeMap::new();
        for change in &history.changes {
            let who = if change.node.is_some() { "" } else { " by others" };
            *changes.entry(format!("{}{who}", change.what.kind())).or_default() += 1;
        }
        let slowest = history.reads.iter().map(|read| read.end - read.start).max().unwrap_or(0);
        Self {
            seeds: 1,
            reads: judged.reads,
            unknown: judged.unknown,
            changes,
            faults: history.fault_counts.clone(),
            counters: history.counters.clone(),
            slowest_read_ms: slowest / 1_000_000,
            violations: judged.violations.len() as u64,
        }
    }

    /// Adds another run, or sum.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.violations += other.violations;
        self.slowest_read_ms = self.slowest_read_ms.max(other.slowest_read_ms);
        let pairs = [
            (&mut self.changes, &other.changes),
            (&mut self.faults, &other.faults),
            (&mut self.counters, &other.counters),
        ];
        for (sums, numbers) in pairs {
            numbers.iter().for_each(|(name, number)| *sums.entry(name.clone()).or_default() += number);
        }
    }

    /// Acknowledged changes of all kinds.
    #[must_use]
    pub fn changes_total(&self) -> u64 {
        self.changes.values().sum()
    }
}
