//! Schedules: jobs pushed by the clock, once per instant however many processes have the same schedule.
//!
//! **No leader.** Every process pushes every fire with the name (schedule, instant) as idempotency key; the queue
//! answers all but the first with the first's job, also when that job is long finished. A dedup key would not do: it
//! holds off others only while its job lives, and clocks differ by more than a short job takes.
//!
//! **Missed fires.** Nothing stores when a schedule last fired; what fires next follows from the expression and the
//! time. A process that was stopped or held up fires once for what came due meanwhile. After downtime a schedule may
//! catch up with its latest instant ([`Missed::FireOnce`]): the idempotency key makes that safe, because an instant
//! that did fire is not fired again.
//!
//! One timer waits for the earliest fire; none runs without schedules. It wakes at half the remaining time, so that a
//! wall clock that was stepped, or stood still in a suspended machine, is noticed well before a far fire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_metrics::{Counter, Registry};
use tidegate_queue::{Clock, Idempotency, NewJob, Queue, QueueName, UnixMillis};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::schedule::Schedule;

/// A fire whose push failed is tried again after this long, until the next instant replaces it.
const AGAIN: Duration = Duration::from_secs(5);
/// Waits up to this long are slept in one piece.
const NEAR: Duration = Duration::from_secs(60);
/// Catching up looks back this far at most: an hour less than the queue remembers idempotency keys by default.
const BACK: Duration = Duration::from_secs(23 * 3600);

/// What to do at the start with an instant that passed while no process was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// Wait for the next one: a schedule that is new does not fire for yesterday.
    #[default]
    Skip,
    /// Fire for the latest one that passed within this long (23 h at most), unless it did fire.
    FireOnce(Duration),
}

/// A schedule to be taken up with [`Scheduler::cron`](crate::Scheduler::cron).
#[derive(Clone, Debug)]
pub struct Cron {
    pub(crate) name: Arc<str>,
    pub(crate) expression: String,
    pub(crate) timezone: String,
    pub(crate) queue: QueueName,
    pub(crate) job: NewJob,
    pub(crate) missed: Missed,
}

impl Cron {
    /// Pushes a job like `job` to `queue` whenever `expression` says, in UTC.
    ///
    /// The expression has five fields (minute, hour, day, month, weekday), six with seconds in front, or is a nickname
    /// like `@hourly`. Every process that knows the schedule should use the same name, 1 to 150 bytes. A `dedup_key`
    /// in `job` is kept: with a fixed one, a fire is passed over while the job of an earlier one is still live.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, expression: impl Into<String>, queue: QueueName, job: NewJob) -> Self {
        let (name, expression) = (name.into(), expression.into());
        Self { name, expression, timezone: "UTC".into(), queue, job, missed: Missed::Skip }
    }

    /// Reads the expression in this time zone of the IANA database, for example `Europe/Berlin`.
    #[must_use]
    pub fn timezone(mut self, name: impl Into<String>) -> Self {
        self.timezone = name.into();
        self
    }

    /// Sets what happens with an instant that passed while no process was there.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }
}

/// A schedule as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleStats {
    /// Its name.
    pub name: Arc<str>,
    /// Its expression.
    pub expression: String,
    /// Its time zone.
    pub timezone: String,
    /// Where it pushes.
    pub queue: QueueName,
    /// When it fires next.
    pub next: Option<UnixMillis>,
    /// Fires this process pushed, those another process had pushed before included.
    pub fired: u64,
    /// Instants passed over because their push failed until the next came, or the process was held up.
    pub missed: u64,
}

/// All schedules of a scheduler.
pub(crate) struct Crons {
    /// Locked to change, to list, and to see what is due.
    table: Mutex<BTreeMap<Arc<str>, Entry>>,
    changed: Notify,
    registry: Registry,
    clock: Clock,
    capacity: usize,
}

struct Entry {
    cron: Cron,
    schedule: Schedule,
    queue: Queue,
    next: Option<UnixMillis>,
    /// Due, and not to be pushed before this.
    unsent: Option<(UnixMillis, UnixMillis)>,
    fired: Counter,
    missed: Counter,
}

/// One fire to be pushed.
struct Fire {
    name: Arc<str>,
    at: UnixMillis,
    queue: Queue,
    job: NewJob,
}

impl Crons {
    pub(crate) fn new(registry: Registry, clock: Clock, capacity: usize) -> Self {
        Self { table: Mutex::default(), changed: Notify::new(), registry, clock, capacity }
    }

