//! What all connections of one Redis share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::breaker::Breaker;
use crate::config::Config;
use crate::stats::Stats;
use crate::tracking::Ears;
use crate::wire::Dialer;

/// Shared by lanes, link and subscriber.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) dialer: Dialer,
    pub(crate) stats: Stats,
    pub(crate) breaker: Breaker,
    /// Who hears what the connections are told; every general connection is a tracked one then.
    pub(crate) ears: Option<Arc<Ears>>,
    /// Every task of ours; they end when `closing` is cancelled.
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// Counts connections that came up: wakes those who wait for one.
    pub(crate) came_up: watch::Sender<u64>,
    /// Counts connections that came up *again*.
    pub(crate) reconnects: watch::Sender<u64>,
    /// The table of a cluster may be out of date.
    pub(crate) table_stale: Notify,
    /// Held to read or replace the text.
    last_error: Mutex<Option<String>>,
    /// Something went wrong since a connection last came up again.
    is_out: AtomicBool,
}

impl Core {
    pub(crate) fn new(dialer: Dialer, stats: Stats) -> Self {
        Self::with(dialer, stats, CancellationToken::new(), None)
    }

    /// Of tracked connections; they end when this one closes.
    pub(crate) fn beside(&self, config: Config, stats: Stats, ears: Arc<Ears>) -> Self {
        let core = Self::with(self.dialer.with_config(Arc::new(config)), stats, self.closing.child_token(), Some(ears));
        let (closing, tasks) = (core.closing.clone(), core.tasks.clone());
        // Whoever waits for the end of all tasks here waits for those as well.
        self.tasks.spawn(async move {
            closing.cancelled().await;
            tasks.close();
            tasks.wait().await;
        });
        core
    }

    fn with(dialer: Dialer, stats: Stats, closing: CancellationToken, ears: Option<Arc<Ears>>) -> Self {
        let config = dialer.config.clone();
        Self {
            breaker: Breaker::new(config.breaker.clone()),
            config,
            dialer,
            stats,
            tasks: TaskTracker::new(),
            closing,
            ears,
            came_up: watch::Sender::new(0),
            reconnects: watch::Sender::new(0),
            table_stale: Notify::new(),
            last_error: Mutex::new(None),
            is_out: AtomicBool::new(false),
        }
    }

    /// A general connection is up.
    pub(crate) fn up(&self, again: bool) {
        self.stats.connected.add(1.0);
        self.breaker.restored();
        self.came_up.send_modify(|count| *count += 1);
        if again {
            self.stats.reconnects.inc();
            // Told once per outage, as its beginning was.
            if self.is_out.swap(false, Ordering::Relaxed) {
                tracing::info!(tracked = self.ears.is_some(), "Redis link is back");
            }
        }
    }

    /// A general connection is about to be used in place of a lost one: counted before the first reply over it, so that
    /// whoever has a reply knows whether another Redis may have given it.
    pub(crate) fn reconnected(&self) {
        self.reconnects.send_modify(|count| *count += 1);
    }

    /// A general connection is gone.
    pub(crate) fn down(&self, why: &str) {
        self.stats.connected.sub(1.0);
        self.table_stale.notify_one();
        self.failed(why);
    }

    /// Remembers what went wrong on the link. Texts carry no credentials: they come from the system or from Redis.
    pub(crate) fn failed(&self, why: &str) {
        if self.closing.is_cancelled() {
            return;
        }
        let mut last = self.last_error.lock();
        if !self.is_out.swap(true, Ordering::Relaxed) || last.as_deref() != Some(why) {
            tracing::warn!(why, tracked = self.ears.is_some(), "Redis link");
            *last = Some(why.to_owned());
        }
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }
}
