//! The handle.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::millis;
use crate::codec::Codec;
use crate::config::Config;
use crate::error::{BoxError, Error};
use crate::flight::{Flight, Landing};
use crate::hottest::Hottest;
use crate::invalidation::Invalidation;
use crate::keep::Keep;
use crate::key::KeyRef;
use crate::load::{self, Load};
use crate::redis::Tier2;
use crate::stats::{Metrics, Stats, TierStats};
use crate::tier1::{Entry, Look, Tag, Terms, Tier1};
use crate::warm::{Progress, Warmed};

/// Values of type `V` by key: in memory (tier 1), and where a Redis is given, there too (tier 2). A cheap clone; clones are the same
/// cache. `V` is cloned for every read: [`bytes::Bytes`], or an `Arc`.
///
/// # What is promised
///
/// Let a value be *changed* by whoever sets, deletes or invalidates it (by key, tag, prefix or all), or by any other client
/// that writes or deletes its key on Redis. (Of another client that deletes a key that is not there, Redis tells nobody.)
///
/// 1. In the process that changes it, no call that begins after the change returned `Ok` is given an older value.
/// 2. In every other process, no call that begins later than [`Config::staleness_max`] (H, 2 s) after the change is given an
///    older value; while the link to Redis works it is the time a message takes.
/// 3. What was being loaded or read while it was changed is given to those who asked before, and kept by nobody.
/// 4. When the link to Redis is lost, or silent, or Redis was restarted or replaced, nothing is given from memory until it is
///    known again what changed; loads go on without Redis, and what they bring lives H at most.
///
/// A value is given past its TTL only where that was asked for ([`Config::stale_while_revalidate`], [`Config::stale_on_error`]),
/// and never past a change.
pub struct Cache<V>(pub(crate) Arc<Shared<V>>);

pub(crate) struct Shared<V> {
    pub(crate) config: Config,
    pub(crate) codec: Arc<dyn Codec<V>>,
    pub(crate) tier1: Arc<Tier1<V>>,
    pub(crate) tier2: Option<Tier2>,
    pub(crate) loads: Semaphore,
    pub(crate) metrics: Arc<Metrics>,
    hottest: Hottest,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Which values past their TTL a caller takes, by how many milliseconds past.
#[derive(Clone, Copy)]
struct Takes {
    while_renewed: u64,
    on_error: u64,
    /// How long it waits before it takes one of those meant for errors.
    patience: Duration,
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.0.config.name).field("shared", &self.0.tier2.is_some()).finish()
    }
}

