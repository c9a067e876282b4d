//! Tier 2: values on Redis, shared by all processes, and what keeps tier 1 true.
//!
//! One tracked link per node carries questions, answers, and what Redis tells of others' changes, in Redis's own order.
//! What changed widely (everything, a prefix, a tag) is not looked for but *known*: every value on Redis says under which
//! generation, sequence and tags it was begun, and whoever reads it compares.

mod docs;
mod hear;
mod hold;
mod keys;
mod record;
mod scripts;
mod session;
mod sweep;
mod token;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_redis_ops::{BreakerConfig, Coalescer, Redis, Tracking, Value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::millis;
use crate::compress::Packed;
use crate::config::Config;
use crate::error::Error;
use crate::key::KeyRef;
use crate::stats::Metrics;
use crate::tier1::{Ending, One, Tag, Tier1};
use hear::{Ear, Rings};
use keys::Keys;
use record::{Header, Payload, Record};
use session::{Session, Sessions};
use sweep::Sweeps;
use token::Token;

pub use docs::redis_reference;
pub(crate) use hear::Changes;

/// How long a lease holds after its holder was last heard of: as long as others wait for a process that died.
const LEASE: Duration = Duration::from_secs(3);
/// Values written at the same time.
const BATCH: usize = 1000;
/// What the values of one round trip may take at most.
const TRIP_BYTES_MAX: usize = 128 << 20;

/// What Redis has of a key.
#[derive(Debug)]
pub(crate) enum Found {
    /// A value, past its TTL perhaps, that nothing has invalidated.
    Alive(Alive),
    /// Something that nobody may be given, and the id it was written under.
    Dead(Vec<u8>),
    Absent,
}

/// A value of Redis. Instants are those of this process's clock.
#[derive(Debug)]
pub(crate) struct Alive {
    pub(crate) id: Vec<u8>,
    pub(crate) payload: Option<Packed>,
    pub(crate) fresh_until: u64,
    pub(crate) stale_for: u64,
    pub(crate) tags: Tag,
    now: u64,
}

impl Alive {
    /// How long it has been past its TTL; zero: it is fresh.
    pub(crate) fn past(&self) -> u64 {
        self.now.saturating_sub(self.fresh_until)
    }
}

/// What a value depends on, as it was before the value was made.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    generation: u64,
    sequence: u64,
    tags: Vec<(Box<str>, u64)>,
}

/// A value to be kept.
pub(crate) struct Write {
    pub(crate) key: Box<str>,
    pub(crate) payload: Option<Packed>,
    pub(crate) fresh: u64,
    pub(crate) stale: u64,
    pub(crate) opening: Opening,
    /// Memory's part.
    pub(crate) ending: Box<dyn Ending>,
}

/// The right to load a value.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) token: Bytes,
    /// The id of what lay there when it was granted.
    pub(crate) seen: Bytes,
    pub(crate) opening: Opening,
}

/// Whether it is our turn to load.
#[derive(Debug)]
pub(crate) enum Lease {
    Granted(Bytes),
    /// Somebody else loads, and has so long left before others may.
    Busy(Duration),
    /// Redis has another value than the one that was seen.
    Changed,
}

/// A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Tier2(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redis: Redis,
    keys: Arc<Keys>,
    sessions: Arc<Sessions>,
    rings: Arc<Rings>,
    local: Arc<dyn Local>,
    reads: Coalescer<Bytes, Result<Option<Bytes>, tidegate_redis_ops::Error>>,
    metrics: Arc<Metrics>,
    timeout: Duration,
    tag_life: u64,
    prefixes_max: usize,
    is_cluster: bool,
    /// Keys asked for in one round trip.
    trip: usize,
    sweeps: Arc<Sweeps>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Tier 1, as Redis sees it.
pub(crate) trait Local: Send + Sync + std::fmt::Debug + 'static {
    fn forget(&self, key: &str);
    fn forget_tag(&self, tag: &str);
    fn forget_prefix(&self, prefix: &str);
    fn flush(&self);
    fn hold(&self, tags: &[(Box<str>, u64)]) -> Tag;
    fn stamp(&self) -> u64;
    fn floor(&self) -> u64;
    fn now(&self) -> u64;
}

