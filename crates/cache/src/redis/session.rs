//! What this process knows of the cache as a whole, and how long that holds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Inner, fresh_generation, number, scripts};
use crate::clock::millis;
use crate::config::{Config, Planted};
use crate::error::Error;

/// After a change of many keys memory is believed for this part of what it would be.
const CHANGE_PART: u64 = 20;
/// After a failure the next try waits so long; reads go past tier 1 meanwhile.
const RETRY: Duration = Duration::from_millis(10);

/// So long after a failure others get the same instead of trying themselves: a silent Redis costs one of them its patience.
const SHARED_FAILURE_MS: u64 = 100;

/// The state of the cache on Redis, as it was learnt over the link that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: u64,
    /// The number of the last prefix invalidated.
    pub(super) sequence: u64,
    /// Values begun before this number must not be written any more.
    pub(super) unlisted: u64,
    /// Prefixes whose values begun before a number are dead.
    prefixes: Vec<(Box<str>, u64)>,
    /// What the clock of Redis is ahead of ours.
    ahead: i64,
}

impl Session {
    /// Whether a value of this key begun under `sequence` is dead.
    pub(super) fn covers(&self, key: &str, sequence: u64) -> bool {
        sequence < self.sequence
            && self.prefixes.iter().any(|(prefix, number)| *number > sequence && key.starts_with(&**prefix))
    }

    /// An instant of Redis by our clock.
    pub(super) fn local(&self, instant: u64) -> u64 {
        instant.saturating_add_signed(-self.ahead)
    }

    /// An instant of ours by the clock of Redis.
    pub(super) fn remote(&self, instant: u64) -> u64 {
        instant.saturating_add_signed(self.ahead)
    }
}

#[derive(Debug, Default)]
struct Learning {
    last: Option<Arc<Session>>,
    /// Its number among all.
    number: u64,
    /// Who the primaries are, and the link it was learnt over.
    runs: Option<(u64, Vec<Bytes>)>,
    /// The turn and the instant of the last failure: those who queued behind it share it.
    failed: Option<(u64, u64, Error)>,
}

#[derive(Debug)]
pub(super) struct Sessions {
    /// Moves with everything that makes the session out of date; what was learnt before is not used.
    turn: AtomicU64,
    /// Moves with every link that is lost or made.
    link: AtomicU64,
    /// How often it was begun to learn.
    begun: AtomicU64,
    /// Held to copy or replace it, and to move `turn`.
    current: RwLock<Option<Arc<Session>>>,
    /// Held by the one who learns.
    learning: Mutex<Learning>,
    /// Held by the one who verifies.
    verifying: Mutex<()>,
    /// Until when tier 1 may be believed.
    verified_until: AtomicU64,
    /// Somebody wants it verified.
    wanted: Notify,
    is_wanted: AtomicBool,
    /// H, less what clocks and messages are imprecise by.
    lasts: u64,
    planted: Planted,
}

impl Sessions {
    pub(super) fn new(config: &Config) -> Self {
        let whole = millis(config.staleness_max);
        Self {
            turn: AtomicU64::new(0),
            link: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            current: RwLock::new(None),
            learning: Mutex::default(),
            verifying: Mutex::new(()),
            verified_until: AtomicU64::new(0),
            wanted: Notify::new(),
            is_wanted: AtomicBool::new(false),
            lasts: whole - whole / 10,
            planted: config.planted,
        }
    }

    /// H.
    pub(super) fn staleness(&self) -> Duration {
        Duration::from_millis(self.lasts / 9 * 10)
    }

    /// Nobody knows any more what others changed.
    pub(super) fn lost(&self) {
        self.link.fetch_add(1, Ordering::SeqCst);
        self.unknown();
    }

    /// What was known may be wrong altogether.
    pub(super) fn unknown(&self) {
        let mut current = self.current.write();
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.verified_until.store(0, Ordering::SeqCst);
        *current = None;
    }

    /// Something that covers many keys was changed, and is asked for at once. Memory is believed for a moment longer, far less
    /// than it may be: whoever invalidates prefixes in a loop must not keep others from what is near.
    pub(super) fn changed(&self, now: u64) {
        {
            let mut current = self.current.write();
            self.turn.fetch_add(1, Ordering::SeqCst);
            self.verified_until.fetch_min(now + self.lasts / CHANGE_PART, Ordering::SeqCst);
            *current = None;
        }
        self.want();
    }

    #[inline]
    pub(super) fn is_verified(&self, now: u64) -> bool {
        if self.planted == Planted::SilenceTrusted && self.current.read().is_some() {
            return true;
        }
        let until = self.verified_until.load(Ordering::SeqCst);
        // Renewed by those who read, when half of it is over: a cache nobody reads asks nothing.
        if now + self.lasts / 2 >= until {
            self.want();
        }
        now < until
    }

    #[cold]
    fn want(&self) {
        if !self.is_wanted.swap(true, Ordering::SeqCst) {
            self.wanted.notify_one();
        }
    }

