//! What a queue hears from Redis without asking: that there is something to claim, and which running job should stop.
//!
//! Whoever found nothing to claim says so in the same call; whoever makes something claimable then sends one message. While
//! the link that brings it is up and no message has come, the queue is known to be empty, and further claims need not ask.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_redis_ops::Signal;
use tokio::sync::{Notify, broadcast};

use super::queue::Shared;
use super::record::number_in;
use crate::JobId;

/// Cancels a receiver may be behind; beats bring what it missed.
const CANCELS_LAG: usize = 1024;

/// The ear of a queue.
#[derive(Default)]
pub(super) struct Watch {
    has_begun: AtomicBool,
    /// The link is up.
    live: AtomicBool,
    /// Counts everything that may have made something claimable.
    news: AtomicU64,
    /// The news when it was found empty.
    empty_at: AtomicU64,
    /// The last push of this process was given up: it may happen later.
    unknown: AtomicBool,
    /// Rung with every piece of news.
    pub(super) arrivals: Notify,
    cancels: OnceLock<broadcast::Sender<JobId>>,
}

impl Watch {
    /// What has been heard so far; to be read before a call that finds the queue empty.
    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::SeqCst)
    }

    /// Somebody asked after `news` and got less than was wanted; Redis will tell when there is more.
    pub(super) fn found_empty(&self, news: u64) {
        if self.live.load(Ordering::SeqCst) {
            // 0 means never.
            self.empty_at.store(news + 1, Ordering::SeqCst);
        }
    }

    /// Whether there is certainly nothing to claim.
    pub(super) fn is_empty(&self) -> bool {
        self.live.load(Ordering::SeqCst) && self.empty_at.load(Ordering::SeqCst) == self.news() + 1
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    /// There may be something to claim now.
    pub(super) fn ring(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
        self.arrivals.notify_waiters();
    }

    pub(super) fn set_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, Ordering::SeqCst);
    }

    fn is_unknown(&self) -> bool {
        self.unknown.load(Ordering::SeqCst)
    }

    fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn cancels(&self) -> broadcast::Receiver<JobId> {
        self.cancels.get_or_init(|| broadcast::channel(CANCELS_LAG).0).subscribe()
    }
}

impl Shared {
    /// Begins to listen, once.
    pub(super) fn listen(self: &Arc<Self>) {
        if !self.watch.has_begun.swap(true, Ordering::SeqCst) {
            let subscription = self.redis.subscribe(self.keys.wake());
            let shared = Arc::downgrade(self);
            let mut reconnects = self.redis.reconnects();
            let listening = async move {
                let mut subscription = subscription;
                loop {
                    let signal = tokio::select! {
                        signal = subscription.next() => Some(signal),
                        Ok(()) = reconnects.changed() => None,
                    };
                    let Some(shared) = shared.upgrade() else { return };
                    match signal {
                        Some(signal) => shared.hear(signal),
                        // A Redis that comes back may have forgotten who waits.
                        None => shared.watch.ring(),
                    }
                }
            };
            self.spawn(listening);
        }
    }

    fn hear(&self, signal: Signal) {
        match signal {
            Signal::Subscribed => self.watch.set_live(true),
            Signal::Lost => self.watch.set_live(false),
            Signal::Missed => self.watch.ring(),
            Signal::Message(message) => match message.split_first() {
                // A push of this process has rung here itself, but for one that was given up and came late.
                Some((b'w', who)) if who == self.process.as_bytes() && !self.watch.is_unknown() => {}
                Some((b'w', _)) => self.watch.ring(),
                Some((b'c', id)) if id.len() == 6 => {
                    if let Some(cancels) = self.watch.cancels.get() {
                        // Nobody may be left to hear it.
                        let _ = cancels.send(self.id(number_in(id)));
                    }
                }
                _ => tracing::warn!(queue = %self.name, "a message of an unknown kind on the wake-up channel"),
            },
        }
    }

    /// How long a claim may wait without asking again while no message can come.
    pub(super) fn deaf_wait(&self) -> Duration {
        self.config.lease / 5
    }
}
