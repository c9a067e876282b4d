//! Who is next: one line for all, and a lane per fairness key that sends its first job to stand in it.
//!
//! The line is ordered by priority, then by turn. A job without a key stands in it from the moment it is available. Of
//! the jobs of one key only the first (the most urgent, then the one submitted first) stands in the line, and only while
//! the key is under its limit. The turn is the lane's: whichever job is first stands there. When it is claimed the lane
//! goes to the *end* of the line. That makes the line a round robin between keys
//! (deficit round robin with one job as the quantum: Shreedhar and Varghese, SIGCOMM 1995) in which a job without a key
//! counts as a key of its own: a hot key with a million jobs never has more than one of them ahead of anybody, and a
//! key at its limit is not looked at. Every step is O(log n).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use foldhash::HashMap;

use super::entry::Slab;
use super::{Core, State};

/// The line: priority, turn, index.
#[derive(Debug, Default)]
pub(crate) struct Line(BTreeSet<(u8, i64, u32)>);

impl Line {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn join(&mut self, slab: &Slab, index: u32) {
        let entry = &slab[index];
        self.0.insert((entry.spec.priority, entry.turn, index));
    }

    fn leave(&mut self, slab: &Slab, index: u32) {
        let entry = &slab[index];
        self.0.remove(&(entry.spec.priority, entry.turn, index));
    }

    pub(crate) fn first(&self) -> Option<u32> {
        self.0.first().map(|(_, _, index)| *index)
    }

    /// The job at the end of the least urgent priority.
    pub(crate) fn last(&self) -> Option<u32> {
        self.0.last().map(|(_, _, index)| *index)
    }

    /// The job at the head of the least urgent priority.
    pub(crate) fn first_of_last(&self) -> Option<u32> {
        let (priority, ..) = *self.0.last()?;
        self.0.range((priority, i64::MIN, 0)..).next().map(|(_, _, index)| *index)
    }

    /// The head of each priority.
    pub(crate) fn heads(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = Bound::Unbounded;
        std::iter::from_fn(move || {
            let (priority, _, index) = *self.0.range((from, Bound::Unbounded)).next()?;
            from = Bound::Excluded((priority, i64::MAX, u32::MAX));
            Some(index)
        })
    }
}

/// The jobs of one key that are available, and how many run.
#[derive(Debug)]
struct Lane {
    key: Arc<str>,
    /// Priority, number, index; the one in the line included.
    waiting: BTreeSet<(u8, u64, u32)>,
    in_line: Option<u32>,
    /// Where its first job stands in the line; 0 when it has no place yet.
    turn: i64,
    running: u32,
}

/// All lanes in use.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: Vec<Option<Lane>>,
    free: Vec<u32>,
    by_key: HashMap<Arc<str>, u32>,
}

impl Lanes {
    fn of(&mut self, key: &Arc<str>) -> u32 {
        if let Some(lane) = self.by_key.get(key) {
            return *lane;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            u32::try_from(self.lanes.len() - 1).unwrap_or(u32::MAX)
        });
        let lane = Lane { key: Arc::clone(key), waiting: BTreeSet::new(), in_line: None, turn: 0, running: 0 };
        self.lanes[index as usize] = Some(lane);
        self.by_key.insert(Arc::clone(key), index);
        index
    }

    fn get(&mut self, index: u32) -> &mut Lane {
        self.lanes[index as usize].as_mut().expect("a lane lives while a job of its key waits or runs")
    }

    fn drop_if_empty(&mut self, index: u32) {
        let lane = self.get(index);
        if lane.waiting.is_empty() && lane.running == 0 {
            let key = Arc::clone(&lane.key);
            self.by_key.remove(&key);
            self.lanes[index as usize] = None;
            self.free.push(index);
        }
    }
}

impl Core {
    /// Makes a job available since `now`. One that was in the line before gets its old turn back.
    pub(super) fn enter(&mut self, index: u32, now: i64) {
        self.set_state(index, State::Available);
        let entry = &mut self.slab[index];
        entry.at = now;
        let (number, priority, turn) = (entry.number, entry.spec.priority, entry.turn);
        let Some(key) = entry.spec.key.clone() else {
            if turn == 0 {
                self.slab[index].turn = self.next_turn();
            }
            self.line.join(&self.slab, index);
            return;
        };
        let lane_index = self.lanes.of(&key);
        self.slab[index].lane = Some(lane_index);
        let lane = self.lanes.get(lane_index);
        lane.waiting.insert((priority, number, index));
        if turn != 0 && (lane.turn == 0 || turn < lane.turn) {
            // The lane moves forward, whoever stands for it.
            lane.turn = turn;
            if let Some(before) = lane.in_line.take() {
                self.line.leave(&self.slab, before);
            }
        }
        self.reconcile(lane_index);
    }

