//! Removing from Redis what is dead already.
//!
//! A prefix that was invalidated stays *listed* for a while: values of it may still be on their way from those who have not
//! heard. When none can be any more, one walk over the keys removes what is dead of all prefixes whose time has come, and
//! they are listed no more.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tidegate_redis_ops::ScanOptions;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::keys::Told;
use super::{Inner, Tier2, decimal, fresh_generation, record, scripts};
use crate::error::Error;

/// How long a prefix stays listed: longer than anybody is without news of it, and than a write may be on its way.
const LISTED: Duration = Duration::from_secs(15);
/// After a failure the next try waits so long.
const RETRY: Duration = Duration::from_secs(1);
/// A walk is followed by a pause of so many times its duration.
const PAUSE_FACTOR: u32 = 4;
/// `COUNT` of the `SCAN` calls: ten times as many bring the stall of `KEYS` back.
const PAGE: u32 = 1000;
/// Values looked at by one script: well under a millisecond.
const BATCH: usize = 250;

/// Prefixes to be swept.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// Held to add one or take those out that are due.
    waiting: Mutex<VecDeque<Sweep>>,
    more: Notify,
}

/// Values of a prefix begun before a number are dead; those of other generations are anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sweep {
    prefix: Box<str>,
    /// Zero: it is listed nowhere, as everything was invalidated.
    number: u64,
    due: Instant,
}

/// Sweeps when something is due, until the end.
pub(super) async fn keep_swept(inner: Weak<Inner>, stop: CancellationToken) {
    let work = async {
        let Some(sweeps) = inner.upgrade().map(|inner| inner.sweeps.clone()) else { return };
        let mut not_before = Instant::now();
        loop {
            let next = sweeps.waiting.lock().iter().map(|sweep| sweep.due).min();
            tokio::select! {
                () = sweeps.more.notified() => continue,
                () = sleep_until(next.unwrap_or(not_before).max(not_before)), if next.is_some() => {}
            }
            let Some(tier2) = inner.upgrade().map(Tier2) else { return };
            let started = Instant::now();
            let swept = tier2.sweep_due(&sweeps).await;
            not_before = match swept {
                Ok(()) => Instant::now() + started.elapsed() * PAUSE_FACTOR,
                Err(error) => {
                    // What is not swept now is tried again, and expires anyway.
                    tracing::debug!(%error, "a sweep of the cache was not finished");
                    Instant::now() + RETRY
                }
            };
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
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
        inner.sessions.changed(inner.local.now());
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Has what is dead of a prefix removed when its time has come, and the prefix listed no more. When too much waits
    /// already it stays: what it covers expires.
    pub(crate) fn sweep_later(&self, prefix: &str, number: u64) {
        let sweeps = &self.0.sweeps;
        let listed = LISTED.max(self.0.sessions.staleness() * 4);
        let due = Instant::now() + if number == 0 { Duration::ZERO } else { listed };
        {
            let mut waiting = sweeps.waiting.lock();
            waiting.retain(|known| *known.prefix != *prefix);
            if waiting.len() < self.0.prefixes_max {
                waiting.push_back(Sweep { prefix: prefix.into(), number, due });
            }
        }
        sweeps.more.notify_one();
    }

    async fn sweep_due(&self, sweeps: &Sweeps) -> Result<(), Error> {
        let now = Instant::now();
        let due: Vec<Sweep> = sweeps.waiting.lock().iter().filter(|sweep| sweep.due <= now).cloned().collect();
        let dead = due.iter().map(|sweep| (&*sweep.prefix, sweep.number)).collect();
        self.remove_dead(dead, |_| {}, &self.0.stop).await?;
        for sweep in due.iter().filter(|sweep| sweep.number > 0) {
            let args = [Bytes::copy_from_slice(sweep.prefix.as_bytes()), decimal(sweep.number)];
            self.0.redis.run(&scripts::UNLIST, std::slice::from_ref(&self.0.keys.namespace), &args).await?;
        }
        // Those that were put in anew meanwhile are others.
        sweeps.waiting.lock().retain(|known| !due.contains(known));
        Ok(())
    }

    /// Removes what a change of `prefix` with this number has left dead, and says how many values that were.
    pub(crate) async fn sweep(
        &self,
        prefix: &str,
        number: u64,
        progress: impl FnMut(u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        self.remove_dead(vec![(prefix, number)], progress, cancel).await
    }

    /// One walk over the keys. What was kept since, under a newer generation or number, stays.
    async fn remove_dead(
        &self,
        dead: Vec<(&str, u64)>,
        mut progress: impl FnMut(u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let inner = &self.0;
        let pattern = match &dead[..] {
            [] => return Ok(0),
            [(prefix, _)] => inner.keys.pattern(prefix),
            _ => inner.keys.pattern(""),
        };
        let mut scan = inner.redis.scan(pattern, ScanOptions { count: PAGE, kind: None });
        let mut removed = 0;
        while let Some(page) = scan.next_page().await {
            if cancel.is_cancelled() {
                break;
            }
            let generation = inner.session().await?.generation;
            let (mut keys, mut begun) = (Vec::new(), Vec::new());
            for name in page? {
                let Told::Value(key) = inner.keys.told(&name) else { continue };
                let covering = dead.iter().filter(|(prefix, _)| key.starts_with(prefix));
                let Some(number) = covering.map(|(_, number)| *number).max() else { continue };
                begun.push(Bytes::copy_from_slice(&record::begun(generation, number)));
                keys.push(name);
            }
            // Keys of one script lie in one slot.
            let batch = if inner.is_cluster { 1 } else { BATCH };
            let scripts = keys
                .chunks(batch)
                .zip(begun.chunks(batch))
                .map(|(keys, begun)| async move { inner.redis.run(&scripts::SWEEP, keys, begun).await?.as_int() });
            let done: Vec<i64> = try_join_all(scripts).await?;
            removed += u64::try_from(done.iter().sum::<i64>()).unwrap_or(0);
            progress(removed);
        }
        Ok(removed)
    }
}
