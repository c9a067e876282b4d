//! One queue on Redis: what its parts share, and the verbs that are one call each.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_redis_ops::{Redis, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Stopwatch;
use super::beat::BeatLine;
use super::call::{Reply, Slot};
use super::decode::{self, Seen};
use super::feed::Feed;
use super::keys::Keys;
use super::push::Pushes;
use super::record::{Record, number_in};
use super::scripts::SCRIPTS;
use super::step::Steps;
use super::watch::Watch;
use crate::alarm::Alarm;
use crate::meters::Meters;
use crate::totals::Totals;
use crate::{
    Beat, Config, Counts, Error, Job, JobFilter, JobId, JobPage, Lease, Outcome, Progress, QueueConfig, QueueName,
    QueueStats, Rejected, State, Transition, UnixMillis, Worker,
};

/// Items in one script at most: it holds up everybody else on this Redis for as long as it runs, and 1000 take 2 to 4 ms.
pub(super) const SCRIPT_MAX: usize = 1000;
/// Jobs deleted in one script.
const PURGE: usize = 250;
/// Jobs one page of a list looks at in one script.
const LOOKS: usize = 500;
/// Jobs one page looks at in all, however many a filter passes over.
const LOOK_MAX: usize = 10_000;

/// What the parts of a queue share.
pub(crate) struct Shared {
    pub(super) name: QueueName,
    /// What leases call this queue: a hash of its name.
    pub(super) no: u32,
    pub(super) redis: Redis,
    pub(super) keys: Keys,
    pub(super) config: Arc<Config>,
    pub(super) rules: QueueConfig,
    pub(super) meters: Meters,
    pub(super) watch: Watch,
    pub(super) feed: Feed,
    pub(super) alarm: Arc<Alarm>,
    pub(super) stopwatch: Stopwatch,
    /// Tasks that listen and give back; they end when the queues are closed.
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
    pub(super) beats: BeatLine,
    /// The name of this process: no other start has it.
    pub(super) process: Arc<str>,
    /// When upkeep is due, in milliseconds of the process's own clock; `i64::MAX` when nothing is.
    pub(super) due_at: AtomicI64,
    /// How far the clock of Redis is ahead of the process's own; `i64::MIN` before the first reply.
    clock_ahead: AtomicI64,
    pub(super) waiting: AtomicU64,
    /// Jobs nobody took go back one call at a time.
    pub(super) releases: tokio::sync::Mutex<Slot>,
    totals: Arc<Totals>,
    /// Live jobs and bytes as last heard; locked to replace two numbers.
    heard: Mutex<(u64, u64)>,
    chance: AtomicU64,
}

/// What a new queue is made of.
pub(super) struct Parts {
    pub(super) redis: Redis,
    pub(super) config: Arc<Config>,
    pub(super) meters: Meters,
    pub(super) alarm: Arc<Alarm>,
    pub(super) stopwatch: Stopwatch,
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
    pub(super) beats: BeatLine,
    pub(super) process: Arc<str>,
    pub(super) totals: Arc<Totals>,
    pub(super) seed: u64,
}

/// One queue.
pub(crate) struct RedisQueue {
    pub(super) shared: Arc<Shared>,
    pub(super) pushes: Pushes,
    pub(super) steps: Steps,
}

/// What a script said of one job.
struct Verdict {
    /// `o` when it did what was asked.
    came: Bytes,
    /// The job as it was.
    before: Job,
    /// What else it said.
    reply: Reply,
}

impl Shared {
    pub(super) fn new(name: QueueName, parts: Parts) -> Self {
        let keys = Keys::new(&parts.config.redis_prefix, &name);
        let no = xxhash_rust::xxh3::xxh3_64(name.as_str().as_bytes()) as u32;
        Self {
            no,
            releases: tokio::sync::Mutex::new(Slot::new(keys.operation(&parts.process, 'r'))),
            keys,
            rules: parts.config.queue(&name).clone(),
            redis: parts.redis,
            config: parts.config,
            meters: parts.meters,
            watch: Watch::default(),
            feed: Feed::default(),
            alarm: parts.alarm,
            stopwatch: parts.stopwatch,
            tasks: parts.tasks,
            closed: parts.closed,
            beats: parts.beats,
            process: parts.process,
            due_at: AtomicI64::new(i64::MAX),
            clock_ahead: AtomicI64::new(i64::MIN),
            waiting: AtomicU64::new(0),
            totals: parts.totals,
            heard: Mutex::default(),
            chance: AtomicU64::new(parts.seed ^ u64::from(no)),
            name,
        }
    }