impl<V: Clone + Send + Sync + 'static> Local for Tier1<V> {
    fn forget(&self, key: &str) {
        self.forget(self.key(key));
    }

    fn forget_tag(&self, tag: &str) {
        self.forget_tag(tag);
    }

    fn forget_prefix(&self, prefix: &str) {
        self.forget_prefix(prefix);
    }

    fn flush(&self) {
        self.flush();
    }

    fn hold(&self, tags: &[(Box<str>, u64)]) -> Tag {
        self.tags.hold(tags.iter().map(|(tag, _)| &**tag))
    }

    fn stamp(&self) -> u64 {
        self.stamp()
    }

    fn floor(&self) -> u64 {
        self.floor()
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }
}

/// A number in 0..=1, soon had: a step of SplitMix64 (Steele, Lea and Flood 2014) per thread.
pub(crate) fn chance() -> f64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(random());
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}

/// A number nobody else has.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        use std::hash::BuildHasher;
        std::hash::RandomState::new().hash_one(std::time::SystemTime::now())
    })
}

/// One that is never zero, which means: not known.
fn fresh_generation() -> u64 {
    random().max(1)
}

fn decimal(number: u64) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())
}

fn number(value: &Value) -> Result<u64, Error> {
    let text = value.as_str();
    match text.map(str::parse::<u64>) {
        Ok(Ok(number)) => Ok(number),
        _ => Ok(u64::try_from(value.as_int()?).unwrap_or(0)),
    }
}

