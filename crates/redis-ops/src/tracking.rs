//! A handle that hears what others do to the keys it reads.
//!
//! Redis tells over the very connection that carries the commands (`CLIENT TRACKING ON BCAST NOLOOP`, RESP3), one per
//! node. So what was told before a reply is heard before the caller has the reply, and losing what is told and losing
//! replies is the same event: a tracked connection with a late reply is given up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_metrics::{Counter, Registry};

use crate::breaker::BreakerConfig;
use crate::config::{Config, Topology};
use crate::error::Error;
use crate::redis::Redis;
use crate::value::Value;

/// Hears what happens to the keys of a tracked handle. It is called by the task that moves the connection's bytes, so it
/// must return at once and never block.
///
/// What holds for each connection by itself:
///
/// - `connected`, then any number of `invalidated` and `flushed`, then `disconnected`, one call at a time. In a cluster
///   several connections call at the same time.
/// - A push is heard before the caller of any later reply is woken, and after those of earlier replies were. Redis sends
///   what a command changed before it answers that command to anybody, so a read sent after somebody else's write was
///   acknowledged is answered after `invalidated` was called for the write.
/// - Pushes name keys, not databases: keys of that name in another database are heard as well.
/// - This handle's own commands are not heard, its scripts are, after their reply (but for
///   [`Redis::run_unheard`]).
/// - **An own unheard write may hide another's**: Redis tells one change of a key per round of its event loop, the last
///   one. Whoever writes a key over this handle, be it only a new expiry, must take what it knew of the key before for
///   outdated when the reply comes.
/// - `SWAPDB` is not told by Redis.
///
/// An implementation must not own the handle it watches for (nor a clone): the two would keep each other alive.
pub trait Watcher: Send + Sync + std::fmt::Debug + 'static {
    /// A connection (to whichever node) is up and tracks; nothing was sent over it yet. What was written before is unknown.
    fn connected(&self);

    /// A connection that was up is gone. Called before any caller that waits for a reply over it gets its error.
    fn disconnected(&self);

    /// Keys were written, deleted, evicted or have expired. The same key may come several times, in one call too.
    fn invalidated(&self, keys: &[Bytes]);

    /// Anything may have happened to any key: `FLUSHALL`, `FLUSHDB`, or a push that could not be read.
    fn flushed(&self);
}

/// What to hear of, and the bounds of a tracked handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// Keys that begin with one of these; none: all keys. None may begin with another one.
    pub prefixes: Vec<Bytes>,
    /// When a connection over which nothing comes though a reply is due is given up, with all that is in flight over it. 500 ms,
    /// kept to within a twentieth: slower than that, nobody wants a cache. While bytes keep coming, as large replies do, a reply
    /// may take twenty times as long.
    pub command_timeout: Duration,
    /// When the circuit breaker of this handle opens. After 5 failures.
    pub breaker: BreakerConfig,
}

impl Tracking {
    /// The defaults for these prefixes.
    pub fn new(prefixes: Vec<Bytes>) -> Self {
        let breaker = BreakerConfig { consecutive: 5, ..BreakerConfig::default() };
        Self { prefixes, command_timeout: Duration::from_millis(500), breaker }
    }

    /// Redis would refuse them on every connection.
    fn check(&self) -> Result<(), Error> {
        let overlap = |(at, one): (usize, &Bytes)| {
            self.prefixes.iter().enumerate().any(|(other, prefix)| other != at && one.starts_with(prefix))
        };
        match self.prefixes.iter().enumerate().any(overlap) {
            true => Err(Error::Unusable("of the prefixes to be tracked one begins with another".into())),
            false => Ok(()),
        }
    }

    fn config(self, parent: &Redis) -> Config {
        let config = parent.config().clone();
        let topology = match &config.topology {
            // Those learnt since, as the ones of the configuration may be gone.
            Topology::Cluster { .. } => Topology::Cluster { addresses: parent.link().addresses() },
            other => other.clone(),
        };
        Config {
            topology,
            // One: order is within a connection.
            connections: 1,
            pool_min: 1,
            pool_max: 1,
            grace: Duration::ZERO,
            command_timeout: self.command_timeout,
            breaker: self.breaker,
            ..config
        }
    }
}

impl Redis {
    /// A second handle to the same Redis, over connections of its own (one per node) that tell `watcher` what others do to
    /// the keys of `tracking`. It has a breaker of its own; a call while its connection is down fails at once as not
    /// sent. It lives until its last clone is dropped, or until it or the handle it was made from is closed.
    ///
    /// Waits for the connections for up to `tracking.command_timeout`; one that is not up by then is still being made, and
    /// [`Watcher::connected`] tells. So it does not fail because Redis is away, or does not let us track
    /// ([`Health::last_error`](crate::Health::last_error) says so then).
    ///
    /// The connections speak RESP3: maps come as one flat array, scores as [`Value::Double`].
    ///
    /// Errors: [`Error::Unusable`] where one prefix begins with another, `CLOSED`.
    pub async fn track(&self, tracking: Tracking, watcher: Arc<dyn Watcher>) -> Result<Self, Error> {
        tracking.check()?;
        if self.core().closing.is_cancelled() {
            return Err(Error::closed());
        }
        let ears = Ears::new(tracking.prefixes.clone(), watcher, self.registry());
        let patience = tracking.command_timeout;
        let stats = self.core().stats.tracked(self.registry());
        let core = self.core().beside(tracking.config(self), stats, Arc::new(ears));
        Ok(self.beside(core, patience).await)
    }
}

