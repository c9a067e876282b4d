//! Restarts of Redis: noticed, told to the hub before anything that came after is, and remembered.
//!
//! Every Redis process has a run id. One that was not there before has come in place of another: restarted (and has lost
//! what was not on its disk yet, unless every write is), or promoted by a failover (and lacks what had not reached it yet).
//! Of a cluster no restarts are known: there a stream that ends before its listeners' place tells of a loss.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_metrics::{Counter, Registry};
use tidegate_redis_ops::{Durability, Error as RedisError, Redis};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::hub::Hub;

/// Remembered on Redis; beyond, the oldest are forgotten.
const KEPT_MAX: usize = 1000;
/// What stands in place of times where nothing was lost.
const NOTHING_LOST: &[u8] = b"-";

pub(super) struct Restarts {
    redis: Redis,
    hub: Hub,
    /// The hash that remembers them.
    key: Bytes,
    /// Of a cluster nothing is asked.
    is_single: bool,
    reconnects: watch::Receiver<u64>,
    /// How often the general connections had come up when it was last known which Redis they lead to.
    settled: AtomicU64,
    /// One asks at a time.
    asking: tokio::sync::Mutex<()>,
    /// Held to learn or look, never across an await.
    state: Mutex<State>,
    began: Instant,
    /// When something was last heard, in ms since `began`.
    heard: AtomicU64,
    counted: Counter,
}

#[derive(Default)]
struct State {
    current: Option<Box<str>>,
    /// Every Redis that was ever there, as far as anybody noticed.
    known: HashSet<Box<str>>,
    /// What Redis's clock showed when this process began, in ms.
    offset: Option<i64>,
    /// To be remembered on Redis.
    unsaved: Vec<(Box<str>, String)>,
}

/// What `INFO server` says, in milliseconds of its own clock.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    run_id: Box<str>,
    now: u64,
    /// The beginning of the second in which it started.
    started: u64,
}

impl Restarts {
    /// Loads what is remembered and learns which Redis this is.
    pub(super) async fn open(redis: Redis, hub: Hub, key: Bytes, registry: &Registry) -> Result<Self, RedisError> {
        let restarts = Self {
            is_single: redis.health().topology != "cluster",
            reconnects: redis.reconnects(),
            redis,
            hub,
            key,
            settled: AtomicU64::new(u64::MAX),
            asking: tokio::sync::Mutex::new(()),
            state: Mutex::default(),
            began: Instant::now(),
            heard: AtomicU64::new(0),
            counted: registry.counter(
                "tidegate_events_redis_restarts_total",
                "Restarts and failovers of Redis that may have lost events.",
            ),
        };
        if restarts.is_single {
            restarts.load().await?;
            restarts.settled().await?;
        }
        Ok(restarts)
    }

    async fn load(&self) -> Result<(), RedisError> {
        let all = self.redis.command("HGETALL", Some(self.key.clone()), vec![self.key.clone()]).await?.into_array()?;
        let (mut values, mut kept) = (all.into_iter(), Vec::new());
        while let (Some(field), Some(value)) = (values.next(), values.next()) {
            let (field, value) = (field.into_bytes()?, value.into_bytes()?);
            let times = times(&value);
            kept.push((times.map_or(0, |(_, to)| to), times, field));
        }
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(KEPT_MAX);
        for (_, times, field) in &kept {
            let run_id = String::from_utf8_lossy(field);
            self.state.lock().known.insert(run_id.split('@').next().unwrap_or_default().into());
            if let Some((from, to)) = times {
                self.hub.restarted(*from, *to);
            }
        }
        if surplus > 0 {
            let fields = kept.into_iter().take(surplus).map(|(_, _, field)| field);
            let args = std::iter::once(self.key.clone()).chain(fields).collect();
            self.redis.command("HDEL", Some(self.key.clone()), args).await?;
        }
        Ok(())
    }

