//! Removing what nobody will be given any more, without waiting for callers.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Tier1;
use crate::clock::Clock;

/// Sweeps are at least this far apart.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A sweep is followed by a pause of so many times its duration: at most one per cent of a core.
const PAUSE_FACTOR: u32 = 100;

impl<V: Clone + Send + Sync + 'static> Tier1<V> {
    /// Walks all entries once, on this thread, and removes the dead; how many had expired.
    pub(crate) fn sweep(&self, now: u64) -> u64 {
        let _one = self.sweeping.lock();
        let prefixes = self.wide.prefixes();
        // What is kept from here on says itself when it dies.
        self.next_death.store(u64::MAX, Ordering::SeqCst);
        let (expired, next) = (Cell::new(0), Cell::new(u64::MAX));
        self.engine.retain(|key, terms, _| {
            let dies_at = terms.dies_at();
            let is_expired = dies_at <= now;
            if is_expired {
                expired.set(expired.get() + 1);
                return false;
            }
            let stands = self.stands(key.as_ref(), terms);
            if stands {
                next.set(next.get().min(dies_at));
            }
            stands
        });
        self.wide.swept(&prefixes);
        self.dies_at(next.get());
        self.metrics.expirations.add(expired.get());
        expired.get()
    }

    /// Forgets what begins with `prefix`, at once, then removes it, on this thread, and says how many values of it could
    /// still have been given.
    pub(crate) fn clear(&self, prefix: &str, now: u64) -> u64 {
        let stamp = self.wide.forget_prefix(prefix, usize::MAX);
        let _one = self.sweeping.lock();
        let cleared = Cell::new(0);
        self.engine.retain(|key, terms, value| {
            if terms.stamp >= stamp || !key.text().starts_with(prefix) {
                return true;
            }
            if value.is_some() && now < terms.dies_at() && self.wide.is_above_floor(terms.stamp) {
                cleared.set(cleared.get() + u64::from(terms.tags.stand(terms.stamp)));
            }
            false
        });
        self.wide.swept(&[(prefix.into(), stamp)]);
        cleared.get()
    }

    /// Sweeps when something is due, until `stop`. While nothing is, there is no timer.
    pub(crate) async fn keep_swept(self: Arc<Self>, clock: Clock, stop: CancellationToken) {
        let mut not_before = Instant::now();
        loop {
            let next = self.next_death.load(Ordering::SeqCst);
            let due = async {
                if next == u64::MAX {
                    return std::future::pending().await;
                }
                let wait = Duration::from_millis(next.saturating_sub(clock.now()).saturating_add(1));
                sleep_until(not_before.max(Instant::now() + wait)).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sooner.notified() => continue,
                () = due => {}
            }
            let (tier, now, started) = (self.clone(), clock.now(), Instant::now());
            if tokio::task::spawn_blocking(move || tier.sweep(now)).await.is_err() {
                return;
            }
            not_before = Instant::now() + PAUSE_MIN.max(started.elapsed() * PAUSE_FACTOR);
        }
    }
}