/// Reads pushes for a watcher.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) prefixes: Vec<Bytes>,
    watcher: Arc<dyn Watcher>,
    invalidated: Counter,
    flushed: Counter,
    unknown: Counter,
}

impl Ears {
    fn new(prefixes: Vec<Bytes>, watcher: Arc<dyn Watcher>, registry: &Registry) -> Self {
        let pushes = |kind| {
            let help = "What Redis told over tracked connections.";
            registry.counter_with("tidegate_redis_pushes_total", help, &[("kind", kind)])
        };
        let (invalidated, flushed, unknown) = (pushes("invalidate"), pushes("flush"), pushes("unknown"));
        Self { prefixes, watcher, invalidated, flushed, unknown }
    }

    fn hear(&self, push: Result<Value, Error>) {
        match read(push) {
            Push::Invalidated(keys) => {
                self.invalidated.inc();
                self.watcher.invalidated(&keys);
            }
            Push::Flushed => {
                self.flushed.inc();
                self.watcher.flushed();
            }
            Push::Unknown => self.unknown.inc(),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Push {
    Invalidated(Vec<Bytes>),
    Flushed,
    Unknown,
}

/// `[invalidate, [key, …]]` or `[invalidate, null]`. What cannot be read may have named any key.
fn read(push: Result<Value, Error>) -> Push {
    let Ok(Value::Array(parts)) = push else { return Push::Flushed };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(Value::Bytes(kind)), Some(Value::Array(keys))) if kind == "invalidate" => {
            let keys: Result<_, Error> = keys.into_iter().map(Value::into_bytes).collect();
            keys.map_or(Push::Flushed, Push::Invalidated)
        }
        (Some(Value::Bytes(kind)), _) if kind != "invalidate" => Push::Unknown,
        _ => Push::Flushed,
    }
}

/// One tracked connection: its watcher hears of its beginning and of its end once each, and of nothing after the end.
#[derive(Debug)]
pub(crate) struct Bond {
    ears: Arc<Ears>,
    /// Held while the watcher is called.
    is_up: Mutex<bool>,
}

impl Bond {
    pub(crate) fn new(ears: Arc<Ears>) -> Self {
        ears.watcher.connected();
        Self { ears, is_up: Mutex::new(true) }
    }

    pub(crate) fn hear(&self, push: Result<Value, Error>) {
        let is_up = self.is_up.lock();
        if *is_up {
            self.ears.hear(push);
        }
    }

    pub(crate) fn lost(&self) {
        let mut is_up = self.is_up.lock();
        if std::mem::take(&mut *is_up) {
            self.ears.watcher.disconnected();
        }
    }
}

impl Drop for Bond {
    fn drop(&mut self) {
        self.lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Value {
        Value::Bytes(text.into())
    }

    #[test]
    fn what_cannot_be_read_may_have_named_any_key() {
        let invalidate = |what| read(Ok(Value::Array(vec![bytes("invalidate"), what])));
        assert_eq!(invalidate(Value::Array(vec![bytes("a")])), Push::Invalidated(vec!["a".into()]));
        assert_eq!(invalidate(Value::Nil), Push::Flushed);
        assert_eq!(invalidate(Value::Array(vec![bytes("a"), Value::Int(1)])), Push::Flushed);
        assert_eq!(invalidate(bytes("a")), Push::Flushed);
        assert_eq!(read(Ok(Value::Array(vec![bytes("invalidate")]))), Push::Flushed);
        assert_eq!(read(Ok(Value::Array(Vec::new()))), Push::Flushed);
        assert_eq!(read(Ok(Value::Nil)), Push::Flushed);
        assert_eq!(read(Err(Error::lost("x"))), Push::Flushed);
        assert_eq!(read(Ok(Value::Array(vec![bytes("message"), bytes("c"), bytes("m")]))), Push::Unknown);
    }

    #[test]
    fn prefixes_that_redis_would_refuse_are_refused_at_once() {
        let check = |prefixes: &[&'static str]| {
            Tracking::new(prefixes.iter().map(|prefix| Bytes::from_static(prefix.as_bytes())).collect()).check()
        };
        assert!(check(&[]).is_ok() && check(&[""]).is_ok() && check(&["a:", "b:"]).is_ok());
        for overlapping in [["a", "ab"], ["ab", "a"], ["a", "a"], ["", "a"]] {
            assert!(check(&overlapping).is_err(), "{overlapping:?}");
        }
    }
}