    /// Takes an available job out of the line and its lane.
    pub(super) fn leave_line(&mut self, index: u32) {
        let Some(lane_index) = self.slab[index].lane.take() else {
            self.line.leave(&self.slab, index);
            return;
        };
        self.withdraw(lane_index, index);
        self.reconcile(lane_index);
        self.lanes.drop_if_empty(lane_index);
    }

    /// Takes the job at the head of the line out of it, as running.
    pub(super) fn start(&mut self, index: u32) {
        match self.slab[index].lane {
            None => self.line.leave(&self.slab, index),
            Some(lane_index) => {
                self.withdraw(lane_index, index);
                let lane = self.lanes.get(lane_index);
                lane.running += 1;
                lane.turn = 0;
                self.reconcile(lane_index);
            }
        }
        self.set_state(index, State::Running);
    }

    /// A job stops running: its key has room for one more.
    pub(super) fn stop(&mut self, index: u32) {
        if let Some(lane_index) = self.slab[index].lane.take() {
            self.lanes.get(lane_index).running -= 1;
            self.reconcile(lane_index);
            self.lanes.drop_if_empty(lane_index);
        }
    }

    /// Counts a job that runs already, when the index is built from the records.
    pub(super) fn start_loaded(&mut self, index: u32) {
        self.set_state(index, State::Running);
        if let Some(key) = self.slab[index].spec.key.clone() {
            let lane = self.lanes.of(&key);
            self.slab[index].lane = Some(lane);
            self.lanes.get(lane).running += 1;
        }
    }

    /// Puts all that are available into the line at once, when the index is built from the records, in the order of
    /// their submission; a lane stands where its first job does.
    pub(super) fn list_available(&mut self, available: &[(u64, u32)]) {
        self.by_state[State::Available as usize].extend(available.iter().map(|(number, _)| *number));
        let mut line = Vec::with_capacity(available.len());
        let mut lanes = Vec::new();
        for (number, index) in available {
            let turn = self.next_turn();
            let entry = &mut self.slab[*index];
            entry.turn = turn;
            let Some(key) = entry.spec.key.clone() else {
                line.push((entry.spec.priority, turn, *index));
                continue;
            };
            let place = (entry.spec.priority, *number, *index);
            let lane = self.lanes.of(&key);
            self.slab[*index].lane = Some(lane);
            self.lanes.get(lane).waiting.insert(place);
            lanes.push(lane);
        }
        self.line.0 = line.into_iter().collect();
        for lane_index in lanes {
            let lane = self.lanes.get(lane_index);
            if lane.turn == 0
                && let Some((_, _, first)) = lane.waiting.first()
            {
                lane.turn = self.slab[*first].turn;
                self.reconcile(lane_index);
            }
        }
    }

    fn withdraw(&mut self, lane_index: u32, index: u32) {
        let entry = &self.slab[index];
        let lane = self.lanes.get(lane_index);
        lane.waiting.remove(&(entry.spec.priority, entry.number, index));
        if lane.in_line == Some(index) {
            lane.in_line = None;
            self.line.leave(&self.slab, index);
        }
    }

    /// Brings the line in agreement with a lane: its first job stands in it, if the key is under its limit.
    fn reconcile(&mut self, lane_index: u32) {
        let limit = self.rules.limits.key_limit.unwrap_or(u32::MAX);
        let lane = self.lanes.get(lane_index);
        if lane.waiting.is_empty() {
            lane.turn = 0;
        }
        let first = lane.waiting.first().map(|(_, _, index)| *index).filter(|_| lane.running < limit);
        if lane.in_line == first {
            return;
        }
        let (before, mut turn) = (std::mem::replace(&mut lane.in_line, first), lane.turn);
        if let Some(before) = before {
            self.line.leave(&self.slab, before);
        }
        if let Some(index) = first {
            if turn == 0 {
                turn = self.next_turn();
                self.lanes.get(lane_index).turn = turn;
            }
            self.slab[index].turn = turn;
            self.line.join(&self.slab, index);
        }
    }
}
