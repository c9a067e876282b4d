//! Removing from Redis what is dead already.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_redis_ops::DeleteOptions;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Inner, Tier2, decimal, fresh_generation, scripts};
use crate::error::Error;

/// How long a prefix stays listed after its values are swept: longer than anybody is without news of it.
const LISTED: Duration = Duration::from_secs(15);
/// After a failure the next try waits so long.
const RETRY: Duration = Duration::from_secs(1);

/// Prefixes to be swept, one after the other.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// Held to add one or take those out that are due.
    waiting: Mutex<VecDeque<Sweep>>,
    more: Notify,
}

#[derive(Clone, Debug)]
struct Sweep {
    prefix: Box<str>,
    number: u64,
    unlist_at: Instant,
    is_swept: bool,
}

impl Sweep {
    fn is(&self, other: &Self) -> bool {
        self.prefix == other.prefix && self.number == other.number
    }
}

/// Sweeps when there is something to sweep, until the end.
pub(super) async fn keep_swept(inner: Weak<Inner>, stop: CancellationToken) {
    let work = async {
        let Some(sweeps) = inner.upgrade().map(|inner| inner.sweeps.clone()) else { return };
        let mut next: Option<Instant> = None;
        loop {
            tokio::select! {
                () = sweeps.more.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let Some(tier2) = inner.upgrade().map(Tier2) else { return };
            next = tier2.sweep_due().await.unwrap_or_else(|error| {
                // What is not swept now is tried again, and expires anyway.
                tracing::debug!(%error, "a sweep of the cache was not finished");
                Some(Instant::now() + RETRY)
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Inner {
    fn listed(&self) -> Duration {
        LISTED.max(self.sessions.staleness() * 4)
    }
}

impl Tier2 {
    /// All values whose keys begin with `prefix` are dead. Gives its number; `0`: all values are dead.
    pub(crate) async fn change_prefix(&self, prefix: &str) -> Result<u64, Error> {
        let inner = &self.0;
        let most = u64::try_from(inner.prefixes_max).unwrap_or(u64::MAX);
        let args = [Bytes::copy_from_slice(prefix.as_bytes()), decimal(most), decimal(fresh_generation())];
        let namespace = std::slice::from_ref(&inner.keys.namespace);
        let number = inner.redis.run(&scripts::PREFIX, namespace, &args).await?.as_int()?;
        // Redis tells us as well, but after its reply.
        inner.sessions.unknown();
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Deletes the values whose keys begin with `prefix` and says how many.
    pub(crate) async fn sweep(
        &self,
        prefix: &str,
        progress: impl FnMut(u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let inner = &self.0;
        let pattern = inner.keys.pattern(prefix);
        Ok(inner.redis.delete_matching(pattern, DeleteOptions::default(), progress, cancel).await?)
    }

    /// Sweeps in the background, and later lists the prefix no more. When too much waits already it stays: what it covers
    /// expires.
    pub(crate) fn sweep_later(&self, prefix: &str, number: u64) {
        let sweeps = &self.0.sweeps;
        let mut waiting = sweeps.waiting.lock();
        if let Some(known) = waiting.iter_mut().find(|known| *known.prefix == *prefix) {
            known.number = number;
            known.unlist_at = Instant::now() + self.0.listed();
        } else if waiting.len() < self.0.prefixes_max {
            let unlist_at = Instant::now() + self.0.listed();
            waiting.push_back(Sweep { prefix: prefix.into(), number, unlist_at, is_swept: false });
        }
        drop(waiting);
        sweeps.more.notify_one();
    }

    /// Sweeps and unlists what is due; when the next is.
    async fn sweep_due(&self) -> Result<Option<Instant>, Error> {
        let sweeps = &self.0.sweeps;
        loop {
            let next = sweeps.waiting.lock().iter().find(|sweep| !sweep.is_swept).cloned();
            let Some(sweep) = next else { break };
            self.sweep(&sweep.prefix, |_| {}, &self.0.stop).await?;
            sweeps.waiting.lock().iter_mut().filter(|known| known.is(&sweep)).for_each(|known| known.is_swept = true);
        }
        let (due, later): (VecDeque<Sweep>, VecDeque<Sweep>) = {
            let mut waiting = sweeps.waiting.lock();
            std::mem::take(&mut *waiting).into_iter().partition(|sweep| sweep.unlist_at <= Instant::now())
        };
        let next = later.iter().map(|sweep| sweep.unlist_at).min();
        sweeps.waiting.lock().extend(later);
        for sweep in due.iter().filter(|sweep| sweep.number > 0) {
            self.unlist(&sweep.prefix, sweep.number).await?;
        }
        Ok(next)
    }

    async fn unlist(&self, prefix: &str, number: u64) -> Result<(), Error> {
        let args = [Bytes::copy_from_slice(prefix.as_bytes()), decimal(number)];
        let namespace = std::slice::from_ref(&self.0.keys.namespace);
        self.0.redis.run(&scripts::UNLIST, namespace, &args).await?;
        Ok(())
    }
}
