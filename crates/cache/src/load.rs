//! What a load does, from the question to the answer for all who wait.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tidegate_redis_ops::Class;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cache::Shared;
use crate::clock::millis;
use crate::error::{BoxError, Error};
use crate::flight::{Flight, Landed, Landing, Stale};
use crate::keep::Keep;
use crate::key::{Key, KeyRef};
use crate::redis::{Found, Granted, Lease, Tier2, Write};
use crate::tier1::Ticket;

/// A loader, as it is called: once, when it is certain that nobody else loads.
pub(crate) type Load<V> = Box<dyn FnOnce() -> BoxFuture<'static, Result<Option<V>, Error>> + Send>;

/// Somebody else who loads is looked after again this soon, and then less and less often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(500);

pub(crate) fn boxed<V, F, Fut, E>(load: F) -> Load<V>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Box::new(move || async move { load().await.map_err(|error| Error::Load(Arc::from(error.into()))) }.boxed())
}

/// Starts the task of a flight.
pub(crate) fn depart<V: Clone + Send + Sync + 'static>(
    shared: &Arc<Shared<V>>,
    key: KeyRef<'_>,
    keep: Keep,
    load: Load<V>,
    flight: &Arc<Flight<V>>,
) {
    shared.metrics.loading.add(1.0);
    let pilot = Pilot { shared: shared.clone(), key: key.to_key(), flight: flight.clone() };
    shared.tasks.spawn(async move {
        let stop = pilot.shared.stop.clone();
        let limit = keep.hard_timeout.unwrap_or(pilot.shared.config.hard_timeout);
        tokio::select! {
            biased;
            result = timeout_at(Instant::now() + limit, pilot.fly(keep, load)) => {
                let result = result.unwrap_or(Err(Error::LoadTimeout(limit)));
                if result.is_err() {
                    pilot.shared.metrics.load_failures.inc();
                }
                pilot.land(result);
            }
            () = stop.cancelled() => pilot.land(Err(Error::Closed)),
        }
    });
}

/// One flight's task. However it ends, by panic too, those who wait hear of it and nobody joins any more.
struct Pilot<V: Clone + Send + Sync + 'static> {
    shared: Arc<Shared<V>>,
    key: Key,
    flight: Arc<Flight<V>>,
}

impl<V: Clone + Send + Sync + 'static> Drop for Pilot<V> {
    fn drop(&mut self) {
        self.shared.metrics.loading.sub(1.0);
        if std::thread::panicking() {
            self.shared.metrics.load_failures.inc();
        }
        // Without effect where it has landed.
        self.land(Err(Error::LoadPanicked));
    }
}