impl<V: Clone + Send + Sync + 'static> Cache<V> {
    /// A cache in the memory of this process. Needs a tokio runtime, on which its sweeps run.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound out of its range.
    pub fn memory(codec: impl Codec<V>, config: Config, registry: &Registry) -> Result<Self, Error> {
        let config = config.checked()?;
        let metrics = Arc::new(Metrics::new(registry, &config.name));
        let tier1 = Arc::new(Tier1::new(&config, metrics.clone()));
        Ok(Self::new(config, Arc::new(codec), tier1, metrics, None))
    }

    /// A cache in memory and on a Redis that other processes share. Opens connections of its own to it, one per node.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound out of its range, [`Error::Redis`] when a cluster cannot say who its nodes are. A Redis that
    /// is away for the moment is no error.
    pub async fn connect(
        redis: &Redis,
        codec: impl Codec<V>,
        config: Config,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let config = config.checked()?;
        let metrics = Arc::new(Metrics::new(registry, &config.name));
        let tier1 = Arc::new(Tier1::new(&config, metrics.clone()));
        let tier2 = Tier2::connect(redis, &config, tier1.clone(), metrics.clone()).await?;
        Ok(Self::new(config, Arc::new(codec), tier1, metrics, Some(tier2)))
    }

    fn new(
        config: Config,
        codec: Arc<dyn Codec<V>>,
        tier1: Arc<Tier1<V>>,
        metrics: Arc<Metrics>,
        tier2: Option<Tier2>,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(tier1.clone().keep_swept(config.clock.clone(), stop.clone()));
        let loads = Semaphore::new(config.loads_max);
        Self(Arc::new(Shared { config, codec, tier1, tier2, loads, metrics, hottest: Hottest::default(), tasks, stop }))
    }

    /// The value of a key, from the nearest tier that has it.
    ///
    /// # Errors
    /// [`Error::Redis`] when memory has none and Redis did not answer.
    #[inline]
    pub async fn get(&self, key: &str) -> Result<Option<V>, Error> {
        let key = self.0.tier1.key(key);
        match self.0.fresh(key) {
            Some(value) => Ok(value),
            // Apart, as all that may follow would lie in the caller's future otherwise.
            None => Box::pin(self.0.get(key)).await,
        }
    }

    /// The value of a key if memory has it and may give it. Counts as a read of tier 1 only.
    pub fn peek(&self, key: &str) -> Option<V> {
        let key = self.0.tier1.key(key);
        self.0.fresh(key).unwrap_or_else(|| match self.0.look(key) {
            Look::Fresh(value) => value,
            _ => None,
        })
    }

    /// The value of a key; where there is none, what `load` brings, which is kept. `None`: there is no such thing, as the loader
    /// said, which is remembered for [`Config::negative_ttl`].
    ///
    /// However many callers, one load runs per key in all processes that share the Redis. It runs in a task of its own: dropping this
    /// future harms nobody. Where the key is changed meanwhile, its result is given to those who asked before and not kept.
    ///
    /// # Errors
    /// Those of the load, the same for all its callers, unless a value past its TTL may be given instead. A Redis that is away
    /// is no error.
    pub async fn get_or_load<F, Fut, E>(&self, key: &str, keep: Keep, load: F) -> Result<Option<V>, Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let at = self.0.tier1.key(key);
        if let Some(value) = self.0.fresh(at) {
            return Ok(value);
        }
        let near = match self.0.look(at) {
            Look::Fresh(value) => return Ok(value),
            Look::Stale(value, past) => Some((value, past)),
            Look::Unverified | Look::Nothing => None,
        };
        let takes = self.0.takes(&keep);
        let flight = self.0.join(at, keep, load::boxed(load))?;
        self.0.land(at, &flight, near, takes).await
    }

    /// Keeps a value.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Invalid`] for key or tags, [`Error::Encode`]; [`Error::Redis`] when Redis did not take it: then
    /// memory has none either.
    pub async fn set(&self, key: &str, value: V, keep: Keep) -> Result<(), Error> {
        match &self.0.tier2 {
            None => self.0.put(self.0.tier1.key(key), value, &keep),
            Some(_) => self.0.write_many(vec![(key.to_owned(), value, keep)]).await,
        }
    }

    /// The values of many keys, in their order, in one round trip for those that memory does not have.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis did not answer.
    pub async fn get_many(&self, keys: &[impl AsRef<str> + Sync]) -> Result<Vec<Option<V>>, Error> {
        let keys: Vec<KeyRef<'_>> = keys.iter().map(|key| self.0.tier1.key(key.as_ref())).collect();
        self.0.read_many(&keys).await
    }

    /// Keeps many values, in one round trip. Each for itself: an error leaves some of them kept.
    ///
    /// # Errors
    /// As [`set`](Self::set); what cannot be kept is found before anything is sent.
    pub async fn set_many(&self, entries: Vec<(String, V, Keep)>) -> Result<(), Error> {
        self.0.write_many(entries).await
    }

    /// Deletes the values of keys, in every tier and process, in one round trip; says how many of them had one, on Redis where there
    /// is one.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis did not answer: this process forgot them all the same; others may not have.
    pub async fn delete_many(&self, keys: &[impl AsRef<str> + Sync]) -> Result<u64, Error> {
        let keys: Vec<KeyRef<'_>> = keys.iter().map(|key| self.0.tier1.key(key.as_ref())).collect();
        self.0.delete(&keys).await
    }

    /// Deletes the value of a key, as [`delete_many`](Self::delete_many); whether there was one.
    ///
    /// # Errors
    /// As [`delete_many`](Self::delete_many).
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        Ok(self.0.delete(&[self.0.tier1.key(key)]).await? > 0)
    }

    /// Makes everybody forget. O(1) however much it covers, but for keys, which are deleted.
    ///
    /// # Errors
    /// [`Error::Redis`] when Redis did not answer: this process forgot it all the same; others may not have, so call again.
    pub async fn invalidate(&self, what: Invalidation) -> Result<(), Error> {
        self.invalidate_all(&[what]).await
    }

    /// Makes everybody forget all of these, as [`invalidate`](Self::invalidate).
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate); some may have been done.
    pub async fn invalidate_all(&self, what: &[Invalidation]) -> Result<(), Error> {
        self.0.invalidate(what).await
    }

    /// Invalidates everything, or what begins with a prefix, and removes it: says how many values were deleted, on Redis where
    /// there is one, and tells how many so far. Others hardly notice: Redis is asked for a thousand keys at a time.
    ///
    /// All is forgotten at the beginning; what `cancel` or an error leaves undone is only memory, which later expires.
    ///
    /// # Errors
    /// [`Error::Redis`]; calling again goes on.
    pub async fn clear(
        &self,
        prefix: Option<&str>,
        progress: impl FnMut(u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        self.0.clear(prefix.unwrap_or(""), progress, cancel).await
    }

    /// Loads keys before anybody asks, so many at a time, and tells how far it is. Keys that have a fresh value are left alone.
    /// Dropping the future ends it after the loads that run.
    pub async fn warm<F, Fut, E>(
        &self,
        keys: &[impl AsRef<str> + Sync],
        keep: &Keep,
        concurrency: usize,
        load: F,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Warmed
    where
        F: Fn(String) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let mut so_far = Progress { total: keys.len(), done: 0 };
        let mut warmed = Warmed::default();
        let loads = keys.iter().map(|key| {
            let (key, load, keep) = (key.as_ref().to_owned(), load.clone(), keep.clone());
            async move {
                let asked = key.clone();
                self.get_or_load(&key, keep, move || load(asked)).await
            }
        });
        let mut results = stream::iter(loads).buffer_unordered(concurrency.clamp(1, 1024));
        while let Some(result) = results.next().await {
            match result {
                Ok(Some(_)) => warmed.warmed += 1,
                Ok(None) => warmed.missing += 1,
                Err(_) => warmed.failed += 1,
            }
            so_far.done += 1;
            progress(so_far);
        }
        warmed
    }

    /// Fetches keys from Redis into memory before anybody asks, a hundred at a time. Without a Redis, only those that are in memory
    /// already count as warmed.
    pub async fn fetch(&self, keys: &[impl AsRef<str> + Sync], mut progress: impl FnMut(Progress) + Send) -> Warmed {
        let mut so_far = Progress { total: keys.len(), done: 0 };
        let mut warmed = Warmed::default();
        for chunk in keys.chunks(100) {
            match self.get_many(chunk).await {
                Ok(values) => {
                    let found = values.iter().flatten().count();
                    warmed.warmed += found;
                    warmed.missing += chunk.len() - found;
                }
                Err(_) => warmed.failed += chunk.len(),
            }
            so_far.done += chunk.len();
            progress(so_far);
        }
        warmed
    }

    /// The keys asked for most, hottest first, by sampling one hit of 64.
    #[must_use]
    pub fn hottest(&self, most: usize) -> Vec<Box<str>> {
        self.0.hottest.top(most)
    }

    /// The keys that the process which closed this cache last on this Redis wrote down as its hottest
    /// ([`Config::hottest_saved`]). Empty without a Redis.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn saved_hottest(&self) -> Result<Vec<String>, Error> {
        match &self.0.tier2 {
            Some(tier2) => tier2.saved_hottest().await,
            None => Ok(Vec::new()),
        }
    }

    /// Removes what has expired from memory now instead of in a while; says how many.
    pub async fn sweep(&self) -> u64 {
        let (tier1, now) = (self.0.tier1.clone(), self.0.config.clock.now());
        tokio::task::spawn_blocking(move || tier1.sweep(now)).await.unwrap_or(0)
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Writes the hottest keys down, ends loads under way ([`Error::Closed`]) and all tasks and connections.
    pub async fn close(&self) {
        let shared = &self.0;
        if let Some(tier2) = &shared.tier2
            && shared.config.hottest_saved > 0
        {
            let keys = self.hottest(shared.config.hottest_saved);
            if let Err(error) = tier2.save_hottest(&keys).await {
                tracing::warn!(%error, "the hottest keys of the cache were not written down");
            }
        }
        shared.stop.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        if let Some(tier2) = &shared.tier2 {
            tier2.close().await;
        }
    }
}

