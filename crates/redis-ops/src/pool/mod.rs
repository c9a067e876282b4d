//! Connections for commands that block: few, each with one user at a time, given back whatever happens to the user.
//!
//! Who waits is served in the order of asking; a place is free as soon as its user is done with it, whatever the others
//! do. Counted is every connection that is open or being dialled. There are no timers while nothing waits but one, and
//! that only while more than the minimum lies idle.

mod error;
mod guard;
mod metrics;
mod places;
mod wire;

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_metrics::Registry;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

pub use error::PoolError;
pub use guard::Blocking;
pub use places::PoolStats;

use crate::config::PoolConfig;
use crate::error::Error;
use crate::link::{Link, Node};
use crate::redis::Redis;
use metrics::Metrics;
use places::{Places, Taken};
use wire::Wire;

/// The pool of a [`Redis`]; a cheap clone that keeps its Redis open.
#[derive(Clone, Debug)]
pub struct BlockingPool {
    pool: Arc<Pool>,
    _redis: Redis,
}

#[derive(Debug)]
pub(crate) struct Pool {
    link: Arc<Link>,
    config: PoolConfig,
    /// One permit per connection that may be open; tokio hands them out in the order of asking.
    permits: Semaphore,
    /// Held to take or give back a connection, never across I/O.
    places: Mutex<Places>,
    closing: CancellationToken,
    /// A guard may be dropped outside of the runtime.
    runtime: Handle,
    metrics: Metrics,
}

impl BlockingPool {
    pub(crate) fn new(redis: Redis, pool: Arc<Pool>) -> Self {
        Self { pool, _redis: redis }
    }

    /// A connection of one's own until the guard is dropped; in a cluster to the node that owns `key` (without a key to
    /// any). A free one is had at once; else one is dialled, or, at the maximum, waited for in line.
    ///
    /// Errors: [`PoolError::Exhausted`] after [`acquire_timeout`](PoolConfig::acquire_timeout), [`PoolError::Closed`],
    /// [`PoolError::Redis`] when none could be dialled. Dropping the future gives up the turn and keeps nothing.
    pub async fn acquire(&self, key: Option<&[u8]>) -> Result<Blocking, PoolError> {
        let (pool, asked) = (&self.pool, Instant::now());
        let limit = asked + pool.config.acquire_timeout;
        let place = match self.place_now() {
            Some(place) => place,
            None => self.place_in_turn(limit).await?,
        };
        let mut blocking = Blocking::new(place);
        if let Some(node) = pool.link.node_now(key)
            && blocking.take(&node, asked)
        {
            return Ok(blocking);
        }
        match timeout_at(limit, blocking.connect(key)).await {
            Ok(connected) => connected.map(|()| blocking).map_err(PoolError::Redis),
            Err(_) => Err(PoolError::Redis(Error::not_connected("no connection could be opened in time"))),
        }
    }

    fn place_now(&self) -> Option<Place> {
        let permit = self.pool.permits.try_acquire().ok()?;
        permit.forget();
        Some(Place::new(self.clone()))
    }

    async fn place_in_turn(&self, limit: Instant) -> Result<Place, PoolError> {
        let pool = &self.pool;
        if pool.permits.is_closed() {
            return Err(PoolError::Closed);
        }
        let waiting = pool.metrics.waiting();
        match timeout_at(limit, pool.permits.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                let place = Place::new(self.clone());
                waiting.served();
                Ok(place)
            }
            Ok(Err(_)) => Err(PoolError::Closed),
            Err(_) => {
                pool.metrics.timeouts.inc();
                Err(PoolError::Exhausted { max: pool.config.max, waited: pool.config.acquire_timeout })
            }
        }
    }

    /// What the pool holds right now.
    pub fn stats(&self) -> PoolStats {
        let (in_use, available) = self.pool.places.lock().counts();
        PoolStats { total: in_use + available, in_use, available, waiting: self.pool.metrics.waiting_now() }
    }

    /// Ends it: who waits and who asks from now on is refused with [`PoolError::Closed`], free connections are closed,
    /// calls in flight end as [`Error::Lost`] at once and their connections close with their guards.
    /// [`Redis::close`] does this too.
    pub fn close(&self) {
        self.pool.close();
    }
}

impl Pool {
    pub(crate) fn new(link: Arc<Link>, registry: &Registry) -> Arc<Self> {
        let given = &link.core.config.blocking_pool;
        let max = given.max.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            config: PoolConfig { max, min: given.min.min(max), ..given.clone() },
            permits: Semaphore::new(max),
            places: Mutex::default(),
            closing: link.core.closing.child_token(),
            runtime: Handle::current(),
            metrics: Metrics::new(registry),
            link,
        })
    }

    pub(crate) fn close(&self) {
        self.closing.cancel();
        self.permits.close();
        let free = self.changed(Places::close);
        drop(free);
    }

    /// Changes the places and shows it in the metrics.
    fn changed<T>(&self, change: impl FnOnce(&mut Places) -> T) -> T {
        let mut places = self.places.lock();
        let result = change(&mut places);
        self.metrics.show(places.counts());
        result
    }

    /// Connections made before this number of reconnects are not trusted: they may lead to a former primary.
    fn epoch(&self) -> u64 {
        *self.link.core.reconnects.borrow()
    }

    async fn dial(&self, node: Arc<Node>) -> Result<Wire, Error> {
        let epoch = self.epoch();
        let wire = Wire::dial(&self.link.core.dialer, node, epoch).await?;
        self.metrics.dialled.inc();
        Ok(wire)
    }

    /// Takes the place of one connection, free or still to be dialled, for who has a permit.
    fn take(&self, node: &Arc<Node>) -> Taken {
        let epoch = self.epoch();
        self.changed(|places| places.take(node, epoch, self.config.max))
    }

    fn give_back(self: &Arc<Self>, wire: Option<Wire>) {
        let wire = wire.filter(Wire::is_reusable);
        let min = self.config.min;
        let (unwanted, begin) = self.changed(|places| {
            let unwanted = places.give_back(wire, Instant::now());
            (unwanted, places.begin_sweep(min))
        });
        drop(unwanted);
        if begin {
            self.link.core.tasks.spawn_on(self.clone().sweep(), &self.runtime);
        }
    }

    /// Closes what lies idle beyond the minimum, until there is nothing like it.
    async fn sweep(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            let (closed, next) = self.changed(|places| places.sweep(self.config.min, self.config.idle_timeout, now));
            drop(closed);
            let Some(next) = next else { return };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.closing.cancelled() => return,
            }
        }
    }
}

/// The right to one connection, and the connection once there is one. Gives both back.
#[derive(Debug)]
struct Place {
    pool: BlockingPool,
    /// Where it leads; the pool counts it from when that is known.
    node: Option<Arc<Node>>,
    wire: Option<Wire>,
}

impl Place {
    fn new(pool: BlockingPool) -> Self {
        Self { pool, node: None, wire: None }
    }

    fn node(&self) -> Result<Arc<Node>, Error> {
        self.node.clone().ok_or_else(|| Error::not_connected("no node was found yet"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pool = &self.pool.pool;
        if self.node.is_some() {
            pool.give_back(self.wire.take());
        }
        pool.permits.add_permits(1);
    }
}