impl<V: Clone + Send + Sync + 'static> Pilot<V> {
    /// Whoever comes from now on begins anew.
    fn land(&self, result: Landed<V>) {
        self.shared.tier1.flights.end(self.key.as_ref(), &self.flight);
        self.flight.land(result);
    }

    async fn fly(&self, keep: Keep, load: Load<V>) -> Result<Landing<V>, Error> {
        match &self.shared.tier2 {
            None => self.load_alone(&keep, load).await,
            Some(tier2) => self.load_with(tier2, &keep, load).await,
        }
    }

    /// Runs the loader when there is a place for it.
    async fn run(&self, load: Load<V>) -> Result<Option<V>, Error> {
        let _place = self.shared.loads.acquire().await.map_err(|_| Error::Closed)?;
        self.shared.metrics.loads.inc();
        load().await
    }

    async fn load_alone(&self, keep: &Keep, load: Load<V>) -> Result<Landing<V>, Error> {
        let key = self.key.as_ref();
        // Its caller may have looked just before another load of it landed.
        if let Some(value) = self.shared.tier1.fresh(key, self.shared.config.clock.now(), true) {
            return Ok(Landing { value, loaded: false });
        }
        let ticket = self.shared.tier1.ticket(key);
        let value = self.run(load).await?;
        self.remember(ticket, keep, value.clone(), false);
        Ok(Landing { value, loaded: true })
    }

    /// Keeps what was loaded in tier 1. `unwatched`: Redis cannot say what others change, so it lives as long as others' changes
    /// may take at most.
    fn remember(&self, ticket: Ticket, keep: &Keep, value: Option<V>, unwatched: bool) {
        let shared = &self.shared;
        let (mut fresh, mut stale) = shared.times(keep, value.is_none());
        if unwatched {
            fresh = fresh.min(shared.good_until(ticket.at).saturating_sub(shared.config.clock.now()));
            stale = 0;
        }
        if fresh == 0 {
            return;
        }
        let weight = value.as_ref().map_or(0, |value| shared.codec.weight(value));
        if weight > shared.config.value_bytes_max {
            shared.metrics.too_large.inc();
            return;
        }
        let mut entry = shared.entry(value, weight, fresh, stale, self.flight.tags.clone());
        entry.terms.unwatched = unwatched;
        shared.tier1.fill(self.key.as_ref(), ticket, entry);
    }

    /// While it loads: what is being loaded was good then, or is not any more and nobody else is to wait for it.
    fn looked(&self, good_at: Option<u64>) {
        match good_at {
            Some(at) => self.flight.joinable_until(self.shared.good_until(at)),
            None => self.flight.joinable_until(0),
        }
    }

    /// Looks on Redis, and loads if it has nothing and nobody else does.
    async fn load_with(&self, tier2: &Tier2, keep: &Keep, load: Load<V>) -> Result<Landing<V>, Error> {
        match self.find_or_lease(tier2, keep).await {
            Ok(Turn::Found(landing)) => Ok(landing),
            Ok(Turn::Ours(granted, ticket)) => self.load_under(tier2, &granted, ticket, keep, load).await,
            Err(Error::Redis(error)) => {
                // What Redis refuses it will refuse again: somebody should know.
                match error.class() {
                    Class::Refused | Class::Fatal => tracing::warn!(%error, "loading without Redis"),
                    Class::Transient | Class::Ambiguous => tracing::debug!(%error, "loading without Redis"),
                }
                let ticket = self.shared.tier1.ticket(self.key.as_ref());
                let value = self.run(load).await?;
                self.remember(ticket, keep, value.clone(), true);
                Ok(Landing { value, loaded: true })
            }
            Err(other) => Err(other),
        }
    }

    /// Until Redis has a value or it is our turn to load one.
    async fn find_or_lease(&self, tier2: &Tier2, keep: &Keep) -> Result<Turn<V>, Error> {
        let shared = &self.shared;
        let key = self.key.as_ref();
        let mut pause = LOOK_AGAIN;
        loop {
            let changed = tier2.changes_of(key.text);
            let ticket = shared.tier1.ticket(key);
            // What this brings is read from now on.
            self.flight.joinable_until(shared.good_until(ticket.at));
            let lives = millis(keep.ttl.unwrap_or(shared.config.ttl).min(shared.config.ttl_max));
            let opening = tier2.open(&self.flight.tags, lives).await?;
            let seen = match tier2.read(key).await? {
                Found::Alive(alive) => {
                    let id = alive.id.clone();
                    let past = alive.past();
                    let tags = alive.tags.clone();
                    let value = shared.take(key, ticket, alive).await;
                    match value {
                        Some(value) if past == 0 => return Ok(Turn::Found(Landing { value, loaded: false })),
                        Some(Some(value)) => {
                            let until = shared.good_until(ticket.at);
                            self.flight.found_stale(Stale { value, past, stamp: ticket.stamp, tags, until });
                        }
                        _ => {}
                    }
                    id
                }
                Found::Dead(id) => id,
                Found::Absent => Vec::new(),
            };
            match tier2.lease(key, &seen, &opening).await? {
                Lease::Granted(token) => return Ok(Turn::Ours(Granted { token, seen: seen.into(), opening }, ticket)),
                Lease::Changed => {}
                Lease::Busy(left) => {
                    tokio::select! {
                        () = changed.rung() => {}
                        () = sleep(pause.min(left)) => {}
                    }
                    pause = (pause * 2).min(LOOK_AGAIN_MAX);
                }
            }
        }
    }

    /// Loads while holding the lease, and keeps the result in both tiers if the lease still holds.
    async fn load_under(
        &self,
        tier2: &Tier2,
        granted: &Granted,
        ticket: Ticket,
        keep: &Keep,
        load: Load<V>,
    ) -> Result<Landing<V>, Error> {
        let shared = &self.shared;
        let key = self.key.as_ref();
        let held = tier2.hold(key.text, granted, &shared.tasks);
        let value = tokio::select! {
            value = self.run(load) => value?,
            never = held.renew(key.text, granted, |good_at| self.looked(good_at)) => match never {},
        };
        let (fresh, stale) = shared.times(keep, value.is_none());
        let (payload, weight) = match &value {
            None => (None, 0),
            Some(value) => match shared.encode(value).await {
                Ok((packed, weight)) => (Some(packed), weight),
                // It is given to those who wait for it, and kept by nobody.
                Err(Error::TooLarge { .. }) => {
                    shared.metrics.too_large.inc();
                    return Ok(Landing { value: Some(value.clone()), loaded: true });
                }
                Err(error) => return Err(error),
            },
        };
        if fresh == 0 {
            return Ok(Landing { value, loaded: true });
        }
        if !self.flight.tags.stand(ticket.stamp) {
            shared.metrics.raced.inc();
            return Ok(Landing { value, loaded: true });
        }
        let entry = shared.entry(value.clone(), weight, fresh, stale, self.flight.tags.clone());
        let ending = Box::new(shared.tier1.begin_fill(key, ticket, entry));
        let opening = granted.opening.clone();
        let write = Write { key: key.text.into(), payload, fresh, stale, opening, ending };
        match tier2.fill(granted, write).await {
            Ok(true) => held.filled(),
            Ok(false) => shared.metrics.raced.inc(),
            Err(error) => {
                tracing::debug!(%error, "what was loaded is not on Redis");
                self.remember(ticket, keep, value.clone(), true);
            }
        }
        Ok(Landing { value, loaded: true })
    }
}

/// What a flight does next.
enum Turn<V> {
    /// Redis had it.
    Found(Landing<V>),
    /// It loads.
    Ours(Granted, Ticket),
}