impl<V> Drop for Shared<V> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<V: Clone + Send + Sync + 'static> Shared<V> {
    /// What tier 1 may give at once; counted as a hit. It hands on what the engine hands out: to move that into another shape
    /// takes longer than all checks together.
    #[inline]
    pub(crate) fn fresh(&self, key: KeyRef<'_>) -> Option<Option<V>> {
        let now = self.config.clock.now();
        let verified = self.tier2.as_ref().is_none_or(|tier2| tier2.is_verified(now));
        let fresh = self.tier1.fresh(key, now, verified);
        if fresh.is_some() {
            self.metrics.memory_hits.inc();
            self.hottest.hit(key.text);
        }
        fresh
    }

    /// What is not fresh in tier 1.
    async fn get(self: &Arc<Self>, key: KeyRef<'_>) -> Result<Option<V>, Error> {
        match self.look(key) {
            Look::Fresh(value) => return Ok(value),
            Look::Stale(..) => self.metrics.memory_misses.inc(),
            Look::Unverified | Look::Nothing => {}
        }
        self.read(key).await
    }

    /// What tier 1 says; counted as a read of it.
    #[inline]
    pub(crate) fn look(&self, key: KeyRef<'_>) -> Look<V> {
        let now = self.config.clock.now();
        let verified = self.tier2.as_ref().is_none_or(|tier2| tier2.is_verified(now));
        let look = self.tier1.look(key, now, verified);
        match &look {
            Look::Fresh(_) => {
                self.metrics.memory_hits.inc();
                self.hottest.hit(key.text);
            }
            // Whoever may not take it counts it as missed.
            Look::Stale(..) => {}
            Look::Unverified => {
                self.metrics.bypassed.inc();
                self.metrics.memory_misses.inc();
            }
            Look::Nothing => self.metrics.memory_misses.inc(),
        }
        look
    }

    /// A value past its TTL is given: found, in a way.
    fn served_stale(&self, value: &V) -> Option<V> {
        self.metrics.stale_served.inc();
        self.metrics.memory_hits.inc();
        Some(value.clone())
    }

    /// A caller is given what a flight brought.
    fn landed(&self, landing: &Landing<V>) -> Option<V> {
        match (landing.loaded, &self.tier2) {
            (true, _) => self.missed(),
            (false, Some(_)) => self.metrics.redis_hits.inc(),
            // It was counted when its caller looked.
            (false, None) => {}
        }
        landing.value.clone()
    }

    /// A caller was given nothing that any tier had.
    pub(crate) fn missed(&self) {
        if self.tier2.is_some() {
            self.metrics.redis_misses.inc();
        }
    }

    fn takes(&self, keep: &Keep) -> Takes {
        let config = &self.config;
        Takes {
            while_renewed: millis(keep.stale_while_revalidate.unwrap_or(config.stale_while_revalidate)),
            on_error: millis(keep.stale_on_error.unwrap_or(config.stale_on_error)),
            patience: keep.soft_timeout.unwrap_or(config.soft_timeout),
        }
    }

    /// What one caller is given of a flight; `near` is a value past its TTL that it knows of itself.
    async fn land(
        &self,
        key: KeyRef<'_>,
        flight: &Flight<V>,
        near: Option<(V, u64)>,
        takes: Takes,
    ) -> Result<Option<V>, Error> {
        let mut patience = pin!(sleep(takes.patience));
        let mut has_waited = false;
        loop {
            let news = flight.news();
            let on_the_way = || {
                let stale = flight.stale()?;
                let is_good =
                    self.config.clock.now() < stale.until && self.tier1.still_stands(key, stale.stamp, &stale.tags);
                is_good.then_some((&stale.value, stale.past))
            };
            let stale = near.as_ref().map(|(value, past)| (value, *past)).or_else(on_the_way);
            let excuse = stale.filter(|(_, past)| *past < takes.on_error);
            match (flight.landed(), excuse) {
                (Some(Ok(landing)), _) => return Ok(self.landed(landing)),
                (Some(Err(_)), Some((value, _))) => return Ok(self.served_stale(value)),
                (Some(Err(error)), None) => {
                    self.missed();
                    return Err(error.clone());
                }
                (None, Some((value, _))) if has_waited => return Ok(self.served_stale(value)),
                (None, _) => {}
            }
            if let Some((value, past)) = stale
                && past < takes.while_renewed
            {
                return Ok(self.served_stale(value));
            }
            tokio::select! {
                () = news => {}
                () = &mut patience, if takes.on_error > 0 && !has_waited => has_waited = true,
            }
        }
    }

    /// The flight of a key: the one that is under way, or one that begins now.
    fn join(self: &Arc<Self>, key: KeyRef<'_>, keep: Keep, load: Load<V>) -> Result<Arc<Flight<V>>, Error> {
        self.check_key(key.text)?;
        self.check_tags(&keep)?;
        self.check_open()?;
        let waiting = self.metrics.loading.get() as usize;
        if waiting >= self.config.loads_waiting_max {
            return Err(Error::Overloaded { waiting, retry_after: Duration::from_millis(100) });
        }
        let now = self.config.clock.now();
        let stands =
            |flight: &Flight<V>| flight.is_joinable(now) && self.tier1.still_stands(key, flight.stamp, &flight.tags);
        let start = || {
            let tags = self.tier1.tags.hold(keep.tags.iter().map(|tag| &**tag));
            Flight::new(self.tier1.stamp(), tags, self.good_until(now))
        };
        let (flight, is_new) = self.tier1.flights.join(key, stands, start);
        if is_new {
            load::depart(self, key, keep, load, &flight);
        } else {
            self.metrics.coalesced.inc();
        }
        Ok(flight)
    }

    /// Until when what is read from `at` on may be given to those who come later: as long as others' changes may go unheard
    /// of, less what a coarse clock is off by. Without others, always.
    pub(crate) fn good_until(&self, at: u64) -> u64 {
        match &self.tier2 {
            Some(_) => at + millis(self.config.staleness_max * 9 / 10),
            None => u64::MAX,
        }
    }

    pub(crate) fn check_key(&self, key: &str) -> Result<(), Error> {
        let most = self.config.key_bytes_max;
        match (1..=most).contains(&key.len()) {
            true => Ok(()),
            false => Err(Error::Invalid { field: "key", reason: format!("1 to {most} bytes, not {}", key.len()) }),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn check_tags(&self, keep: &Keep) -> Result<(), Error> {
        let most = self.config.tags_max;
        if keep.tags.len() > most {
            let reason = format!("at most {most}, not {}", keep.tags.len());
            return Err(Error::Invalid { field: "tags", reason });
        }
        keep.tags.iter().try_for_each(|tag| self.check_tag(tag))
    }

    pub(crate) fn check_tag(&self, tag: &str) -> Result<(), Error> {
        match (1..=256).contains(&tag.len()) {
            true => Ok(()),
            false => Err(Error::Invalid { field: "tags", reason: format!("1 to 256 bytes, not {}", tag.len()) }),
        }
    }

    fn stats(&self) -> Stats {
        let metrics = &self.metrics;
        let memory = TierStats { hits: metrics.memory_hits.get(), misses: metrics.memory_misses.get() };
        let redis = self
            .tier2
            .as_ref()
            .map(|_| TierStats { hits: metrics.redis_hits.get(), misses: metrics.redis_misses.get() });
        let (size, bytes) = (self.tier1.len() as u64, self.tier1.bytes());
        metrics.size.set(size as f64);
        metrics.bytes.set(bytes as f64);
        Stats {
            hits: memory.hits + redis.map_or(0, |redis| redis.hits),
            misses: redis.unwrap_or(memory).misses,
            memory,
            redis,
            size,
            size_max: self.config.entries_max as u64,
            bytes,
            bytes_max: self.config.bytes_max,
            loads: metrics.loads.get(),
            load_failures: metrics.load_failures.get(),
            loading: metrics.loading.get() as u64,
            coalesced: metrics.coalesced.get(),
            stale_served: metrics.stale_served.get(),
            raced: metrics.raced.get(),
            evictions: metrics.evictions.get(),
            expirations: metrics.expirations.get(),
            invalidations: metrics.invalidations.get(),
            flushes: metrics.flushes.get(),
            bypassed: metrics.bypassed.get(),
            unreadable: metrics.unreadable.get(),
            too_large: metrics.too_large.get(),
        }
    }
}

/// The value and how it is kept, as an entry of tier 1.
impl<V: Clone + Send + Sync + 'static> Shared<V> {
    /// TTL (shortened by chance) and the time after it for which it may still be given, in milliseconds.
    pub(crate) fn times(&self, keep: &Keep, is_negative: bool) -> (u64, u64) {
        let config = &self.config;
        if is_negative {
            return (millis(config.negative_ttl), 0);
        }
        let whole = millis(keep.ttl.unwrap_or(config.ttl).min(config.ttl_max));
        let fresh = whole - (whole as f64 * config.ttl_jitter * crate::redis::chance()) as u64;
        let takes = self.takes(keep);
        let stale = takes.while_renewed.max(takes.on_error);
        (fresh, stale.min(millis(config.ttl_max)).min(u64::from(u32::MAX)))
    }

    pub(crate) fn entry(&self, value: Option<V>, weight: usize, fresh: u64, stale: u64, tags: Tag) -> Entry<V> {
        Entry {
            value,
            terms: Terms {
                fresh_until: self.config.clock.now().saturating_add(fresh),
                stamp: 0,
                stale_for: u32::try_from(stale).unwrap_or(u32::MAX),
                weight: u32::try_from(weight + tags.bytes()).unwrap_or(u32::MAX),
                tags,
                unwatched: false,
            },
        }
    }
}
