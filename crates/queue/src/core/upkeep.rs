//! What time does: rescue, promote, expire, prune. Every call is bounded; `next_at` says when the next is due.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use super::{Core, Effects, millis};
use crate::record::{HISTORY, IDEMPOTENCY, StoredChunk, StoredIdempotency, change_code, encode, key};
use crate::{Change, Error, Idempotency};

/// The stretches of history that are kept: first place, entries, when.
#[derive(Debug, Default)]
pub(crate) struct Log {
    chunks: VecDeque<(u64, u64, i64)>,
    next_place: u64,
    kept: u64,
}

impl Log {
    /// The starts of the stretches that hold up to `limit` entries after `place`.
    fn chunks_after(&self, place: u64, limit: usize) -> Vec<u64> {
        let index = self.chunks.partition_point(|(first, count, _)| first + count <= place.saturating_add(1));
        let mut entries = 0;
        let wanted = self.chunks.range(index..).take_while(|(first, count, _)| {
            let before = entries;
            entries += count - (place + 1).saturating_sub(*first).min(*count);
            before < limit as u64
        });
        wanted.map(|(first, ..)| *first).collect()
    }

    /// Takes a stored stretch into the index, oldest first.
    pub(super) fn load(&mut self, first: u64, count: u64, at: i64) {
        self.chunks.push_back((first, count, at));
        self.next_place = first + count;
        self.kept += count;
    }
}

/// Answers remembered per key, on the average, at most: a key of a large submission holds thousands.
const ANSWERS_PER_KEY: usize = 10;

/// Idempotency keys and where their records are.
#[derive(Debug, Default)]
pub(crate) struct Idempotencies {
    by_key: HashMap<Arc<str>, (u64, StoredIdempotency)>,
    /// Oldest first: place, key, when.
    by_age: VecDeque<(u64, Arc<str>, i64)>,
    next_place: u64,
    /// Answers remembered, all keys together.
    answers: usize,
    /// Forgotten before their time, because there were too many.
    pub(crate) forgotten_early: u64,
}

/// What is known of a key: its record's place and the answers given.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    place: Option<u64>,
    at: i64,
    answers: Vec<Option<(u64, u8, bool)>>,
}

impl Remembered {
    pub(super) fn answer(&self, place: usize) -> Option<(u64, u8, bool)> {
        self.answers.get(place).copied().flatten()
    }
}

impl Idempotencies {
    pub(super) fn recall(&self, now: i64, wanted: &Idempotency, window: i64) -> Result<Remembered, Error> {
        let known = self.by_key.get(&wanted.key).filter(|(_, known)| now < known.at.saturating_add(window));
        let Some((place, known)) = known else { return Ok(Remembered::default()) };
        if known.fingerprint != wanted.fingerprint {
            return Err(Error::IdempotencyMismatch);
        }
        Ok(Remembered { place: Some(*place), at: known.at, answers: known.answers.clone() })
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    pub(super) fn remember(
        &mut self,
        now: i64,
        no: u32,
        wanted: &Idempotency,
        remembered: &Remembered,
        answers: Vec<Option<(u64, u8, bool)>>,
        max: usize,
        effects: &mut Effects,
    ) {
        if remembered.answers == answers || answers.iter().all(Option::is_none) {
            return;
        }
        let (place, at) = remembered.place.map_or((self.next_place, now), |place| (place, remembered.at));
        let record = StoredIdempotency { key: Arc::clone(&wanted.key), fingerprint: wanted.fingerprint, at, answers };
        effects.batch.put(IDEMPOTENCY, key(no, place), encode(&record));
        self.load(place, record);
        while self.by_key.len() > max.max(1) || self.answers > max.max(1) * ANSWERS_PER_KEY {
            self.forgotten_early += 1;
            self.forget_oldest(no, effects);
        }
    }

    /// Takes a record into the index, in order of place.
    pub(super) fn load(&mut self, place: u64, record: StoredIdempotency) {
        if place >= self.next_place {
            self.next_place = place + 1;
            self.by_age.push_back((place, Arc::clone(&record.key), record.at));
        }
        self.answers += record.answers.len();
        if let Some((_, before)) = self.by_key.insert(Arc::clone(&record.key), (place, record)) {
            self.answers -= before.answers.len();
        }
    }

    fn forget_oldest(&mut self, no: u32, effects: &mut Effects) {
        let Some((place, name, _)) = self.by_age.pop_front() else { return };
        effects.batch.delete(IDEMPOTENCY, key(no, place));
        // A key used again after its window has a newer record.
        if self.by_key.get(&name).is_some_and(|(newest, _)| *newest == place)
            && let Some((_, record)) = self.by_key.remove(&name)
        {
            self.answers -= record.answers.len();
        }
    }
}

impl Core {
    /// Does up to `budget` of each kind of upkeep that is due; `true` when more may be due.
    pub(crate) fn upkeep(&mut self, now: i64, budget: usize, effects: &mut Effects) -> bool {
        let mut left = budget;
        while left > 0 && self.upkeep_one(now, effects) {
            left -= 1;
        }
        self.trim_history(now, effects);
        left == 0
    }