    /// Takes up a schedule; one of the same name is replaced.
    pub(crate) fn add(&self, cron: Cron, queue: Queue) -> Result<(), Error> {
        if cron.name.is_empty() || cron.name.len() > 150 {
            return Err(Error::Invalid { field: "name", reason: "1 to 150 bytes" });
        }
        let now = self.clock.now();
        let schedule = Schedule::new(&cron.expression, &cron.timezone, now)?;
        let labels = [("schedule", &*cron.name)];
        let counter = |name, help| self.registry.counter_with(name, help, &labels);
        let fired = counter("tidegate_scheduler_cron_fires_total", "Fires pushed by this process.");
        let missed = counter("tidegate_scheduler_cron_missed_total", "Instants of a schedule passed over.");
        let unsent = match cron.missed {
            Missed::Skip => None,
            Missed::FireOnce(within) => schedule.latest_until(now).filter(|at| now.since(*at) <= within.min(BACK)),
        };
        let (next, unsent) = (schedule.next_after(now), unsent.map(|at| (at, now)));
        let mut table = self.table();
        if table.len() >= self.capacity && !table.contains_key(&cron.name) {
            return Err(Error::TooManySchedules { capacity: self.capacity });
        }
        table.insert(Arc::clone(&cron.name), Entry { cron, schedule, queue, next, unsent, fired, missed });
        drop(table);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn remove(&self, name: &str) -> bool {
        let removed = self.table().remove(name).is_some();
        if removed {
            self.registry.retire_label("schedule", name);
            self.changed.notify_one();
        }
        removed
    }

    pub(crate) fn stats(&self) -> Vec<ScheduleStats> {
        self.table().values().map(Entry::stats).collect()
    }

    /// Pushes what is due, when it is due, until told to stop.
    pub(crate) async fn run(self: Arc<Self>, quit: CancellationToken) {
        loop {
            for fire in self.due(self.clock.now()) {
                self.push(fire).await;
            }
            let wait = self.wait(self.clock.now());
            let sleep = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = quit.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Takes what is due. Of several instants that passed, the first is fired and the others are counted as missed.
    fn due(&self, now: UnixMillis) -> Vec<Fire> {
        self.table().values_mut().filter_map(|entry| entry.due(now)).collect()
    }

    async fn push(&self, fire: Fire) {
        let key: Arc<str> = format!("cron:{}:{}", fire.name, fire.at.0).into();
        let mut job = fire.job;
        if job.dedup_key.is_none() {
            job.dedup_key = Some(Arc::clone(&key));
        }
        // The fingerprint says nothing about the job: processes of two versions fire an instant once, too.
        let once = Idempotency { key, fingerprint: 0 };
        let pushed = match fire.queue.push_many(vec![job], Some(once)).await {
            Ok(answers) => answers.into_iter().next().transpose().map(|_| ()).map_err(|rejected| rejected.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let mut table = self.table();
        let Some(entry) = table.get_mut(&fire.name) else { return };
        match pushed {
            Ok(()) => entry.fired.inc(),
            Err(error) => {
                tracing::warn!(schedule = %fire.name, error, "fire not pushed, trying again");
                entry.unsent = Some((fire.at, self.clock.now().after(AGAIN)));
            }
        }
    }

    fn wait(&self, now: UnixMillis) -> Option<Duration> {
        let table = self.table();
        let next =
            table.values().flat_map(|entry| entry.next.into_iter().chain(entry.unsent.map(|(_, at)| at))).min()?;
        let wait = next.since(now);
        Some(if wait > NEAR { (wait / 2).max(NEAR) } else { wait })
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn due(&mut self, now: UnixMillis) -> Option<Fire> {
        if let Some(next) = self.next.filter(|next| *next <= now) {
            if self.unsent.replace((next, now)).is_some() {
                self.missed.inc();
            }
            let passed = self.schedule.next_after(next).is_some_and(|following| following <= now);
            self.missed.add(u64::from(passed));
            self.next = self.schedule.next_after(now);
        }
        let (at, _) = self.unsent.take_if(|(_, not_before)| *not_before <= now)?;
        Some(Fire { name: Arc::clone(&self.cron.name), at, queue: self.queue.clone(), job: self.cron.job.clone() })
    }

    fn stats(&self) -> ScheduleStats {
        ScheduleStats {
            name: Arc::clone(&self.cron.name),
            expression: self.cron.expression.clone(),
            timezone: self.cron.timezone.clone(),
            queue: self.cron.queue.clone(),
            next: self.next,
            fired: self.fired.get(),
            missed: self.missed.get(),
        }
    }
}
