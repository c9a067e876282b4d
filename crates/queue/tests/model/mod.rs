//! The queue as somebody would write it who has all the time in the world: one `Vec`, looked through for everything.

pub mod pair;

use tidegate_queue::{Lease, State};

pub const LEASE: i64 = 10_000;

/// Bounds of a history.
#[derive(Clone, Debug)]
pub struct Limits {
    pub jobs: usize,
    pub finished: usize,
    pub per_key: usize,
    pub running: usize,
}

#[derive(Clone, Debug)]
pub struct ModelJob {
    pub id: String,
    pub priority: u8,
    pub key: Option<u8>,
    pub dedup: Option<(u8, i64)>,
    pub state: State,
    pub attempt: u16,
    pub max_attempts: u16,
    /// When due, available since, lease's end, or finished at, by state.
    pub at: i64,
    pub expires_at: i64,
    pub timeout: i64,
    pub deadline: i64,
    pub started_at: i64,
    pub retention: i64,
    pub lease: Option<Lease>,
    pub local: bool,
    pub cancelling: bool,
    /// Its last lease ran out since it was last claimed.
    pub rescued: bool,
    /// Its turn, or its lane's when it last stood in the line; 0 before.
    pub turn: u64,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub limits: Limits,
    pub jobs: Vec<ModelJob>,
    pub paused: bool,
    /// The turn of each key that has one.
    lanes: std::collections::BTreeMap<u8, u64>,
    counter: u64,
}

impl Model {
    pub fn new(limits: Limits) -> Self {
        Self { limits, jobs: Vec::new(), paused: false, lanes: Default::default(), counter: 0 }
    }

    pub fn live(&self) -> usize {
        self.jobs.iter().filter(|job| !job.state.is_finished()).count()
    }

    /// The live job that holds off another with this dedup key.
    pub fn duplicate(&self, now: i64, key: u8) -> Option<&ModelJob> {
        let holds =
            |job: &&ModelJob| !job.state.is_finished() && job.dedup.is_some_and(|(k, until)| k == key && now < until);
        self.jobs.iter().rev().find(holds)
    }

    fn tick(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub fn push(&mut self, now: i64, job: ModelJob) {
        let due = job.at > now;
        self.jobs.push(job);
        if !due {
            self.enter(self.jobs.len() - 1, now);
        }
    }

    fn enter(&mut self, index: usize, now: i64) {
        self.jobs[index].state = State::Available;
        self.jobs[index].at = now;
        let turn = self.jobs[index].turn;
        match self.jobs[index].key {
            None if turn == 0 => self.jobs[index].turn = self.tick(),
            None => {}
            Some(key) => {
                if turn != 0 && self.lanes.get(&key).is_none_or(|lane| turn < *lane) {
                    self.lanes.insert(key, turn);
                }
                self.settle(key);
            }
        }
    }

    fn of_key(&self, key: u8, state: State) -> impl Iterator<Item = usize> + '_ {
        (0..self.jobs.len()).filter(move |i| self.jobs[*i].key == Some(key) && self.jobs[*i].state == state)
    }

    /// The job of this key that is first among its own: the most urgent, then the one submitted first.
    fn first(&self, key: u8) -> Option<usize> {
        self.of_key(key, State::Available).min_by_key(|i| (self.jobs[*i].priority, number(&self.jobs[*i].id)))
    }

    /// The job of this key that may stand in the line.
    fn head(&self, key: u8) -> Option<usize> {
        let free = self.of_key(key, State::Running).count() < self.limits.per_key;
        self.first(key).filter(|_| free)
    }

    /// A key whose first job comes into the line gets a turn; one with nothing waiting gives its turn up.
    fn settle(&mut self, key: u8) {
        if self.first(key).is_none() {
            self.lanes.remove(&key);
        }
        if self.head(key).is_some() && !self.lanes.contains_key(&key) {
            let turn = self.tick();
            self.lanes.insert(key, turn);
        }
    }