    /// Runs a task that ends with the queues at the latest.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = task => {}
            }
        });
    }

    pub(super) fn id(&self, number: u64) -> JobId {
        JobId { queue: self.name.clone(), number }
    }

    /// A random number for the jitter of one call.
    pub(super) fn chance(&self) -> u32 {
        crate::random::mix(self.chance.fetch_add(crate::random::STEP, Ordering::Relaxed)) as u32
    }

    /// The clock of Redis as this process reckons it since the last reply.
    pub(super) fn redis_now(&self) -> UnixMillis {
        match &self.config.clock {
            crate::Clock::Manual(clock) => clock.now(),
            crate::Clock::System => match self.clock_ahead.load(Ordering::Relaxed) {
                i64::MIN => crate::Clock::System.now(),
                ahead => UnixMillis(self.stopwatch.now().saturating_add(ahead)),
            },
        }
    }

    /// Something is due at `next`, by the clock of Redis, which shows `now`.
    pub(super) fn due(&self, now: i64, next: i64) {
        if matches!(self.config.clock, crate::Clock::Manual(_)) {
            return;
        }
        self.clock_ahead.store(now.saturating_sub(self.stopwatch.now()), Ordering::Relaxed);
        let at = if next >= super::record::U48 as i64 {
            i64::MAX
        } else {
            // What is overdue stays as overdue as it is: looks that come all the time must not put its upkeep off.
            self.stopwatch.now().saturating_add(next.saturating_sub(now))
        };
        let known = self.due_at.load(Ordering::SeqCst);
        // A reply that was overtaken by a newer one must not hide what that one said; waking once in vain costs one call.
        if known >= at || known <= self.stopwatch.now() {
            self.due_at.store(at, Ordering::SeqCst);
            self.alarm.arm(at);
        }
    }

    /// How full the queue is, as a reply says.
    pub(super) fn filled(&self, jobs: u64, bytes: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *heard, (jobs, bytes));
        self.totals.change(before, (jobs, bytes));
    }

    /// Why no job fits into all queues together, if so.
    pub(super) fn full(&self) -> Option<Rejected> {
        self.totals.full(&self.config)
    }

    /// Counts what a script says has happened.
    pub(super) fn count(&self, tally: &[u8]) {
        for entry in tally.chunks_exact(5) {
            let many = u32::from_be_bytes([entry[1], entry[2], entry[3], entry[4]]);
            if let Some(change) = crate::record::change_of(entry[0]) {
                self.meters.count(&change, u64::from(many));
            }
        }
    }

    /// Does some of what is due; `true` when there is more.
    pub(super) async fn upkeep_once(&self) -> Result<bool, Error> {
        let mut reply = self.call(&SCRIPTS.upkeep, Vec::new()).await?;
        self.count(&reply.bytes()?);
        self.filled(reply.number()?, reply.number()?);
        Ok(reply.is_more_due)
    }

    /// Leases as scripts take them; those of other queues are no leases here and stay zero.
    pub(super) fn put_lease(&self, bytes: &mut BytesMut, lease: Lease) {
        if lease.queue == self.no && lease.number <= super::record::U48 {
            bytes.put_uint(lease.number, 6);
            bytes.put_u64(lease.grant);
        } else {
            bytes.put_bytes(0, 14);
        }
    }
}

impl RedisQueue {
    pub(super) fn new(name: QueueName, parts: Parts) -> Self {
        let shared = Arc::new(Shared::new(name, parts));
        Self { pushes: Pushes::new(&shared), steps: Steps::new(&shared), shared }
    }

    pub(crate) fn name(&self) -> &QueueName {
        &self.shared.name
    }

    pub(crate) async fn beat(&self, worker: &Worker, leases: &[Lease]) -> Result<Beat, Error> {
        crate::check::length("leases", leases.len())?;
        crate::check::worker(worker)?;
        let mut beat = Beat { lease: self.shared.config.lease, ..Beat::default() };
        // Even without leases the answer says whether the queue is paused.
        let none: [&[Lease]; 1] = [&[]];
        let chunks: Vec<&[Lease]> = if leases.is_empty() { none.to_vec() } else { leases.chunks(SCRIPT_MAX).collect() };
        for chunk in chunks {
            let mut bytes = BytesMut::with_capacity(chunk.len() * 14);
            chunk.iter().for_each(|lease| self.shared.put_lease(&mut bytes, *lease));
            let mut reply = self.shared.call_beat(vec![bytes.freeze()]).await?;
            self.shared.count(&reply.bytes()?);
            beat.paused = reply.number()? == 1;
            for (lease, answer) in chunk.iter().zip(reply.bytes()?) {
                match answer {
                    b'o' => {}
                    b'c' => beat.cancelled.push(*lease),
                    _ => beat.stale.push(*lease),
                }
            }
        }
        self.shared.meters.stale.add(beat.stale.len() as u64);
        Ok(beat)
    }

