//! Tier 1: values in memory, and what decides whether one may still be given.
//!
//! Two questions are kept apart. *Was this key changed?* is answered by removing it, and by the epoch of its stripe, which
//! keeps a fill from storing what was read before the change. *Was something changed that covers this key?* (a tag, a
//! prefix, everything) is answered on reading, by comparing the version an entry was begun under with those of later
//! changes: O(1) for whoever changes, however many entries are covered.

mod engine;
mod entry;
mod stripes;
mod sweep;
mod tags;
mod wide;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::{Config, Planted};
use crate::flight::Flights;
use crate::key::KeyRef;
use crate::stats::Metrics;
use engine::Engine;
use stripes::Stripes;
use wide::Wide;

pub(crate) use entry::{Entry, Terms};
pub(crate) use tags::{One, Tag, Tags};
pub(crate) use wide::Stamp;

/// What a fill was begun under: it is kept only if nothing that covers its key has changed since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    epoch: u64,
    pub(crate) stamp: Stamp,
    /// When.
    pub(crate) at: u64,
}

/// A write of this process on its way to Redis, which does not tell us of it and may therefore not tell us of somebody else's
/// at the same time either. However it ends, also by being dropped, nothing older stays.
pub(crate) struct Writing<V: Clone + Send + Sync + 'static> {
    /// Taken by its end.
    pending: Option<(Ticket, Entry<V>)>,
    key: Box<str>,
    /// Whether loads under way are of no use to those who come later.
    detaches: bool,
    tier: Arc<Tier1<V>>,
}

impl<V: Clone + Send + Sync + 'static> Writing<V> {
    fn end(&mut self, is_done: bool) {
        let Some((ticket, entry)) = self.pending.take() else { return };
        let key = self.tier.key(&self.key);
        self.tier.end_write(key, ticket, Some(entry).filter(|_| is_done));
        if self.detaches {
            self.tier.flights.detach(key);
        }
    }
}

/// What is to happen in memory when a write has ended.
pub(crate) trait Ending: Send {
    /// Redis did it.
    fn done(&mut self);
}

impl<V: Clone + Send + Sync + 'static> Ending for Writing<V> {
    fn done(&mut self) {
        self.end(true);
    }
}

impl<V: Clone + Send + Sync + 'static> Drop for Writing<V> {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// What tier 1 says of a key.
pub(crate) enum Look<V> {
    /// It may be given.
    Fresh(Option<V>),
    /// It is past its TTL by so many milliseconds, and nothing changed it.
    Stale(V, u64),
    /// It may not be given, because what others change is not known.
    Unverified,
    /// Nothing that may be given.
    Nothing,
}

#[derive(Clone, Copy)]
enum Verdict {
    Fresh,
    Stale(u64),
    Unverified,
    Dead,
}

pub(crate) struct Tier1<V> {
    engine: Engine<V>,
    stripes: Stripes,
    wide: Wide,
    pub(crate) tags: Tags,
    /// Loads under way: whoever comes after a change of a key does not join the one that began before.
    pub(crate) flights: Flights<V>,
    pub(crate) clock: Clock,
    hasher: RandomState,
    pub(crate) metrics: Arc<Metrics>,
    planted: Planted,
    prefixes_max: usize,
    /// When the first entry that is known of dies; `u64::MAX`: none is known.
    next_death: AtomicU64,
    /// Rung when that moved closer.
    sooner: Notify,
    /// Held by the one sweep that runs.
    sweeping: Mutex<()>,
}

impl<V> fmt::Debug for Tier1<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier1").field("wide", &self.wide).finish_non_exhaustive()
    }
}

