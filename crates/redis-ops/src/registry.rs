//! Which streams there are, known without asking Redis each time.
//!
//! One walk over the keys (`SCAN … TYPE stream`) is good for a while: younger than the refresh interval it is served as it
//! is, older it is served and renewed in the background, older than the expiry callers wait for the renewal. One walk is
//! under way at most, however many ask; nobody asks, nothing runs. What this process creates and deletes shows at once.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_metrics::{Counter, Gauge, Outcome, Registry, Timer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::RegistryConfig;
use crate::error::Error;
use crate::redis::Redis;
use crate::scan::ScanOptions;

/// Places of the key table per call: 1000 take Redis a fraction of a millisecond.
const SCAN_COUNT: u32 = 1000;
/// After a walk that failed, callers with a list that is still good do not begin another for so long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Whether a key is listed.
type Keep = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Which streams are listed.
pub struct RegistryOptions {
    /// Keys begin with this. Empty: all.
    pub prefix: Bytes,
    /// Further choice, asked once per key of a walk: keys of our own are no streams of users, for example.
    pub keep: Keep,
    /// Names listed at most; beyond it those last in order are left out and counted. 100 000.
    pub names_max: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { prefix: Bytes::new(), keep: Box::new(|_| true), names_max: 100_000 }
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The streams at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Their keys, in order.
    pub names: Vec<Bytes>,
    /// When the walk behind this began; what this process did since is in it too.
    pub cached_at: SystemTime,
    /// Streams that did not fit.
    pub left_out: u64,
}

/// The list of streams; a cheap clone that keeps its [`Redis`] open.
#[derive(Clone, Debug)]
pub struct StreamRegistry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    config: RegistryConfig,
    options: RegistryOptions,
    /// Held to look, to note a change, or to put a finished walk in place.
    state: Mutex<State>,
    refreshes: Timer,
    streams: Gauge,
    left_out: Counter,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    walk: Option<Walk>,
    not_before: Option<Instant>,
    /// The next look is to begin a walk, however young the list is.
    is_doubted: bool,
}

#[derive(Debug)]
struct Known {
    names: BTreeSet<Bytes>,
    left_out: u64,
    since: Instant,
    cached_at: SystemTime,
    /// Made when first asked for after a change.
    listing: Option<Arc<Listing>>,
}

/// A walk under way.
#[derive(Debug)]
struct Walk {
    end: watch::Receiver<Option<Result<(), Error>>>,
    /// What this process created (`true`) or deleted meanwhile: it may have passed there before.
    changes: HashMap<Bytes, bool>,
}

impl StreamRegistry {
    /// A registry by [`Config::registry`](crate::Config::registry). Asks nothing yet.
    pub fn new(redis: Redis, options: RegistryOptions, registry: &Registry) -> Self {
        let config = redis.config().registry.clone();
        Self(Arc::new(Shared {
            redis,
            config,
            options,
            state: Mutex::default(),
            refreshes: registry.timer(
                "tidegate_redis_stream_registry_refresh_seconds",
                "Walks over the keys for the list of streams.",
            ),
            streams: registry.gauge("tidegate_redis_stream_registry_streams", "Streams listed."),
            left_out: registry
                .counter("tidegate_redis_stream_registry_left_out_total", "Streams that a walk had no room to list."),
        }))
    }

    /// The streams. At once while the list is younger than its expiry; else after the walk that is under way or begins
    /// now.
    ///
    /// Errors: that of the walk waited for. Dropping the future ends no walk.
    pub async fn listing(&self) -> Result<Arc<Listing>, Error> {
        loop {
            let mut end = match self.look(Instant::now()) {
                Look::Good(listing) => return Ok(listing),
                Look::Wait(end) => end,
            };
            match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
                Ok(Some(Err(error))) => return Err(error),
                Ok(_) => {
                    // Its result counts, however soon it expires.
                    if let Some(listing) = self.0.state.lock().listing() {
                        return Ok(listing);
                    }
                }
                Err(_) => return Err(Error::closed()),
            }
        }
    }

    fn look(&self, now: Instant) -> Look {
        let config = &self.0.config;
        let mut state = self.0.state.lock();
        // A walk that cannot end any more, as after a panic of `keep`, is none.
        state.walk.take_if(|walk| walk.end.has_changed().is_err());
        let age = state.known.as_ref().map(|known| now.saturating_duration_since(known.since));
        let good = age.is_some_and(|age| age < config.cache_expiry);
        let stale = state.is_doubted || age.is_none_or(|age| age >= config.refresh_interval);
        let may_walk = !good || state.not_before.is_none_or(|not_before| now >= not_before);
        if (stale || !good) && state.walk.is_none() && may_walk {
            let (told, end) = watch::channel(None);
            state.is_doubted = false;
            state.walk = Some(Walk { end, changes: HashMap::new() });
            let core = self.0.redis.core();
            core.tasks.spawn(walk(self.0.clone(), told));
        }
        match (good.then(|| state.listing()).flatten(), &state.walk) {
            (Some(listing), _) => Look::Good(listing),
            (None, Some(walk)) => Look::Wait(walk.end.clone()),
            // Not reached: what is not good is being walked for.
            (None, None) => Look::Wait(watch::channel(None).1),
        }
    }

    /// Others may have created streams unheard: the next look begins a walk (and gets the list there is).
    pub fn doubt(&self) {
        self.0.state.lock().is_doubted = true;
    }

    /// Notes a stream that this process created.
    pub fn created(&self, name: &[u8]) {
        self.note(name, true);
    }

    /// Notes a stream that this process deleted.
    pub fn deleted(&self, name: &[u8]) {
        self.note(name, false);
    }

    fn note(&self, name: &[u8], is_there: bool) {
        let shared = &self.0;
        if is_there && !shared.lists(name) {
            return;
        }
        let mut state = shared.state.lock();
        let State { known, walk, .. } = &mut *state;
        if let Some(walk) = walk
            && (walk.changes.len() < shared.options.names_max || walk.changes.contains_key(name))
        {
            walk.changes.insert(Bytes::copy_from_slice(name), is_there);
        }
        if let Some(known) = known {
            known.change(name, is_there, shared.options.names_max);
            shared.streams.set(known.names.len() as f64);
        }
    }
}