    fn upkeep_one(&mut self, now: i64, effects: &mut Effects) -> bool {
        if let Some(index) = first_due(&self.leases, now).and_then(|number| self.slab.find(number)) {
            self.rescue(now, index, effects);
        } else if let Some(number) = first_due(&self.due, now) {
            self.promote(now, number, effects);
        } else if let Some(index) = first_due(&self.expiring, now).and_then(|number| self.slab.find(number)) {
            self.expire(now, index, effects);
        } else if let Some(number) = self.done.first_due(now) {
            self.prune(number, effects);
        } else if self.idempotencies.by_age.front().is_some_and(|(.., at)| self.idempotency_end(*at) <= now) {
            self.idempotencies.forget_oldest(self.no, effects);
        } else {
            return false;
        }
        true
    }

    fn promote(&mut self, now: i64, number: u64, effects: &mut Effects) {
        self.due.pop_first();
        let Some(index) = self.slab.find(number) else { return };
        self.enter(index, now);
        self.note(index, Change::Promoted, effects);
    }

    fn idempotency_end(&self, at: i64) -> i64 {
        at.saturating_add(millis(self.rules.idempotency_window))
    }

    fn history_end(&self, at: i64) -> i64 {
        at.saturating_add(millis(self.rules.history_age))
    }

    /// When upkeep is due next, if nothing else happens.
    pub(crate) fn next_at(&self) -> Option<i64> {
        let first = |times: &std::collections::BTreeSet<(i64, u64)>| times.first().map(|(at, _)| *at);
        let times = [
            first(&self.leases),
            first(&self.due),
            first(&self.expiring),
            self.done.next_prune(),
            self.idempotencies.by_age.front().map(|(.., at)| self.idempotency_end(*at)),
            self.log.chunks.front().map(|(.., at)| self.history_end(*at)),
        ];
        times.into_iter().flatten().min()
    }

    /// Writes the changes of a verb to the log as one stretch and lets go of what is too much or too old. Returns
    /// the place of the first.
    pub(crate) fn log(&mut self, now: i64, effects: &mut Effects) -> u64 {
        let entries: Vec<_> = effects
            .changes
            .iter()
            .filter_map(|(number, attempt, change)| Some((*number, *attempt, change_code(change)?)))
            .collect();
        let first = self.log.next_place.max(1);
        if entries.is_empty() || self.rules.history_max == 0 {
            return first;
        }
        let count = entries.len() as u64;
        effects.batch.put(HISTORY, key(self.no, first), encode(&StoredChunk { at: now, entries }));
        self.log.load(first, count, now);
        self.trim_history(now, effects);
        first
    }

    fn trim_history(&mut self, now: i64, effects: &mut Effects) {
        while let Some((first, count, at)) = self.log.chunks.front().copied() {
            if self.log.kept - count < self.rules.history_max && self.history_end(at) > now {
                return;
            }
            self.log.chunks.pop_front();
            self.log.kept -= count;
            effects.batch.delete(HISTORY, key(self.no, first));
        }
    }

    /// The starts of the stored stretches that hold up to `limit` entries after `place`.
    pub(crate) fn history_after(&self, place: u64, limit: usize) -> Vec<u64> {
        self.log.chunks_after(place, limit)
    }

    /// Idempotency keys forgotten before their time.
    pub(crate) fn forgotten_early(&self) -> u64 {
        self.idempotencies.forgotten_early
    }
}

fn first_due(times: &std::collections::BTreeSet<(i64, u64)>, now: i64) -> Option<u64> {
    times.first().filter(|(at, _)| *at <= now).map(|(_, number)| *number)
}
