//! Streams on Redis: any number of processes share them, with each other and with whoever writes by `XADD`.
//!
//! A publish is one script, so it happens as a whole or not at all; it carries the number of the operation, and Redis keeps
//! the answer to the last one of each process, so a lost reply is asked for again and nothing is published twice. What
//! listeners hear comes by one blocked read for all of them, and, beyond a hundred live streams, by a bell that publishers
//! ring: see `reader`.

mod call;
mod docs;
mod entry;
mod group;
mod keys;
mod list;
mod position;
mod publish;
mod read;
mod reader;
mod restarts;
mod scripts;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Error as RedisError, Redis, RegistryOptions, StreamRegistry};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use docs::redis_reference;

use crate::hub::Hub;
use crate::{Config, Error};
use keys::Keys;
use list::Lists;
use position::Positions;
use publish::Publishers;
use restarts::Restarts;

/// The streams on a Redis. A cheap clone; the tasks end with the last one.
#[derive(Clone)]
pub(crate) struct RedisBus(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    _closing: DropGuard,
}

/// What handles, tasks and callers share.
struct Shared {
    redis: Redis,
    config: Arc<Config>,
    hub: Hub,
    keys: Keys,
    /// What stands for this process in names and messages.
    process: Box<str>,
    registry: StreamRegistry,
    publishers: Publishers,
    lists: Lists,
    positions: Positions,
    restarts: Restarts,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl RedisBus {
    pub(crate) async fn open(redis: Redis, config: Arc<Config>, hub: Hub, registry: &Registry) -> Result<Self, Error> {
        let keys = Keys::new(&config);
        may_publish(&redis, &keys.bell).await?;
        let restarts = Restarts::open(redis.clone(), hub.clone(), keys.restarts.clone(), registry).await?;
        let streams = StreamRegistry::new(redis.clone(), listed(&config), registry);
        let closing = CancellationToken::new();
        let shared = Arc::new_cyclic(|shared| Shared {
            redis,
            config,
            hub,
            keys,
            process: format!("{:016x}", number_of_this_start()).into(),
            registry: streams,
            publishers: Publishers::default(),
            lists: Lists::new(shared.clone()),
            positions: Positions::default(),
            restarts,
            closing: closing.clone(),
            tasks: TaskTracker::new(),
        });
        reader::start(&shared, registry);
        Ok(Self(Arc::new(Handle { shared, _closing: closing.drop_guard() })))
    }

    pub(crate) fn durability(&self) -> &'static str {
        self.shared().redis.durability().as_str()
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        let shared = self.shared();
        shared.closing.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        shared.publishers.idle().await;
        Ok(())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Shared {
    fn is_cluster(&self) -> bool {
        self.redis.health().topology == "cluster"
    }

    /// See [`Restarts::settled`].
    async fn settled(&self) -> Result<(), RedisError> {
        self.restarts.settled().await
    }
}

/// What a script has done before the command it is refused stays done, so a user without channels must hear of it before
/// the first script: users made by hand on Redis 7 have none unless told `&*`.
async fn may_publish(redis: &Redis, bell: &Bytes) -> Result<(), Error> {
    redis.command("PUBLISH", None, vec![bell.clone(), Bytes::new()]).await?;
    Ok(())
}

/// All streams but Tidegate's own and those whose names no stream of ours can have.
fn listed(config: &Config) -> RegistryOptions {
    let keys = Keys::new(config);
    RegistryOptions {
        prefix: keys.stream_prefix().to_owned().into(),
        keep: Box::new(move |key| keys.name(key).is_some()),
        names_max: config.streams_max,
    }
}

/// Seeded by the system for every hasher; the time and the process id make it another one in any other process.
fn number_of_this_start() -> u64 {
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}
