//! What Redis tells of others' changes, and who waits for one.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tidegate_redis_ops::Watcher;
use tokio::sync::Notify;

use super::Local;
use super::keys::{Keys, Told};
use super::session::Sessions;
use crate::config::Planted;
use crate::stats::Metrics;

/// Called on the task of the connection, in Redis's order: nothing waits between Redis and tier 1, so nothing can lag.
#[derive(Debug)]
pub(super) struct Ear {
    keys: Arc<Keys>,
    sessions: Arc<Sessions>,
    rings: Arc<Rings>,
    local: Arc<dyn Local>,
    metrics: Arc<Metrics>,
    planted: Planted,
}

impl Ear {
    pub(super) fn new(
        keys: &Arc<Keys>,
        sessions: &Arc<Sessions>,
        rings: &Arc<Rings>,
        local: &Arc<dyn Local>,
        metrics: &Arc<Metrics>,
        planted: Planted,
    ) -> Self {
        Self {
            keys: keys.clone(),
            sessions: sessions.clone(),
            rings: rings.clone(),
            local: local.clone(),
            metrics: metrics.clone(),
            planted,
        }
    }

    /// Nobody knows any more what others changed.
    fn lost(&self) {
        if self.planted == Planted::LostLinkIgnored {
            return;
        }
        self.sessions.lost();
        self.local.flush();
    }
}

impl Watcher for Ear {
    fn connected(&self) {
        self.lost();
    }

    fn disconnected(&self) {
        self.metrics.flushes.inc();
        self.lost();
        self.rings.all();
    }

    fn invalidated(&self, keys: &[Bytes]) {
        for key in keys {
            match self.keys.told(key) {
                Told::Value(key) => {
                    self.metrics.invalidations.inc();
                    self.local.forget(key);
                    self.rings.ring(key);
                }
                Told::Tag(tag) => self.local.forget_tag(tag),
                Told::Namespace => self.sessions.changed(self.local.now()),
                Told::Other => {}
            }
        }
    }

    fn flushed(&self) {
        if self.planted != Planted::FlushIgnored {
            self.metrics.flushes.inc();
            self.lost();
        }
        self.rings.all();
    }
}

/// Those who wait for somebody else's load.
#[derive(Debug, Default)]
pub(crate) struct Rings(Mutex<HashMap<Box<str>, Ring, RandomState>>);

#[derive(Debug, Default)]
struct Ring {
    bell: Arc<Notify>,
    waiting: usize,
}

/// A place among them.
#[derive(Debug)]
pub(crate) struct Changes {
    rings: Arc<Rings>,
    key: Box<str>,
    bell: Arc<Notify>,
}

impl Rings {
    pub(super) fn of(self: &Arc<Self>, key: &str) -> Changes {
        let mut rings = self.0.lock();
        let ring = rings.entry_ref(key).or_default();
        ring.waiting += 1;
        Changes { rings: self.clone(), key: key.into(), bell: ring.bell.clone() }
    }

    fn ring(&self, key: &str) {
        if let Some(ring) = self.0.lock().get(key) {
            // Stays rung for one who is about to wait; of a process, one flight waits for a key.
            ring.bell.notify_one();
        }
    }

    fn all(&self) {
        self.0.lock().values().for_each(|ring| ring.bell.notify_one());
    }
}

impl Changes {
    /// Until the key was changed since this was taken.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let mut rings = self.rings.0.lock();
        if let Some(ring) = rings.get_mut(&*self.key) {
            ring.waiting -= 1;
            if ring.waiting == 0 {
                rings.remove(&*self.key);
            }
        }
    }
}