    /// Something came from Redis just now.
    pub(super) fn heard(&self) {
        self.heard.store(self.elapsed(), Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// To be waited for between reading over the general connections and telling what was read: afterwards the hub knows of
    /// every restart before it. Costs nothing while no connection was replaced.
    pub(super) async fn settled(&self) -> Result<(), RedisError> {
        if !self.is_single || *self.reconnects.borrow() == self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let _turn = self.asking.lock().await;
        let count = *self.reconnects.borrow();
        if count == self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.redis.command("INFO", None, vec!["server".into()]).await {
            Ok(info) => self.learn(info.as_str()?).await,
            // Without the permission nobody learns it.
            Err(RedisError::Answer { code, .. }) if &*code == "NOPERM" => {}
            Err(error) => return Err(error),
        }
        self.settled.store(count, Ordering::Release);
        Ok(())
    }

    /// Takes in what `INFO server` said over any connection.
    pub(super) async fn learn(&self, info: &str) {
        let Some(server) = Server::read(info) else { return };
        if !self.is_single {
            return;
        }
        self.meet(&server);
        self.heard();
        let unsaved = std::mem::take(&mut self.state.lock().unsaved);
        for (field, value) in unsaved {
            let args = vec![self.key.clone(), field.as_bytes().to_vec().into(), value.clone().into()];
            if let Err(error) = self.redis.command("HSETNX", Some(self.key.clone()), args).await {
                tracing::debug!(%error, "a restart of Redis is not remembered yet");
                self.state.lock().unsaved.push((field, value));
            }
        }
    }

    fn meet(&self, server: &Server) {
        let mut state = self.state.lock();
        let heard = state.offset.map(|offset| offset.saturating_add_unsigned(self.heard.load(Ordering::Relaxed)));
        state.offset = Some(i64::try_from(server.now).unwrap_or(0).saturating_sub_unsigned(self.elapsed()));
        if state.current.as_deref() == Some(&server.run_id) {
            return;
        }
        let is_first = state.known.is_empty();
        let is_known = !state.known.insert(server.run_id.clone());
        let had_another = state.current.replace(server.run_id.clone()).is_some();
        let field = |ms: u64| if is_known { format!("{}@{ms}", server.run_id).into() } else { server.run_id.clone() };
        // Who was there before the other was last heard has not been restarted: it took over.
        let heard = heard.and_then(|heard| u64::try_from(heard).ok()).filter(|_| had_another);
        let lost = match heard {
            Some(heard) if server.started + 1000 < heard => Some((heard.saturating_sub(1000), server.now)),
            _ if is_known || is_first => None,
            _ if self.redis.durability() == Durability::Always => None,
            _ => Some((server.started, server.started + 1000)),
        };
        if let Some((from, to)) = lost {
            tracing::warn!(run_id = %server.run_id, "Redis was restarted or replaced; its newest events may be lost");
            self.counted.inc();
            self.hub.restarted(from, to);
            state.unsaved.push((field(to), format!("{from}-{to}")));
        } else if !is_known {
            state.unsaved.push((field(0), String::from_utf8_lossy(NOTHING_LOST).into_owned()));
        }
        state.unsaved.truncate(KEPT_MAX);
    }

    /// How long after a failure the next attempt is made.
    pub(super) const PAUSE: Duration = Duration::from_millis(100);
}

impl Server {
    fn read(info: &str) -> Option<Self> {
        let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        let now = field("server_time_usec")?.parse::<u64>().ok()? / 1000;
        let uptime: u64 = field("uptime_in_seconds")?.parse().ok()?;
        let started = (now / 1000).saturating_sub(uptime) * 1000;
        Some(Self { run_id: field("run_id")?.into(), now, started })
    }
}

/// `from-to`.
fn times(value: &[u8]) -> Option<(u64, u64)> {
    let (from, to) = std::str::from_utf8(value).ok()?.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_the_start_is_read() {
        let info = "# Server\r\nrun_id:abc\r\nserver_time_usec:1700000010500000\r\nuptime_in_seconds:10\r\n";
        let server = Server { run_id: "abc".into(), now: 1_700_000_010_500, started: 1_700_000_000_000 };
        assert_eq!(Server::read(info), Some(server));
        assert_eq!(Server::read("run_id:abc"), None);
    }

    #[test]
    fn times_that_are_none_are_skipped() {
        assert_eq!(times(b"5-6"), Some((5, 6)));
        for value in [&b"-"[..], b"", b"5", b"a-b"] {
            assert_eq!(times(value), None);
        }
    }
}
