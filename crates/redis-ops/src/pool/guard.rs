//! A blocking connection in somebody's hands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::places::Taken;
use super::wire::Wire;
use super::{Place, Pool};
use crate::error::Error;
use crate::link::Node;
use crate::value::Value;
use crate::wire::Request;

/// They would leave the connection in a state that the next user does not expect.
const STATEFUL: [&str; 9] =
    ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "MULTI", "WATCH", "SELECT", "CLIENT", "AUTH"];

/// One connection, all one's own; given back when dropped, in whatever state: a call still running in Redis is ended
/// first, a broken connection is replaced for the next user.
#[derive(Debug)]
pub struct Blocking {
    /// There until dropped.
    place: Option<Place>,
}

impl Blocking {
    pub(super) fn new(place: Place) -> Self {
        Self { place: Some(place) }
    }

    /// One command, which may block; `args` are all its words after `name`. Where no whole reply came within `patience`,
    /// the link counts as dead: give it a good second more than the command may block.
    ///
    /// Dropping the future while Redis blocks is fine, and is the way to interrupt it: the next call, or giving the guard
    /// back, has Redis end the command first. What Redis had answered by then is lost, so let only such commands be
    /// interrupted whose reply can be had again (`XREAD`; of a `XREADGROUP` the entries stay pending).
    ///
    /// Errors: what Redis answers; [`Error::Lost`] when the connection broke or the pool was closed (the next call gets a
    /// new connection); [`Error::NotSent`] when none can be opened. `MOVED` in a cluster: the key went to another node,
    /// acquire again. [`Error::Unusable`] for commands that would change the connection for its next user.
    pub async fn call(
        &mut self,
        name: &'static str,
        args: impl AsRef<[Bytes]>,
        patience: Duration,
    ) -> Result<Value, Error> {
        if STATEFUL.contains(&name) {
            return Err(Error::Unusable(format!("{name} has no place on a pooled connection").into()));
        }
        let place = self.place_mut()?;
        let pool = place.pool.pool.clone();
        let closed = pool.closing.cancelled();
        let calling = async {
            let wire = Self::ready(place).await?;
            let request = Request { head: &[name.as_bytes()], keys: &[], args: args.as_ref() };
            let answer = timeout(patience, wire.single.call(request)).await;
            let answer = answer.unwrap_or_else(|_| {
                wire.single.give_up();
                Err(Error::timeout(patience))
            });
            answer.inspect_err(|error| failed(&pool, wire, error))
        };
        tokio::select! {
            biased;
            answer = calling => answer,
            () = closed => Err(Error::lost("the pool was closed")),
        }
    }

    fn place_mut(&mut self) -> Result<&mut Place, Error> {
        let place = self.place.as_mut().ok_or_else(Error::closed)?;
        if place.pool.pool.closing.is_cancelled() { Err(Error::closed()) } else { Ok(place) }
    }

    /// The connection, freed from an earlier call, or a new one in its place.
    async fn ready(place: &mut Place) -> Result<&mut Wire, Error> {
        let pool = place.pool.pool.clone();
        if let Some(wire) = &mut place.wire
            && wire.is_held_up()
        {
            free(&pool, wire).await;
        }
        let epoch = pool.epoch();
        if place.wire.take_if(|wire| !wire.is_reusable() || !wire.is_current(epoch)).is_some() {
            pool.metrics.broken.inc();
        }
        let wire = match place.wire.take() {
            Some(wire) => wire,
            None => pool.dial(place.node()?).await?,
        };
        Ok(place.wire.insert(wire))
    }

    /// Takes a place that is to lead to `node`, with a free connection if there is one. Whether that needs no check;
    /// else [`connect`](Self::connect) must follow.
    pub(super) fn take(&mut self, node: &Arc<Node>, now: Instant) -> bool {
        let Some(place) = &mut self.place else { return false };
        let pool = &place.pool.pool;
        let Taken { wire, closed } = pool.take(node);
        place.node = Some(node.clone());
        drop(closed);
        let Some((wire, since)) = wire else { return false };
        let fresh = now.saturating_duration_since(since) < pool.link.core.config.health_check_interval
            && wire.single.is_quiet();
        place.wire = Some(wire);
        fresh
    }

    /// Checks the connection that was taken, or dials.
    pub(super) async fn connect(&mut self, key: Option<&[u8]>) -> Result<(), Error> {
        let pool = self.place_mut()?.pool.pool.clone();
        let node = pool.link.node_soon(key).await?;
        if self.place_mut()?.node.is_none() && self.take(&node, Instant::now()) {
            return Ok(());
        }
        let place = self.place_mut()?;
        if let Some(wire) = &mut place.wire {
            if wire.is_alive(pool.link.core.config.connect_timeout).await {
                return Ok(());
            }
            pool.metrics.broken.inc();
            place.wire = None;
        }
        place.wire = Some(pool.dial(node).await?);
        Ok(())
    }
}

async fn free(pool: &Pool, wire: &mut Wire) {
    if wire.free(&pool.link).await {
        pool.metrics.unblocked.inc();
    }
}

/// What an error says about the connection and the cluster.
fn failed(pool: &Pool, wire: &mut Wire, error: &Error) {
    match error.code() {
        "MOVED" | "ASK" | "CLUSTERDOWN" => pool.link.core.table_stale.notify_one(),
        // No primary (any more): the next one may lead elsewhere.
        "READONLY" | "UNBLOCKED" | "MASTERDOWN" => wire.single.give_up(),
        _ => {}
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        let pool = place.pool.pool.clone();
        let held_up = place.wire.as_ref().is_some_and(Wire::is_held_up);
        if held_up && !pool.closing.is_cancelled() {
            let freeing = {
                let pool = pool.clone();
                async move {
                    if let Some(wire) = &mut place.wire {
                        free(&pool, wire).await;
                    }
                    drop(place);
                }
            };
            pool.link.core.tasks.spawn_on(freeing, &pool.runtime);
        } else if place.wire.as_ref().is_some_and(|wire| !wire.is_reusable()) {
            pool.metrics.broken.inc();
        }
    }
}