    pub(crate) async fn progress(&self, updates: Vec<Progress>) -> Result<Vec<Outcome>, Error> {
        crate::check::length("updates", updates.len())?;
        crate::check::notes(&updates)?;
        let mut outcomes = Vec::with_capacity(updates.len());
        for chunk in updates.chunks(SCRIPT_MAX) {
            let mut leases = BytesMut::with_capacity(chunk.len() * 14);
            chunk.iter().for_each(|update| self.shared.put_lease(&mut leases, update.lease));
            let mut args = vec![leases.freeze()];
            args.extend(chunk.iter().map(|update| decode::report(update.progress, update.note.as_deref())));
            let mut reply = self.shared.call(&SCRIPTS.progress, args).await?;
            outcomes.extend(reply.bytes()?.iter().map(|letter| outcome(*letter)));
        }
        self.count_stale(&outcomes);
        Ok(outcomes)
    }

    pub(super) fn count_stale(&self, outcomes: &[Outcome]) {
        let stale = outcomes.iter().filter(|outcome| **outcome == Outcome::Stale).count();
        self.shared.meters.stale.add(stale as u64);
    }

    async fn see(&self, id: &JobId) -> Result<Seen, Error> {
        let unknown = || Error::JobNotFound { id: id.clone() };
        let number = number(id).ok_or_else(unknown)?;
        let mut reply = self.shared.call(&SCRIPTS.look, vec![number]).await?;
        decode::seen(id, reply.next()?)?.ok_or_else(unknown)
    }

    pub(crate) async fn look(&self, id: &JobId) -> Result<Job, Error> {
        Ok(self.see(id).await?.job)
    }

    pub(crate) async fn job(&self, id: &JobId) -> Result<Job, Error> {
        let Seen { mut job, data_apart, result_apart } = self.see(id).await?;
        if data_apart {
            job.data = Some(self.large('d', id).await?);
        }
        if result_apart {
            job.result = Some(self.large('r', id).await?);
        }
        Ok(job)
    }

    /// A payload (`d`) or result (`r`) that is kept apart.
    pub(super) async fn large(&self, part: char, id: &JobId) -> Result<Bytes, Error> {
        let key = self.shared.keys.of("large");
        let mut field = BytesMut::with_capacity(7);
        field.put_u8(part as u8);
        field.put_uint(id.number, 6);
        let found = self.shared.redis.command("HGET", Some(key.clone()), vec![key, field.freeze()]).await?;
        let missing = || Error::Damaged { id: id.clone(), detail: "its payload is missing".into() };
        found.into_bytes_or_nil()?.ok_or_else(missing)
    }

    /// Runs a script that judges one job.
    async fn verdict(
        &self,
        id: &JobId,
        call: impl AsyncFnOnce(Vec<Bytes>) -> Result<Reply, Error>,
    ) -> Result<Verdict, Error> {
        let unknown = || Error::JobNotFound { id: id.clone() };
        let mut reply = call(vec![number(id).ok_or_else(unknown)?]).await?;
        self.shared.count(&reply.bytes()?);
        let came = reply.bytes()?;
        if &came[..] == b"n" {
            return Err(unknown());
        }
        let before = decode::seen(id, reply.next()?)?.ok_or_else(unknown)?.job;
        Ok(Verdict { came, before, reply })
    }

    pub(crate) async fn cancel(&self, id: &JobId) -> Result<Job, Error> {
        let Verdict { came, before, reply } =
            self.verdict(id, async |number| self.shared.call(&SCRIPTS.cancel, number).await).await?;
        if &came[..] == b"x" {
            return Err(Error::Conflict { id: id.clone(), state: before.state, verb: "cancel" });
        }
        match self.look(id).await {
            // With no retention it is gone by now; it was cancelled all the same.
            Err(Error::JobNotFound { .. }) => {
                Ok(Job { state: State::Cancelled, run_at: None, finished_at: Some(reply.now), ..before })
            }
            answer => answer,
        }
    }

