//! A connection of its own for renewing leases, on a thread of its own: handlers that block all threads of the program's
//! runtime must not cost their leases, nor those of others.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_redis_ops::{Config, Redis};
use tokio_util::sync::CancellationToken;

/// Pause after an attempt to connect that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// The connection, once it is there; until then beats go the common way.
#[derive(Clone, Debug, Default)]
pub(super) struct BeatLine(Arc<OnceLock<Redis>>);

impl BeatLine {
    /// Begins to connect; the thread ends with `closed`.
    pub(super) fn start(beside: &Redis, closed: CancellationToken) -> Self {
        let line = Self::default();
        let config = Config { connections: 1, pool_min: 1, pool_max: 1, ..beside.config().clone() };
        let mine = line.clone();
        let body = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(mine.keep(config, closed)),
            Err(error) => tracing::warn!(%error, "no runtime for beats: they share the common connections"),
        };
        if let Err(error) = std::thread::Builder::new().name("tidegate-beat-line".into()).spawn(body) {
            tracing::warn!(%error, "no thread for beats: they share the common connections");
        }
        line
    }

    async fn keep(self, config: Config, closed: CancellationToken) {
        let connected = async {
            loop {
                // Its figures would stand beside those of the common connections.
                match Redis::connect(config.clone(), &Registry::new()).await {
                    Ok(redis) => return redis,
                    Err(error) => tracing::debug!(%error, "no connection for beats yet"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = closed.cancelled() => return,
            redis = connected => { let _ = self.0.set(redis); }
        }
        closed.cancelled().await;
        if let Some(redis) = self.0.get() {
            redis.close().await;
        }
    }

    /// Where to send a beat: the common way while this one is down, so that it is not the last to come back.
    pub(super) fn or<'a>(&'a self, common: &'a Redis) -> &'a Redis {
        self.0.get().filter(|redis| redis.is_ready()).unwrap_or(common)
    }
}