impl Tier2 {
    pub(crate) async fn connect(
        redis: &Redis,
        config: &Config,
        local: Arc<dyn Local>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let keys = Arc::new(Keys::new(config));
        let sessions = Arc::new(Sessions::new(config));
        let rings = Arc::new(Rings::default());
        let ear = Ear::new(&keys, &sessions, &rings, &local, &metrics, config.planted);
        let tracking = Tracking {
            command_timeout: config.redis_timeout,
            breaker: BreakerConfig { consecutive: 5, open_max: Duration::from_millis(500), ..BreakerConfig::default() },
            ..Tracking::new(keys.tracked())
        };
        let redis = redis.track(tracking, Arc::new(ear)).await?;
        let is_cluster = redis.health().topology == "cluster";
        let trip = (TRIP_BYTES_MAX / config.value_bytes_max).clamp(16, 1000);
        let asked = redis.clone();
        let reads = Coalescer::new(
            BATCH,
            |_: &Bytes| 1,
            move |keys: Vec<Bytes>| {
                let redis = asked.clone();
                async move {
                    match redis.get_many(&keys).await {
                        Ok(values) => values.into_iter().map(Ok).collect(),
                        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
                    }
                }
            },
        );
        let tier2 = Self(Arc::new(Inner {
            redis,
            keys,
            sessions,
            rings,
            local,
            reads,
            metrics,
            timeout: config.redis_timeout,
            tag_life: millis(config.ttl).saturating_mul(2),
            prefixes_max: config.prefixes_max,
            is_cluster,
            trip,
            sweeps: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        tier2.0.tasks.spawn(session::keep_verified(Arc::downgrade(&tier2.0), tier2.0.stop.clone()));
        tier2.0.tasks.spawn(sweep::keep_swept(Arc::downgrade(&tier2.0), tier2.0.stop.clone()));
        // Known before anybody asks, if Redis is there.
        if let Err(error) = tier2.0.session().await {
            tracing::debug!(%error, "Redis is away for the moment");
        }
        Ok(tier2)
    }

    /// Whether tier 1 may be believed: nothing that others changed more than H ago is unheard of.
    #[inline]
    pub(crate) fn is_verified(&self, now: u64) -> bool {
        self.0.sessions.is_verified(now)
    }

    /// The link that others' changes to a key are heard over; to be taken before the key is looked at.
    pub(crate) fn changes_of(&self, key: &str) -> Changes {
        self.0.rings.of(key)
    }

    /// What a value made from now on depends on.
    pub(crate) async fn open(&self, tags: &Tag, lives: u64) -> Result<Opening, Error> {
        let inner = &self.0;
        let session = inner.verified_session().await?;
        let life = lives.saturating_mul(2).max(inner.tag_life);
        let generations = join_all(tags.iter().map(|tag| async move {
            let outlives = tag.lives_until() >= inner.local.now().saturating_add(life / 2);
            let generation = match tag.generation(inner.local.floor()).filter(|_| outlives) {
                Some(generation) => generation,
                None => self.bear(tag, life).await?,
            };
            Ok::<_, Error>((tag.name.clone(), generation))
        }));
        let tags = generations.await.into_iter().collect::<Result<_, _>>()?;
        Ok(Opening { generation: session.generation, sequence: session.sequence, tags })
    }

    /// The generation of a tag, made where there is none, and kept for `life` at least. Not a script: of plain commands of ours
    /// Redis does not tell us.
    async fn bear(&self, tag: &One, life: u64) -> Result<u64, Error> {
        let inner = &self.0;
        let name = inner.keys.tag(&tag.name);
        loop {
            let stamp = inner.local.stamp();
            let fresh = fresh_generation();
            let args = vec![name.clone(), decimal(fresh), "NX".into(), "PX".into(), decimal(life)];
            let made = inner.redis.command("SET", Some(name.clone()), args).await?;
            let (current, left) = tokio::try_join!(
                inner.redis.command("GET", Some(name.clone()), vec![name.clone()]),
                inner.redis.command("PTTL", Some(name.clone()), vec![name.clone()]),
            )?;
            if current.is_nil() {
                // Deleted between the two.
                continue;
            }
            let generation = if made.is_nil() { number(&current)? } else { fresh };
            let mut left = u64::try_from(left.as_int()?).unwrap_or(0);
            // Seldom, as the others are told of it.
            if left < life / 2 {
                inner.redis.command("PEXPIRE", Some(name.clone()), vec![name.clone(), decimal(life)]).await?;
                left = life;
            }
            tag.learn(generation, stamp);
            tag.set_lives_until(inner.local.now().saturating_add(left));
            return Ok(generation);
        }
    }

    pub(crate) async fn read(&self, key: KeyRef<'_>) -> Result<Found, Error> {
        let inner = &self.0;
        inner.session().await?;
        let name = inner.keys.value(key.text);
        let bytes = inner.reads.submit(name).await.ok_or(Error::Closed)??;
        let Some(found) = self.judge(key.text, bytes).await? else { return Ok(Found::Absent) };
        Ok(found)
    }

    pub(crate) async fn read_many(&self, keys: &[KeyRef<'_>]) -> Result<Vec<Found>, Error> {
        let inner = &self.0;
        inner.session().await?;
        let names: Vec<Bytes> = keys.iter().map(|key| inner.keys.value(key.text)).collect();
        let mut found = Vec::with_capacity(keys.len());
        for (keys, names) in keys.chunks(inner.trip).zip(names.chunks(inner.trip)) {
            let values = inner.redis.get_many(names).await?;
            let _held = self.learn_tags(&values).await?;
            for (key, bytes) in keys.iter().zip(values) {
                found.push(self.judge(key.text, bytes).await?.unwrap_or(Found::Absent));
            }
        }
        Ok(found)
    }

    /// Asks for all generations at once that judging these will ask for, and holds them so long.
    async fn learn_tags(&self, values: &[Option<Bytes>]) -> Result<Vec<Tag>, Error> {
        let inner = &self.0;
        let headers = values.iter().flatten().filter_map(record::header);
        let held: Vec<Tag> = headers.map(|header| inner.local.hold(&header.tags)).collect();
        let floor = inner.local.floor();
        let mut unknown: HashMap<&str, &One> = HashMap::new();
        for tag in held.iter().flat_map(Tag::iter).filter(|tag| tag.generation(floor).is_none()) {
            unknown.insert(&tag.name, tag);
        }
        if !unknown.is_empty() {
            let stamp = inner.local.stamp();
            let names: Vec<Bytes> = unknown.keys().map(|name| inner.keys.tag(name)).collect();
            for (tag, generation) in unknown.values().zip(inner.redis.get_many(&names).await?) {
                if let Some(generation) = generation {
                    tag.learn(number(&Value::Bytes(generation))?, stamp);
                }
            }
        }
        Ok(held)
    }

    /// Whether what lies on Redis may be given, by what is known *now*: the link it came over may be gone already.
    async fn judge(&self, key: &str, bytes: Option<Bytes>) -> Result<Option<Found>, Error> {
        let Some(bytes) = bytes else { return Ok(None) };
        let inner = &self.0;
        // The nodes of a cluster are heard over links of their own: silence of one is no news.
        let session = match inner.is_cluster {
            true => inner.verified_session().await?,
            false => inner.session().await?,
        };
        let id = record::id(&bytes);
        let Some(Record { header, payload }) = record::read(&bytes) else {
            inner.metrics.unreadable.inc();
            return Ok(Some(Found::Dead(id)));
        };
        if header.generation != session.generation || session.covers(key, header.sequence) {
            return Ok(Some(Found::Dead(id)));
        }
        let tags = inner.local.hold(&header.tags);
        for (tag, (_, generation)) in tags.iter().zip(&header.tags) {
            let current = match tag.generation(inner.local.floor()) {
                Some(current) => current,
                None => {
                    let stamp = inner.local.stamp();
                    let name = inner.keys.tag(&tag.name);
                    let reply = inner.redis.command("GET", Some(name.clone()), vec![name]).await?;
                    if reply.is_nil() {
                        return Ok(Some(Found::Dead(id)));
                    }
                    let current = number(&reply)?;
                    tag.learn(current, stamp);
                    current
                }
            };
            if current != *generation {
                return Ok(Some(Found::Dead(id)));
            }
        }
        let now = inner.local.now();
        let fresh_until = session.local(header.fresh_until);
        if now >= fresh_until.saturating_add(header.stale_for) {
            return Ok(Some(Found::Dead(id)));
        }
        let stale_for = header.stale_for;
        Ok(Some(Found::Alive(Alive { id, payload, fresh_until, stale_for, tags, now })))
    }

    pub(crate) async fn write_many(&self, writes: Vec<Write>) -> Result<(), Error> {
        let mut failure = None;
        let mut writes = writes.into_iter();
        loop {
            let chunk: Vec<Write> = writes.by_ref().take(BATCH).collect();
            if chunk.is_empty() {
                return failure.map_or(Ok(()), Err);
            }
            let done = join_all(chunk.into_iter().map(|write| self.write(write, None))).await;
            for error in done.into_iter().filter_map(Result::err) {
                failure.get_or_insert(error);
            }
        }
    }

    /// Whether nothing that covers the key changed since, as far as anybody was told by now.
    async fn stands(&self, key: &str, opening: &Opening) -> Result<bool, Error> {
        let session = self.0.verified_session().await?;
        Ok(opening.generation == session.generation
            && opening.sequence >= session.unlisted
            && !session.covers(key, opening.sequence))
    }

    /// Keeps what was loaded under a lease; `false`: the lease is lost, as the key was changed.
    pub(crate) async fn fill(&self, granted: &Granted, write: Write) -> Result<bool, Error> {
        match self.stands(&write.key, &write.opening).await? {
            true => self.write(write, Some([granted.token.clone(), granted.seen.clone()])).await,
            false => Ok(false),
        }
    }

    /// Whoever leaves does not end it: what is sent may be done, and its ending belongs to it.
    /// Under a lease, of which the token and what it was granted over are given.
    async fn write(&self, write: Write, lease: Option<[Bytes; 2]>) -> Result<bool, Error> {
        let tier2 = self.clone();
        let written = self.0.tasks.spawn(async move { tier2.write_to_its_end(write, lease).await });
        written.await.unwrap_or(Err(Error::Closed))
    }

    async fn write_to_its_end(&self, write: Write, lease: Option<[Bytes; 2]>) -> Result<bool, Error> {
        let inner = &self.0;
        let [token, seen] = lease.unwrap_or_default();
        let Write { key, payload, fresh, stale, opening, mut ending } = write;
        let session = inner.session().await?;
        let now = session.remote(inner.local.now());
        let header = Header {
            generation: opening.generation,
            sequence: opening.sequence,
            fresh_until: now.saturating_add(fresh),
            stale_for: stale,
            tags: opening.tags,
            payload: match &payload {
                None => Payload::Nothing,
                Some(Packed { unpacked: None, .. }) => Payload::Plain,
                Some(Packed { unpacked: Some(length), .. }) => Payload::Zstd(*length),
            },
        };
        let bytes = payload.map(|packed| packed.bytes).unwrap_or_default();
        let record = record::write(&header, random(), &bytes);
        let names = [inner.keys.value(&key), inner.keys.lease(&key)];
        let life = (fresh + stale).max(1);
        // Later than this its caller has long been told that nobody knows, and it must not come true any more.
        let latest = now + millis(inner.timeout) * LATE;
        let args = [record, decimal(life), decimal(latest), token, seen];
        let reply = inner.redis.run_unheard(&scripts::WRITE, &names, &args, Duration::from_millis(life)).await?;
        match reply.as_int()? {
            1 => {
                ending.done();
                Ok(true)
            }
            -1 => Ok(false),
            // Or the clock of Redis was set: ask for it again.
            _ => {
                inner.sessions.unknown();
                Err(Error::Late)
            }
        }
    }

    /// Takes the right to load. Of a holder who began before something that covers the key was changed it is taken away: what
    /// that one loads nobody may keep.
    pub(crate) async fn lease(&self, key: KeyRef<'_>, seen: &[u8], opening: &Opening) -> Result<Lease, Error> {
        let inner = &self.0;
        let token = Token::new(opening);
        let names = [inner.keys.value(key.text), inner.keys.lease(key.text)];
        let mut args = [token.text.clone(), decimal(millis(LEASE)), Bytes::copy_from_slice(seen), Bytes::new()];
        loop {
            let reply = inner.redis.run(&scripts::LEASE, &names, &args).await?.into_array()?;
            let left = match &reply[..] {
                [Value::Int(1)] => return Ok(Lease::Granted(token.text)),
                [Value::Int(2)] => return Ok(Lease::Changed),
                [_, left, Value::Bytes(holder)] => {
                    let session = inner.session().await?;
                    if *holder != args[3] && token.outdates(holder, |sequence| session.covers(key.text, sequence)) {
                        args[3] = holder.clone();
                        continue;
                    }
                    left.as_int()?
                }
                // It ran out between two looks.
                _ => 1,
            };
            return Ok(Lease::Busy(Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1))));
        }
    }

    /// Deletes values; how many there were.
    pub(crate) async fn delete(&self, keys: &[&str]) -> Result<u64, Error> {
        let inner = &self.0;
        let delete = |keys: &[&str]| {
            let values = keys.iter().map(|key| inner.keys.value(key));
            let names: Vec<Bytes> = values.chain(keys.iter().map(|key| inner.keys.lease(key))).collect();
            async move { inner.redis.run(&scripts::DELETE, &names, []).await?.as_int().map(|count| count as u64) }
        };
        // Keys of one script lie in one slot; nothing binds these together but that they were named together.
        let chunk = if inner.is_cluster { 1 } else { DELETE_BATCH };
        let done = join_all(keys.chunks(chunk).map(delete)).await;
        Ok(done.into_iter().collect::<Result<Vec<u64>, _>>()?.iter().sum())
    }

    /// All that bears one of these is dead: their generations are gone, and will be others. A full Redis allows that, too.
    pub(crate) async fn change_tags(&self, tags: &[&str]) -> Result<(), Error> {
        let inner = &self.0;
        let change = |tag: &&str| {
            let name = inner.keys.tag(tag);
            inner.redis.command("UNLINK", Some(name.clone()), vec![name])
        };
        for done in join_all(tags.iter().map(change)).await {
            done?;
        }
        Ok(())
    }

    pub(crate) async fn save_hottest(&self, keys: &[Box<str>]) -> Result<(), Error> {
        let text = serde_json::to_vec(keys).unwrap_or_default();
        let name = self.0.keys.hottest.clone();
        let args = vec![name.clone(), text.into(), Bytes::from("EX"), Bytes::from("604800")];
        self.0.redis.command("SET", Some(name), args).await?;
        Ok(())
    }

    pub(crate) async fn saved_hottest(&self) -> Result<Vec<String>, Error> {
        let name = self.0.keys.hottest.clone();
        let reply = self.0.redis.command("GET", Some(name.clone()), vec![name]).await?.into_bytes_or_nil()?;
        Ok(reply.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.redis.close().await;
    }
}

/// A write may come so many timeouts late, as large ones do behind others; far less than a prefix stays listed.
const LATE: u64 = 20;
/// Keys deleted by one script: so many take well under a millisecond.
const DELETE_BATCH: usize = 250;

impl Inner {
    async fn session(&self) -> Result<Arc<Session>, Error> {
        self.sessions.current(self).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
