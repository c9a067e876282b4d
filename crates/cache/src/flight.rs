//! Loads under way: one per key, shared by everybody who wants its result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::error::Error;
use crate::key::KeyRef;
use crate::tier1::{Stamp, Tag};

/// What a load brings.
#[derive(Clone, Debug)]
pub(crate) struct Landing<V> {
    /// A value, or that there is none.
    pub(crate) value: Option<V>,
    /// Whether the loader said so, or Redis had it.
    pub(crate) loaded: bool,
}

pub(crate) type Landed<V> = Result<Landing<V>, Error>;

/// A value past its TTL.
#[derive(Clone, Debug)]
pub(crate) struct Stale<V> {
    pub(crate) value: V,
    /// By how many milliseconds.
    pub(crate) past: u64,
    /// What it was found under, and what it depends on.
    pub(crate) stamp: Stamp,
    pub(crate) tags: Tag,
    /// Until when it may be given.
    pub(crate) until: u64,
}

/// One load. It lands once; whoever waits for it may leave without harm to the others.
#[derive(Debug)]
pub(crate) struct Flight<V> {
    landed: OnceLock<Landed<V>>,
    /// A value past its TTL that was found on the way.
    stale: OnceLock<Stale<V>>,
    news: Notify,
    /// Until when others may join: what it brings is then no older than they may be given.
    joinable_until: AtomicU64,
    /// The version it began under and the tags of its value: who comes after a change of these does not join.
    pub(crate) stamp: Stamp,
    pub(crate) tags: Tag,
}

impl<V: Clone> Flight<V> {
    pub(crate) fn new(stamp: Stamp, tags: Tag, joinable_until: u64) -> Arc<Self> {
        Arc::new(Self {
            landed: OnceLock::new(),
            stale: OnceLock::new(),
            news: Notify::new(),
            joinable_until: joinable_until.into(),
            stamp,
            tags,
        })
    }

    pub(crate) fn is_joinable(&self, now: u64) -> bool {
        now < self.joinable_until.load(Ordering::SeqCst) && self.landed.get().is_none()
    }

    /// What it brings is from after an instant that makes it good until then.
    pub(crate) fn joinable_until(&self, until: u64) {
        self.joinable_until.store(until, Ordering::SeqCst);
    }

    /// Gives everybody the result; the first one counts.
    pub(crate) fn land(&self, result: Landed<V>) {
        let _ = self.landed.set(result);
        self.news.notify_waiters();
    }

    /// Tells of a value past its TTL: whoever takes such values need not wait.
    pub(crate) fn found_stale(&self, stale: Stale<V>) {
        let _ = self.stale.set(stale);
        self.news.notify_waiters();
    }

    pub(crate) fn landed(&self) -> Option<&Landed<V>> {
        self.landed.get()
    }

    pub(crate) fn stale(&self) -> Option<&Stale<V>> {
        self.stale.get()
    }

    /// The next news; to be taken before looking what there is.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }
}

const SHARDS: usize = 64;

/// All flights, by key.
#[derive(Debug)]
pub(crate) struct Flights<V>(Box<[Mutex<Shard<V>>]>);

type Shard<V> = HashMap<Box<str>, Arc<Flight<V>>, RandomState>;

impl<V: Clone> Flights<V> {
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<V>> {
        &self.0[(hash >> 40) as usize % SHARDS]
    }

    /// The flight of a key if it still `stands`, else the one that `start` makes; whether it was made now.
    pub(crate) fn join(
        &self,
        key: KeyRef<'_>,
        stands: impl FnOnce(&Flight<V>) -> bool,
        start: impl FnOnce() -> Arc<Flight<V>>,
    ) -> (Arc<Flight<V>>, bool) {
        let mut shard = self.shard(key.hash).lock();
        match shard.entry_ref(key.text) {
            EntryRef::Occupied(mut known) => match stands(known.get()) {
                true => (known.get().clone(), false),
                false => {
                    let flight = start();
                    known.insert(flight.clone());
                    (flight, true)
                }
            },
            EntryRef::Vacant(free) => {
                let flight = start();
                free.insert(flight.clone());
                (flight, true)
            }
        }
    }

    /// The key was changed: who comes from now on does not join what is under way.
    pub(crate) fn detach(&self, key: KeyRef<'_>) {
        let mut shard = self.shard(key.hash).lock();
        if !shard.is_empty() {
            shard.remove(key.text);
        }
    }

    /// A flight is over.
    pub(crate) fn end(&self, key: KeyRef<'_>, flight: &Arc<Flight<V>>) {
        let mut shard = self.shard(key.hash).lock();
        if shard.get(key.text).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            shard.remove(key.text);
        }
    }
}