impl<V: Clone + Send + Sync + 'static> Tier1<V> {
    pub(crate) fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            engine: Engine::new(config, &metrics),
            stripes: Stripes::new(config.entries_max),
            wide: Wide::new(),
            tags: Tags::default(),
            flights: Flights::new(),
            clock: config.clock.clone(),
            hasher: RandomState::default(),
            metrics,
            planted: config.planted,
            prefixes_max: config.prefixes_max,
            next_death: AtomicU64::new(u64::MAX),
            sooner: Notify::new(),
            sweeping: Mutex::new(()),
        }
    }

    #[inline]
    pub(crate) fn key<'a>(&self, text: &'a str) -> KeyRef<'a> {
        KeyRef::new(text, &self.hasher)
    }

    /// What may be given of a key. `verified`: what others change is known.
    #[inline]
    pub(crate) fn look(&self, key: KeyRef<'_>, now: u64, verified: bool) -> Look<V> {
        let verdict = Cell::new(Verdict::Dead);
        let value = self.engine.get(key, |terms| verdict.set(self.judge(key, terms, now, verified)));
        match (value, verdict.get()) {
            (Some(value), Verdict::Fresh) => Look::Fresh(value),
            (Some(Some(value)), Verdict::Stale(past)) => Look::Stale(value, past),
            (Some(_), Verdict::Unverified) => Look::Unverified,
            _ => Look::Nothing,
        }
    }

    /// The value of a key if it is fresh and may be given; `None` within: there is no such thing.
    #[inline]
    pub(crate) fn fresh(&self, key: KeyRef<'_>, now: u64, verified: bool) -> Option<Option<V>> {
        let is_fresh = Cell::new(false);
        let value = self.engine.get(key, |terms| {
            let lives = now < terms.fresh_until && (verified || terms.unwatched);
            is_fresh.set(lives && self.stands(key, terms));
        });
        if is_fresh.get() { value } else { None }
    }

    #[inline]
    fn judge(&self, key: KeyRef<'_>, terms: &Terms, now: u64, verified: bool) -> Verdict {
        if !self.stands(key, terms) {
            Verdict::Dead
        } else if now < terms.fresh_until {
            if verified || terms.unwatched { Verdict::Fresh } else { Verdict::Unverified }
        } else if now < terms.dies_at() && verified {
            Verdict::Stale(now - terms.fresh_until)
        } else {
            Verdict::Dead
        }
    }

    #[inline]
    fn stands(&self, key: KeyRef<'_>, terms: &Terms) -> bool {
        self.wide.stands(key, terms.stamp) && terms.tags.stand(terms.stamp)
    }

    /// Whether something a caller may join still stands: a load that was begun under `stamp`.
    pub(crate) fn still_stands(&self, key: KeyRef<'_>, stamp: Stamp, tags: &Tag) -> bool {
        self.wide.admits(key, stamp) && tags.stand(stamp)
    }

    /// To be taken before anything is read that may be kept.
    pub(crate) fn ticket(&self, key: KeyRef<'_>) -> Ticket {
        let stamp = self.wide.now();
        Ticket { epoch: *self.stripes.lock(key.hash), stamp, at: self.clock.now() }
    }

    /// Keeps what was read under a ticket, unless it may have changed since; whether it is kept.
    pub(crate) fn fill(&self, key: KeyRef<'_>, ticket: Ticket, mut entry: Entry<V>) -> bool {
        entry.terms.stamp = ticket.stamp;
        let dies_at = entry.terms.dies_at();
        {
            let epoch = self.stripes.lock(key.hash);
            let unchanged =
                *epoch == ticket.epoch && self.wide.admits(key, ticket.stamp) && entry.terms.tags.stand(ticket.stamp);
            if !unchanged && self.planted != Planted::NoFillGuard {
                self.metrics.raced.inc();
                return false;
            }
            self.engine.insert(key, entry);
        }
        self.dies_at(dies_at);
        true
    }

    /// Forgets a key; what is being read of it now will not be kept, and nobody joins its load. The value that could still
    /// have been given.
    pub(crate) fn forget(&self, key: KeyRef<'_>) -> Option<V> {
        let forgotten = {
            let mut epoch = self.stripes.lock(key.hash);
            *epoch += 1;
            self.engine.remove(key)
        };
        self.flights.detach(key);
        let entry = forgotten?;
        let alive = self.clock.now() < entry.terms.dies_at() && self.stands(key, &entry.terms);
        entry.value.filter(|_| alive)
    }

    /// Keeps a value where there is nothing but this tier.
    pub(crate) fn put(&self, key: KeyRef<'_>, mut entry: Entry<V>) {
        let dies_at = entry.terms.dies_at();
        {
            let mut epoch = self.stripes.lock(key.hash);
            *epoch += 1;
            entry.terms.stamp = self.wide.now();
            self.engine.insert(key, entry);
        }
        self.flights.detach(key);
        self.dies_at(dies_at);
    }

    /// The beginning of a write of this process that is more than a fill: whatever is known of the key is forgotten.
    pub(crate) fn begin_write(self: &Arc<Self>, text: &str, entry: Entry<V>) -> Writing<V> {
        let key = self.key(text);
        self.forget(key);
        Writing { pending: Some((self.ticket(key), entry)), key: text.into(), detaches: true, tier: self.clone() }
    }

    /// The beginning of a write of what was loaded under a ticket.
    pub(crate) fn begin_fill(self: &Arc<Self>, key: KeyRef<'_>, ticket: Ticket, entry: Entry<V>) -> Writing<V> {
        Writing { pending: Some((ticket, entry)), key: key.text.into(), detaches: false, tier: self.clone() }
    }

    /// The end of a write. Of writes that overlapped, and where anybody else wrote meanwhile, nobody here knows which was
    /// last: then nothing is kept.
    fn end_write(&self, key: KeyRef<'_>, ticket: Ticket, entry: Option<Entry<V>>) {
        let mut dies_at = u64::MAX;
        let mut epoch = self.stripes.lock(key.hash);
        let undisturbed = *epoch == ticket.epoch && self.wide.admits(key, ticket.stamp);
        *epoch += 1;
        match entry {
            Some(mut entry) if undisturbed && entry.terms.tags.stand(ticket.stamp) => {
                entry.terms.stamp = ticket.stamp;
                dies_at = entry.terms.dies_at();
                self.engine.insert(key, entry);
            }
            _ => drop(self.engine.remove(key)),
        }
        drop(epoch);
        self.dies_at(dies_at);
    }

    /// Forgets everything, at once.
    pub(crate) fn flush(&self) {
        self.wide.flush();
    }

    /// What was read or learnt under an older version is dead.
    pub(crate) fn floor(&self) -> Stamp {
        self.wide.floor()
    }

    /// Forgets what bears a tag, at once.
    pub(crate) fn forget_tag(&self, tag: &str) {
        self.tags.changed(tag, &self.wide);
    }

    /// Forgets what begins with a prefix, at once; the sweep that is due now removes it.
    pub(crate) fn forget_prefix(&self, prefix: &str) {
        if prefix.is_empty() {
            return self.flush();
        }
        self.wide.forget_prefix(prefix, self.prefixes_max);
        self.dies_at(0);
    }

    /// The version now: older stamps are from before the changes until now.
    pub(crate) fn stamp(&self) -> Stamp {
        self.wide.now()
    }

    pub(crate) fn len(&self) -> usize {
        self.engine.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.engine.bytes()
    }

    #[inline]
    fn dies_at(&self, at: u64) {
        if at < self.next_death.load(Ordering::Relaxed) && at < self.next_death.fetch_min(at, Ordering::AcqRel) {
            self.sooner.notify_one();
        }
    }
}
