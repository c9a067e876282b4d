//! A lease while it is held: renewed as long as its holder lives, given back when it is over.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{Granted, LEASE, Tier2, decimal, scripts};
use crate::clock::millis;
use crate::error::Error;

/// Gives the lease back when it is dropped, unless a fill used it up.
#[derive(Debug)]
pub(crate) struct Held {
    tier2: Tier2,
    /// The lease and the value.
    names: [Bytes; 2],
    token: Bytes,
    seen: Bytes,
    tasks: TaskTracker,
    used_up: AtomicBool,
}

impl Tier2 {
    pub(crate) fn hold(&self, key: &str, granted: &Granted, tasks: &TaskTracker) -> Held {
        Held {
            tier2: self.clone(),
            names: [self.0.keys.lease(key), self.0.keys.value(key)],
            token: granted.token.clone(),
            seen: granted.seen.clone(),
            tasks: tasks.clone(),
            used_up: AtomicBool::new(false),
        }
    }
}

impl Held {
    /// Keeps it, for as long as this is polled, and tells of each time at which what is being loaded was still good: the lease was
    /// ours, which a change of the key would have ended, and nothing wider had changed. `None`: it is not any more.
    pub(crate) async fn renew(&self, key: &str, granted: &Granted, mut tell: impl FnMut(Option<u64>)) -> Infallible {
        let inner = &self.tier2.0;
        let pause = (LEASE / 3).min(inner.sessions.staleness() * 2 / 5);
        loop {
            sleep(pause).await;
            let asked = inner.local.now();
            let is_good = async {
                let is_ours = keep(&self.tier2, &self.names, &self.token, &self.seen, LEASE).await?;
                // What the reply came over was told before it; other nodes are to be asked.
                if inner.is_cluster {
                    inner.sessions.verify(inner).await?;
                }
                Ok::<_, Error>(is_ours && self.tier2.stands(key, &granted.opening).await?)
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
        self.used_up.store(true, Ordering::Relaxed);
    }
}

/// Keeps a lease for `life`, or gives it back where that is zero; whether it was ours and nobody else wrote the value.
async fn keep(tier2: &Tier2, names: &[Bytes; 2], token: &Bytes, seen: &Bytes, life: Duration) -> Result<bool, Error> {
    let args = [token.clone(), decimal(millis(life)), seen.clone()];
    Ok(tier2.0.redis.run(&scripts::RENEW, names, &args).await?.as_int()? == 1)
}

impl Drop for Held {
    fn drop(&mut self) {
        if !*self.used_up.get_mut() && tokio::runtime::Handle::try_current().is_ok() {
            let (tier2, names, token, seen) =
                (self.tier2.clone(), self.names.clone(), self.token.clone(), self.seen.clone());
            self.tasks.spawn(async move {
                // Else it runs out.
                let _ = keep(&tier2, &names, &token, &seen, Duration::ZERO).await;
            });
        }
    }
}