    fn settle_of(&mut self, index: usize) {
        if let Some(key) = self.jobs[index].key {
            self.settle(key);
        }
    }

    fn turn(&self, index: usize) -> u64 {
        self.jobs[index].key.map_or(self.jobs[index].turn, |key| self.lanes.get(&key).copied().unwrap_or(0))
    }

    /// The indices of the jobs handed out, in order.
    pub fn claim(&mut self, now: i64, limit: usize, local: bool) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.len() < limit && !self.paused {
            if self.jobs.iter().filter(|job| job.state == State::Running).count() >= self.limits.running {
                break;
            }
            let in_line = |i: &usize| match self.jobs[*i].key {
                None => self.jobs[*i].state == State::Available,
                Some(key) => self.head(key) == Some(*i),
            };
            let next = (0..self.jobs.len()).filter(in_line).min_by_key(|i| (self.jobs[*i].priority, self.turn(*i)));
            let Some(index) = next else { break };
            let turn = self.turn(index);
            if let Some(key) = self.jobs[index].key {
                self.lanes.remove(&key);
            }
            let job = &mut self.jobs[index];
            job.turn = turn;
            job.state = State::Running;
            job.attempt += 1;
            job.started_at = now;
            job.at = now + LEASE;
            job.deadline = now + job.timeout;
            job.local = local;
            self.settle_of(index);
            taken.push(index);
        }
        taken
    }

    /// The job this lease is good for.
    pub fn holder(&self, now: i64, lease: Lease) -> Option<usize> {
        self.jobs.iter().position(|job| job.state == State::Running && job.lease == Some(lease) && now < job.at)
    }

    pub fn end(&mut self, now: i64, index: usize, state: State) {
        let job = &mut self.jobs[index];
        job.state = state;
        job.at = now;
        job.cancelling = false;
        self.settle_of(index);
        if self.jobs[index].retention == 0 {
            self.jobs.remove(index);
        }
        self.prune_excess();
    }

    fn prune_excess(&mut self) {
        while self.jobs.iter().filter(|job| job.state.is_finished()).count() > self.limits.finished {
            let rank = |i: &usize| {
                let job = &self.jobs[*i];
                (job.state == State::Discarded, job.at + job.retention, number(&job.id))
            };
            let Some(oldest) = (0..self.jobs.len()).filter(|i| self.jobs[*i].state.is_finished()).min_by_key(rank)
            else {
                return;
            };
            self.jobs.remove(oldest);
        }
    }

    /// `delay: None` never tries again.
    pub fn fail(&mut self, now: i64, index: usize, delay: Option<i64>) {
        let job = &mut self.jobs[index];
        if job.cancelling {
            return self.end(now, index, State::Cancelled);
        }
        match delay.filter(|_| job.attempt < job.max_attempts) {
            None => self.end(now, index, State::Discarded),
            Some(delay) => {
                job.state = State::Retryable;
                job.rescued = true;
                job.at = now + delay;
                job.turn = 0;
                self.settle_of(index);
            }
        }
    }

    pub fn release(&mut self, now: i64, index: usize) {
        if self.jobs[index].cancelling {
            return self.end(now, index, State::Cancelled);
        }
        self.jobs[index].attempt -= 1;
        self.jobs[index].rescued = true;
        // Its key has room for a moment before it stands there again itself.
        self.jobs[index].state = State::Retryable;
        self.settle_of(index);
        self.enter(index, now);
    }

    pub fn renew(&mut self, now: i64, index: usize) -> bool {
        let job = &mut self.jobs[index];
        job.at = (now + LEASE).min(job.deadline + LEASE).max(job.at);
        job.cancelling || job.deadline <= now
    }

    pub fn retry(&mut self, now: i64, index: usize) {
        let job = &mut self.jobs[index];
        job.attempt = 0;
        // That it had ended was durable, so its last lease is void whatever happens.
        job.rescued = false;
        job.expires_at = i64::MAX;
        job.turn = 0;
        self.enter(index, now);
    }

    /// Says how many went.
    pub fn purge(&mut self, state: State) -> u64 {
        let before = self.jobs.len();
        self.jobs.retain(|job| job.state != state);
        let keys: Vec<u8> = self.lanes.keys().copied().collect();
        for key in keys {
            self.settle(key);
        }
        (before - self.jobs.len()) as u64
    }

    /// What time does, in the documented order: rescue, promote, expire, prune.
    pub fn upkeep(&mut self, now: i64, jitter_free: bool) {
        assert!(jitter_free, "the model knows no jitter");
        while self.upkeep_one(now) {}
    }

    fn upkeep_one(&mut self, now: i64) -> bool {
        let due = |wanted: &[State]| {
            let matches = |i: &usize| wanted.contains(&self.jobs[*i].state) && self.jobs[*i].at <= now;
            (0..self.jobs.len()).filter(matches).min_by_key(|i| (self.jobs[*i].at, number(&self.jobs[*i].id)))
        };
        if let Some(index) = due(&[State::Running]) {
            self.rescue(now, index);
        } else if let Some(index) = due(&[State::Scheduled, State::Retryable]) {
            self.enter(index, now);
        } else if let Some(index) = self.first_expired(now) {
            self.end(now, index, State::Discarded);
        } else if let Some(index) =
            self.jobs.iter().position(|job| job.state.is_finished() && job.at + job.retention <= now)
        {
            self.jobs.remove(index);
        } else {
            return false;
        }
        true
    }

    fn first_expired(&self, now: i64) -> Option<usize> {
        let waits = |job: &ModelJob| !job.state.is_finished() && job.state != State::Running && job.attempt == 0;
        let expired = |i: &usize| waits(&self.jobs[*i]) && self.jobs[*i].expires_at <= now;
        (0..self.jobs.len()).filter(expired).min_by_key(|i| (self.jobs[*i].expires_at, number(&self.jobs[*i].id)))
    }

    fn rescue(&mut self, now: i64, index: usize) {
        self.jobs[index].rescued = true;
        let job = &self.jobs[index];
        if job.cancelling {
            self.end(now, index, State::Cancelled);
        } else if job.deadline <= now {
            self.fail(now, index, Some(0));
        } else if job.attempt >= job.max_attempts {
            self.fail(now, index, None);
        } else {
            self.jobs[index].state = State::Retryable;
            self.settle_of(index);
            self.enter(index, now);
        }
    }

    /// A start on what is stored: places in line by submission, fresh leases but for workers of the old process.
    pub fn reopen(&mut self, now: i64) {
        self.jobs.sort_by_key(|job| number(&job.id));
        self.counter = 0;
        self.lanes.clear();
        for job in &mut self.jobs {
            if !job.state.is_finished() {
                job.turn = 0;
                // What was read back is durable.
                job.rescued = false;
            }
            if job.state == State::Running {
                job.at = if job.local { now } else { now + LEASE };
            }
        }
        let waits = |job: &ModelJob| match job.state {
            State::Available => true,
            State::Scheduled | State::Retryable => job.at <= now,
            _ => false,
        };
        let waiting: Vec<usize> = (0..self.jobs.len()).filter(|i| waits(&self.jobs[*i])).collect();
        for index in waiting {
            let turn = self.tick();
            let job = &mut self.jobs[index];
            job.state = State::Available;
            job.turn = turn;
        }
        // A key stands where its first job does.
        for key in 0..=u8::MAX {
            if let Some(first) = self.first(key) {
                self.lanes.insert(key, self.jobs[first].turn);
            }
        }
    }
}

fn number(id: &str) -> u64 {
    id.rsplit_once('-').and_then(|(_, number)| u64::from_str_radix(number, 16).ok()).expect("an id")
}
