//! A lease while it is held: renewed as long as its holder lives, given back when it is over.

use std::convert::Infallible;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{LEASE, Tier2, decimal, scripts};
use crate::clock::millis;

/// Gives the lease back when it is dropped, unless a fill used it up.
#[derive(Debug)]
pub(crate) struct Held {
    tier2: Tier2,
    name: Bytes,
    token: Bytes,
    tasks: TaskTracker,
    used_up: std::sync::atomic::AtomicBool,
}

impl Tier2 {
    pub(crate) fn hold(&self, key: &str, token: &Bytes, tasks: &TaskTracker) -> Held {
        let name = self.0.keys.lease(key);
        Held { tier2: self.clone(), name, token: token.clone(), tasks: tasks.clone(), used_up: false.into() }
    }

    async fn renew(&self, name: Bytes, token: Bytes, life: u64) {
        // Whoever loses it learns so when it fills.
        let _ = self.0.redis.run(&scripts::RENEW, &[name], &[token, decimal(life)]).await;
    }
}

impl Held {
    /// Keeps it, for as long as this is polled.
    pub(crate) async fn renew(&self) -> Infallible {
        loop {
            sleep(LEASE / 3).await;
            self.tier2.renew(self.name.clone(), self.token.clone(), millis(LEASE)).await;
        }
    }

    /// There is nothing to give back.
    pub(crate) fn filled(&self) {
        self.used_up.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !*self.used_up.get_mut() && tokio::runtime::Handle::try_current().is_ok() {
            let (tier2, name, token) = (self.tier2.clone(), self.name.clone(), self.token.clone());
            self.tasks.spawn(async move { tier2.renew(name, token, 0).await });
        }
    }
}