    pub(crate) async fn retry(&self, id: &JobId) -> Result<Job, Error> {
        let Verdict { came, before, mut reply } =
            self.verdict(id, async |number| self.shared.call_once(&SCRIPTS.retry, number).await).await?;
        let conflict = |verb| Err(Error::Conflict { id: id.clone(), state: before.state, verb });
        match &came[..] {
            b"x" => return conflict("retry"),
            b"d" => return conflict("retry while another job with its dedup key is live"),
            b"o" => {}
            full => {
                let (depth, bytes) = (reply.number()?, reply.number()?);
                return Err(Error::Rejected(self.refusal(full == b"F", depth, bytes, Duration::from_secs(1))));
            }
        }
        self.shared.filled(reply.number()?, reply.number()?);
        self.shared.watch.ring();
        self.look(id).await
    }

    pub(super) fn refusal(&self, by_jobs: bool, depth: u64, bytes: u64, retry_after: Duration) -> Rejected {
        let rules = &self.shared.rules;
        if by_jobs {
            Rejected::Full { depth, capacity: rules.jobs_max, retry_after }
        } else {
            Rejected::FullBytes { bytes, capacity: rules.bytes_max, retry_after }
        }
    }

    pub(crate) async fn jobs(&self, filter: JobFilter) -> Result<JobPage, Error> {
        crate::check::page(&filter)?;
        let mut page = JobPage::default();
        let mut from = filter.after.map_or(0, |after| after.saturating_add(1));
        let mut looks = LOOK_MAX;
        loop {
            let state = filter.state.map_or(255, |state| state as u8);
            let text = |text: &Option<Arc<str>>| Bytes::copy_from_slice(text.as_deref().unwrap_or_default().as_bytes());
            let wanted = filter.limit - page.jobs.len();
            let args = vec![
                six(from),
                state.to_string().into(),
                text(&filter.kind),
                text(&filter.key),
                wanted.to_string().into(),
                LOOKS.min(looks).to_string().into(),
            ];
            let mut reply = self.shared.call(&SCRIPTS.list, args).await?;
            let next = reply.bytes()?;
            for (id, view) in reply.pairs()? {
                let id = self.shared.id(number_in(&id));
                if let Some(seen) = decode::seen(&id, view)? {
                    page.jobs.push(seen.job);
                }
            }
            if next.is_empty() {
                return Ok(page);
            }
            from = number_in(&next);
            looks = looks.saturating_sub(LOOKS);
            if page.jobs.len() >= filter.limit || looks == 0 {
                page.next = Some(from.saturating_sub(1));
                return Ok(page);
            }
        }
    }

    pub(crate) async fn purge(&self, state: State) -> Result<u64, Error> {
        crate::check::purge(state)?;
        let (mut total, mut pass_over) = (0, 0u64);
        loop {
            let args = vec![(state as u8).to_string().into(), PURGE.to_string().into(), pass_over.to_string().into()];
            let mut reply = self.shared.call(&SCRIPTS.purge, args).await?;
            self.shared.count(&reply.bytes()?);
            total += reply.number()?;
            pass_over = reply.number()?;
            if reply.number()? == 0 {
                return Ok(total);
            }
        }
    }

    pub(crate) async fn set_paused(&self, paused: bool) -> Result<(), Error> {
        let flag = if paused { "1" } else { "0" };
        self.shared.call(&SCRIPTS.pause, vec![flag.into()]).await?;
        self.shared.watch.ring();
        Ok(())
    }

    pub(crate) async fn stats(&self) -> Result<QueueStats, Error> {
        let mut reply = self.shared.call(&SCRIPTS.stats, Vec::new()).await?;
        let mut counts = Counts::default();
        for state in State::ALL {
            counts.set(state, reply.number()?);
        }
        let bytes = reply.number()?;
        self.shared.filled(counts.live(), bytes);
        let paused = reply.number()? == 1;
        self.shared.meters.idempotency_forgotten.set(reply.number()? as f64);
        let (enqueued, finished) = (reply.number()?, reply.number()?);
        let now = reply.now;
        let rules = &self.shared.rules;
        let stats = QueueStats {
            name: self.shared.name.clone(),
            counts,
            paused,
            oldest_wait: oldest(reply)?.map(|since| now.since(since)),
            bytes,
            jobs_max: rules.jobs_max,
            bytes_max: rules.bytes_max,
            key_limit: rules.key_limit,
            running_limit: rules.running_limit,
            enqueued_per_second: enqueued as f64 / 60.0,
            finished_per_second: finished as f64 / 60.0,
            waiting_claims: self.shared.waiting.load(Ordering::Relaxed),
        };
        self.shared.meters.show(&stats);
        Ok(stats)
    }

