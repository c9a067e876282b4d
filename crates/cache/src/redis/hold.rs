//! A lease while it is held: renewed as long as its holder lives, given back when it is over.

use std::convert::Infallible;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{LEASE, Opening, Tier2, decimal, scripts};
use crate::clock::millis;
use crate::error::Error;

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

    /// Whether it was still ours.
    async fn renew(&self, name: Bytes, token: Bytes, life: u64) -> Result<bool, Error> {
        Ok(self.0.redis.run(&scripts::RENEW, &[name], &[token, decimal(life)]).await?.as_int()? == 1)
    }
}

impl Held {
    /// Keeps it, for as long as this is polled, and tells of each time at which what is being loaded was still good: the lease was
    /// ours, which a change of the key would have ended, and nothing wider had changed. `None`: it is not any more.
    pub(crate) async fn renew(&self, key: &str, opening: &Opening, mut tell: impl FnMut(Option<u64>)) -> Infallible {
        let inner = &self.tier2.0;
        let pause = (LEASE / 3).min(inner.sessions.staleness() * 2 / 5);
        loop {
            sleep(pause).await;
            let asked = inner.local.now();
            let is_good = async {
                let is_ours = self.tier2.renew(self.name.clone(), self.token.clone(), millis(LEASE)).await?;
                Ok::<_, Error>(is_ours && self.tier2.stands(key, opening).await?)
            };
            match is_good.await {
                Ok(is_good) => tell(is_good.then_some(asked)),
                // Nobody knows.
                Err(error) => tracing::debug!(%error, "the lease of a load was not renewed"),
            }
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
            self.tasks.spawn(async move {
                // Else it runs out.
                let _ = tier2.renew(name, token, 0).await;
            });
        }
    }
}