enum Look {
    Good(Arc<Listing>),
    Wait(watch::Receiver<Option<Result<(), Error>>>),
}

impl State {
    fn listing(&mut self) -> Option<Arc<Listing>> {
        self.known.as_mut().map(Known::listing)
    }
}

impl Known {
    fn change(&mut self, name: &[u8], is_there: bool, names_max: usize) {
        let changed = match is_there {
            true if self.names.contains(name) => false,
            true if self.names.len() >= names_max => {
                self.left_out += 1;
                true
            }
            true => self.names.insert(Bytes::copy_from_slice(name)),
            false => self.names.remove(name),
        };
        if changed {
            self.listing = None;
        }
    }

    fn listing(&mut self) -> Arc<Listing> {
        let Self { names, left_out, cached_at, listing, .. } = self;
        let make = || {
            let names = names.iter().cloned().collect();
            Arc::new(Listing { names, cached_at: *cached_at, left_out: *left_out })
        };
        listing.get_or_insert_with(make).clone()
    }
}

impl Shared {
    fn lists(&self, name: &[u8]) -> bool {
        name.starts_with(&self.options.prefix) && (self.options.keep)(name)
    }

    /// Walks once over all keys. Dropped names come from the end, so that what is listed is the beginning of the order.
    async fn walked(&self) -> Result<(BTreeSet<Bytes>, u64), Error> {
        let options = ScanOptions { count: SCAN_COUNT, kind: Some("stream") };
        let mut scan = self.redis.scan(pattern(&self.options.prefix), options);
        let (mut names, mut left_out) = (BTreeSet::new(), 0);
        while let Some(page) = scan.next_page().await {
            for name in page?.into_iter().filter(|name| self.lists(name)) {
                names.insert(name);
                if names.len() > self.options.names_max {
                    names.pop_last();
                    left_out += 1;
                }
            }
        }
        Ok((names, left_out))
    }

    /// Puts the result in place, with what changed meanwhile.
    fn walk_ended(&self, outcome: Result<(BTreeSet<Bytes>, u64), Error>, since: Instant, cached_at: SystemTime) {
        let mut state = self.state.lock();
        let changes = state.walk.take().map(|walk| walk.changes).unwrap_or_default();
        match outcome {
            Ok((names, left_out)) => {
                let mut known = Known { names, left_out, since, cached_at, listing: None };
                for (name, is_there) in changes {
                    known.change(&name, is_there, self.options.names_max);
                }
                self.streams.set(known.names.len() as f64);
                self.left_out.add(left_out);
                (state.known, state.not_before) = (Some(known), None);
            }
            Err(_) => state.not_before = Some(Instant::now() + AFTER_FAILURE),
        }
    }
}

/// The task of one walk.
async fn walk(shared: Arc<Shared>, told: watch::Sender<Option<Result<(), Error>>>) {
    let (since, cached_at) = (Instant::now(), SystemTime::now());
    let outcome = tokio::select! {
        outcome = shared.walked() => outcome,
        () = shared.redis.core().closing.cancelled() => Err(Error::closed()),
    };
    let counted = if outcome.is_ok() { Outcome::Succeeded } else { Outcome::Failed };
    shared.refreshes.record_outcome(since.elapsed(), counted);
    let end = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
    if let Err(error) = &end {
        tracing::debug!(%error, "the list of streams was not renewed");
    }
    shared.walk_ended(outcome, since, cached_at);
    told.send_replace(Some(end));
}

/// What `MATCH` wants for keys that begin with `prefix`.
fn pattern(prefix: &[u8]) -> Bytes {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_itself() {
        assert_eq!(pattern(b""), "*");
        assert_eq!(pattern(b"a*[b]?\\:"), "a\\*\\[b\\]\\?\\\\:*");
    }
}