    /// What is known, or is learnt now: in any case not before this was called.
    pub(super) async fn current(&self, inner: &Inner) -> Result<Arc<Session>, Error> {
        if let Some(session) = self.current.read().clone() {
            return Ok(session);
        }
        let begun = self.begun.load(Ordering::SeqCst);
        let mut learning = self.learning.lock().await;
        if let Some(session) = self.current.read().clone() {
            return Ok(session);
        }
        // One that was begun since serves all who waited.
        match &learning.last {
            Some(session) if learning.number > begun => return Ok(session.clone()),
            _ => {}
        }
        let turn = self.turn.load(Ordering::SeqCst);
        if let Some((failed, at, error)) = &learning.failed
            && *failed == turn
            && inner.local.now() < at + SHARED_FAILURE_MS
        {
            return Err(error.clone());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let session = match self.learn(inner, &mut learning.runs).await {
            Ok(session) => Arc::new(session),
            Err(error) => {
                learning.failed = Some((turn, inner.local.now(), error.clone()));
                return Err(error);
            }
        };
        // Before anybody can use it: what it says has changed is forgotten here.
        forget_changed(inner, learning.last.as_deref(), &session);
        learning.last = Some(session.clone());
        learning.number = number;
        let mut current = self.current.write();
        if self.turn.load(Ordering::SeqCst) == turn {
            *current = Some(session.clone());
        }
        // What has changed since is news for the next one.
        Ok(session)
    }

    /// Makes sure that tier 1 may be believed; those who want it at the same time share one proof.
    async fn verified(&self, inner: &Inner) -> Result<(), Error> {
        let _one = self.verifying.lock().await;
        match inner.local.now() + self.lasts / 2 < self.verified_until.load(Ordering::SeqCst) {
            true => Ok(()),
            false => self.verify(inner).await,
        }
    }

    /// Proves that everything others were told is done before now is known here.
    pub(super) async fn verify(&self, inner: &Inner) -> Result<(), Error> {
        let session = self.current(inner).await?;
        let turn = self.turn.load(Ordering::SeqCst);
        let began = inner.local.now();
        inner.redis.ping_all().await?;
        let name = inner.keys.namespace.clone();
        let args = vec![name.clone(), Bytes::from_static(b"generation")];
        // Also keeps it from being the first to be evicted.
        let reply = inner.redis.command("HGET", Some(name), args).await?;
        if reply.is_nil() || number(&reply)? != session.generation {
            self.unknown();
            self.current(inner).await?;
            return Ok(());
        }
        let current = self.current.write();
        if self.turn.load(Ordering::SeqCst) == turn && current.is_some() {
            self.verified_until.store(began + self.lasts, Ordering::SeqCst);
        }
        Ok(())
    }
}

fn forget_changed(inner: &Inner, last: Option<&Session>, session: &Session) {
    match last {
        // Not: listed and unlisted while nobody here looked.
        Some(last) if last.generation == session.generation && session.unlisted <= last.sequence => {
            let news = session.prefixes.iter().filter(|listed| !last.prefixes.contains(listed));
            news.for_each(|(prefix, _)| inner.local.forget_prefix(prefix));
        }
        Some(_) => {
            inner.metrics.flushes.inc();
            inner.local.flush();
        }
        None => inner.local.flush(),
    }
}

impl Sessions {
    async fn learn(&self, inner: &Inner, runs: &mut Option<(u64, Vec<Bytes>)>) -> Result<Session, Error> {
        let mut args = vec![super::decimal(fresh_generation())];
        if self.planted != Planted::RestartIgnored {
            let link = self.link.load(Ordering::SeqCst);
            if runs.as_ref().is_none_or(|(learnt, _)| *learnt != link) {
                *runs = Some((link, inner.redis.run_ids().await?));
            }
            args.extend(runs.iter().flat_map(|(_, ids)| ids.iter().cloned()));
        }
        join(inner, &args).await
    }
}

async fn join(inner: &Inner, args: &[Bytes]) -> Result<Session, Error> {
    let before = inner.local.now();
    let reply = inner.redis.run(&scripts::JOIN, std::slice::from_ref(&inner.keys.namespace), args).await?;
    let after = inner.local.now();
    let parts = reply.into_array()?;
    let [generation, sequence, unlisted, time, prefixes] = &parts[..] else {
        return Err(tidegate_redis_ops::Error::Reply { expected: "five parts", got: "another number of them" }.into());
    };
    let listed = prefixes.clone().into_array()?;
    let prefixes = listed
        .chunks_exact(2)
        .map(|pair| Ok((pair[0].as_str()?.into(), number(&pair[1])?)))
        .collect::<Result<_, Error>>()?;
    let here = before + (after - before) / 2;
    Ok(Session {
        generation: number(generation)?,
        sequence: number(sequence)?,
        unlisted: number(unlisted)?,
        prefixes,
        ahead: number(time)? as i64 - here as i64,
    })
}

impl Inner {
    /// What is known, and that it is no older than H: for those who are about to write what they began long ago.
    pub(super) async fn verified_session(&self) -> Result<Arc<Session>, Error> {
        if !self.sessions.is_verified(self.local.now()) {
            self.sessions.verified(self).await?;
        }
        self.session().await
    }
}

/// Verifies when somebody wants it, until the end.
pub(super) async fn keep_verified(inner: Weak<Inner>, stop: CancellationToken) {
    let Some(sessions) = inner.upgrade().map(|inner| inner.sessions.clone()) else { return };
    let wanted = async {
        loop {
            sessions.wanted.notified().await;
            let Some(inner) = inner.upgrade() else { return };
            let verified = sessions.verified(&inner).await;
            drop(inner);
            if verified.is_err() {
                sleep(RETRY).await;
            }
            sessions.is_wanted.store(false, Ordering::SeqCst);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = wanted => {}
    }
}