    pub(crate) async fn history(&self, place: u64, limit: usize) -> Result<Vec<Transition>, Error> {
        crate::check::history(limit)?;
        let shared = &self.shared;
        let key = shared.keys.of("log");
        let command = async |name, args: Vec<Bytes>| {
            let mut all = vec![key.clone()];
            all.extend(args);
            shared.redis.command(name, Some(key.clone()), all).await?.into_array()
        };
        // What is kept is cut in whole nodes of the stream; what is too much or too old is left out here.
        let newest = command("XREVRANGE", vec!["+".into(), "-".into(), "COUNT".into(), "1".into()]).await?;
        let Some(last) = entries(&shared.name, newest)?.pop() else { return Ok(Vec::new()) };
        let place = place.max(last.place.saturating_sub(shared.config.history_max));
        let oldest =
            UnixMillis(shared.config.clock.now().0.saturating_sub(crate::core::millis(shared.config.history_age)));
        let holder =
            command("XREVRANGE", vec![(place + 1).to_string().into(), "-".into(), "COUNT".into(), "1".into()]).await?;
        let from = first_id(&holder).unwrap_or_else(|| "-".into());
        let mut all = Vec::new();
        let mut start = from;
        while all.len() < limit {
            let page = command("XRANGE", vec![start.clone(), "+".into(), "COUNT".into(), "100".into()]).await?;
            let (is_last, last_id) = (page.len() < 100, last_id(&page));
            all.extend(entries(&shared.name, page)?.into_iter().filter(|t| t.place > place && t.at > oldest));
            match last_id.filter(|_| !is_last) {
                Some(id) => start = [b"(", &id[..]].concat().into(),
                None => break,
            }
        }
        all.truncate(limit);
        Ok(all)
    }

    pub(crate) async fn subscribe(&self) -> Result<broadcast::Receiver<Transition>, Error> {
        self.shared.subscribe().await
    }

    pub(crate) async fn follow(&self, id: &JobId) -> Result<broadcast::Receiver<Transition>, Error> {
        self.shared.follow(id.number).await
    }

    pub(crate) fn cancels(&self) -> broadcast::Receiver<JobId> {
        let cancels = self.shared.watch.cancels();
        self.shared.listen();
        cancels
    }

    pub(crate) async fn upkeep(&self) -> Result<(), Error> {
        while self.shared.upkeep_once().await? {}
        Ok(())
    }
}

/// A job's number as Redis has it; none for one that no queue on Redis ever gave.
fn number(id: &JobId) -> Option<Bytes> {
    (id.number <= super::record::U48).then(|| six(id.number))
}

/// Six bytes, big-endian.
fn six(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.min(super::record::U48).to_be_bytes()[2..])
}

pub(super) fn outcome(letter: u8) -> Outcome {
    if letter == b'o' { Outcome::Ok } else { Outcome::Stale }
}

/// Since when the job that waits longest of the heads is available.
fn oldest(reply: Reply) -> Result<Option<UnixMillis>, Error> {
    let mut oldest = None;
    for (record, tried) in reply.pairs()? {
        let since = match tried {
            Value::Bytes(tried) if !tried.is_empty() => decode::waits_since(tried),
            // A head that cannot be read is told by whoever claims it.
            _ => Record::read(record).map_or(UnixMillis::NEVER, |record| record.available_at()),
        };
        oldest = Some(oldest.map_or(since, |first: UnixMillis| first.min(since)));
    }
    Ok(oldest)
}

fn first_id(page: &[Value]) -> Option<Bytes> {
    id_of(page.first()?)
}

fn last_id(page: &[Value]) -> Option<Bytes> {
    id_of(page.last()?)
}

fn id_of(entry: &Value) -> Option<Bytes> {
    match entry {
        Value::Array(parts) => match parts.first() {
            Some(Value::Bytes(id)) => Some(id.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The transitions of a page of the log: entries `[id, [c, chunk]]`, where the id begins with the place of the first.
fn entries(name: &QueueName, page: Vec<Value>) -> Result<Vec<Transition>, Error> {
    let mut all = Vec::new();
    for entry in page {
        let mut parts = entry.into_array()?.into_iter();
        let id = parts.next().unwrap_or(Value::Nil).into_bytes()?;
        let chunk = parts.next().unwrap_or(Value::Nil).into_array()?.pop().unwrap_or(Value::Nil).into_bytes()?;
        let first = std::str::from_utf8(&id).ok().and_then(|id| id.split('-').next()).and_then(|ms| ms.parse().ok());
        let damaged =
            |detail: String| Error::Damaged { id: JobId { queue: name.clone(), number: first.unwrap_or(0) }, detail };
        let first_place = first.ok_or_else(|| damaged("a log entry without a place".into()))?;
        all.extend(decode::transitions(name, first_place, chunk).map_err(damaged)?);
    }
    Ok(all)
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
