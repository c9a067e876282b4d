//! The blocked read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_redis_ops::{Blocking, Error as RedisError, PoolError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::assign::Assigned;
use super::take::Plan;
use super::{Reader, stay};
use crate::hub::Live;
use crate::redis::restarts::Restarts;

/// How long a read blocks. 10 s: then the ends of the streams are checked, and a link that is dead without saying so found.
const BLOCK: Duration = Duration::from_secs(10);
const BLOCK_MILLIS: &str = "10000";
/// A reply later than this means that the link is dead.
const PATIENCE: Duration = BLOCK.saturating_add(Duration::from_secs(2));
/// For what does not block.
const PATIENCE_SHORT: Duration = Duration::from_secs(5);

/// Why a connection is given back.
enum End {
    /// Nothing is to be read directly.
    Unneeded,
    /// The general connections came up again: this one may lead to a former primary.
    Reconnected,
}

pub(super) async fn run(reader: Arc<Reader>, mut assigned: watch::Receiver<Assigned>) {
    let pool = reader.shared.redis.blocking_pool();
    loop {
        if assigned.wait_for(|assigned| !assigned.direct.is_empty()).await.is_err() {
            return;
        }
        let end = match pool.acquire(None).await {
            Ok(mut connection) => read(&reader, &mut assigned, &mut connection).await.map_err(PoolError::Redis),
            Err(error) => Err(error),
        };
        match end {
            Ok(End::Unneeded | End::Reconnected) => {}
            Err(PoolError::Closed) => return,
            Err(error) => {
                tracing::debug!(%error, "the read of live streams begins again");
                sleep(Restarts::PAUSE).await;
            }
        }
    }
}

async fn read(
    reader: &Reader,
    assigned: &mut watch::Receiver<Assigned>,
    connection: &mut Blocking,
) -> Result<End, RedisError> {
    let shared = &reader.shared;
    let mut reconnects = shared.redis.reconnects();
    reconnects.borrow_and_update();
    let mut plan = Plan::new(reader, Arc::default());
    // Whether it is known which Redis is at the other end: after a call that failed or was dropped it may be another one.
    let mut is_known = false;
    let mut is_checked = false;
    loop {
        let streams = Arc::clone(&assigned.borrow_and_update().direct);
        if streams.is_empty() {
            return Ok(End::Unneeded);
        }
        if !Arc::ptr_eq(&streams, &plan.streams) {
            plan = Plan::new(reader, streams);
        }
        if !is_known {
            match connection.call("INFO", vec!["server".into()], PATIENCE_SHORT).await {
                Ok(info) => shared.restarts.learn(info.as_str()?).await,
                Err(RedisError::Answer { code, .. }) if &*code == "NOPERM" => {}
                Err(error) => return Err(error),
            }
            is_known = true;
        }
        if !is_checked {
            reader.check_ends(&plan.streams).await?;
            is_checked = true;
        }
        let count = reader.sizes.count(plan.streams.len());
        reader.counters.direct.inc();
        let call = connection.call("XREAD", plan.words(count, Some(BLOCK_MILLIS)), PATIENCE);
        let reply = tokio::select! {
            reply = call => reply,
            () = joined(assigned, &plan.streams) => {
                is_known = false;
                continue;
            }
            _ = reconnects.changed() => return Ok(End::Reconnected),
        };
        match reply {
            Ok(reply) if reply.is_nil() => {
                reader.proven();
                is_checked = false;
            }
            Ok(reply) => {
                reader.hand_on(&plan, count, reply)?;
            }
            Err(error) if error.code() == "WRONGTYPE" => {
                // Says which one it is, and then it is no longer among them; unless it has gone meanwhile.
                reader.take(&plan.streams).await?;
                let _ = timeout(Restarts::PAUSE, assigned.changed()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns when there is a stream to read that is not being read, or none at all; streams that left do no harm.
async fn joined(assigned: &mut watch::Receiver<Assigned>, reading: &[Arc<Live>]) {
    let known: HashSet<usize> = reading.iter().map(stay).collect();
    let is_news = |assigned: &Assigned| {
        assigned.direct.is_empty() || assigned.direct.iter().any(|live| !known.contains(&stay(live)))
    };
    if assigned.wait_for(is_news).await.is_err() {
        std::future::pending::<()>().await;
    }
}
