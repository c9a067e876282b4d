//! [`Bus`]: the handle everybody holds.

use std::fmt;
use std::sync::Arc;

use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tidegate_store::Store;

use crate::backend::Backend;
use crate::embedded::Embedded;
use crate::hub::{Discovery, Hub, Listen, Listener};
use crate::redis::RedisBus;
use crate::stats::Metrics;
use crate::{
    Config, ConsumerBuilder, ConsumerConfig, Error, Group, GroupInfo, GroupName, NewEvent, Page, Pattern, Published,
    Read, Stats, StreamInfo, StreamName, StreamPage, Trim,
};

/// Event streams, on one backend. A cheap clone; clones share everything.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tidegate_events::{Bus, Config, NewEvent, Read, StreamName, TABLES};
///
/// let store = tidegate_store::Store::memory(TABLES);
/// let bus = Bus::open(store, 0, Config::default(), &tidegate_metrics::Registry::new()).await?;
/// let orders = StreamName::new("orders")?;
/// bus.publish(&orders, vec![NewEvent::new(r#"{"order":7}"#).kind("order.created")]).await?;
/// let page = bus.read(&orders, Read::default()).await?;
/// assert_eq!(page.events[0].data, r#"{"order":7}"#);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Bus(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    backend: Backend,
    hub: Hub,
    metrics: Metrics,
}

impl Bus {
    /// Opens the streams kept in `store`, whose tables from number `first_table` on are [`TABLES`](crate::TABLES). Needs a
    /// tokio runtime; its tasks end with [`close`](Self::close) or the last handle.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound that cannot work, [`Error::Damaged`] for a record that cannot be read,
    /// [`Error::Store`] when the store fails.
    pub async fn open(store: Store, first_table: u8, config: Config, registry: &Registry) -> Result<Self, Error> {
        config.check()?;
        let (config, metrics) = (Arc::new(config), Metrics::new(registry));
        let hub = Hub::new(Arc::clone(&config), metrics.clone());
        let embedded = Embedded::open(store, first_table, Arc::clone(&config), hub.clone(), registry).await?;
        Ok(Self::new(config, Backend::Embedded(embedded), hub, metrics))
    }

    /// Uses the streams on a Redis, together with every other process that does, and with whoever writes to them by `XADD`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound that cannot work, [`Error::Redis`] when Redis cannot be asked.
    pub async fn connect(redis: Redis, config: Config, registry: &Registry) -> Result<Self, Error> {
        config.check()?;
        let (config, metrics) = (Arc::new(config), Metrics::new(registry));
        let hub = Hub::new(Arc::clone(&config), metrics.clone());
        let redis = RedisBus::open(redis, Arc::clone(&config), hub.clone(), registry).await?;
        Ok(Self::new(config, Backend::Redis(redis), hub, metrics))
    }

    fn new(config: Arc<Config>, backend: Backend, hub: Hub, metrics: Metrics) -> Self {
        Self(Arc::new(Shared { config, backend, hub, metrics }))
    }

    /// Publishes events to a stream, which is made when there is none yet; they stand together, in order, and are durable
    /// when this answers. Callers that publish at the same time share a write.
    ///
    /// Dropping the future does not take the events back.
    ///
    /// # Errors
    /// [`Error::Invalid`] (nothing is published), [`Error::Full`], [`Error::TooMany`], [`Error::ReservedName`],
    /// [`Error::NotAStream`], [`Error::Draining`], and those of the backend. An [`Error::Redis`] whose class is `Ambiguous`
    /// means that nobody knows whether they are published.
    pub async fn publish(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        self.check_name(stream)?;
        if self.0.hub.is_draining() {
            return Err(Error::Draining);
        }
        if events.len() > self.0.config.batch_max {
            let reason = format!("{} events, at most {}", events.len(), self.0.config.batch_max);
            return Err(Error::Invalid { field: "events", reason });
        }
        let is_one = events.len() == 1;
        for (index, event) in events.iter().enumerate() {
            event.check(self.0.config.event_bytes_max).map_err(|error| match error {
                Error::Invalid { field, reason } if !is_one => {
                    Error::Invalid { field, reason: format!("of event {index}: {reason}") }
                }
                error => error,
            })?;
        }
        self.publish_checked(stream, events).await
    }

    /// Publishes a dead letter: larger than its event, and also while draining.
    pub(crate) async fn bury(&self, stream: &StreamName, letter: NewEvent) -> Result<Vec<Published>, Error> {
        self.publish_checked(stream, vec![letter]).await
    }

    async fn publish_checked(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let published = self.0.backend.publish(stream, events).await?;
        self.0.metrics.published.add(published.iter().filter(|published| !published.duplicate).count() as u64);
        Ok(published)
    }

    /// What is known about a stream.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub async fn info(&self, stream: &StreamName) -> Result<StreamInfo, Error> {
        self.check_name(stream)?;
        self.0.backend.info(stream).await
    }

    /// A page of streams whose names begin with `prefix`, by name, after one of them.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn list(&self, prefix: &str, after: Option<&StreamName>, limit: usize) -> Result<StreamPage, Error> {
        self.0.backend.list(prefix, after, limit.clamp(1, 1000)).await
    }

    /// Reads events; all it gives are durable.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`], [`Error::Invalid`].
    pub async fn read(&self, stream: &StreamName, read: Read) -> Result<Page, Error> {
        self.check_name(stream)?;
        if !(1..=1000).contains(&read.limit) {
            return Err(Error::Invalid { field: "limit", reason: "1 to 1000".into() });
        }
        self.0.backend.read(stream, read).await
    }

    /// Removes the oldest events and says how many.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<u64, Error> {
        self.check_name(stream)?;
        self.0.backend.trim(stream, trim).await
    }

    /// Deletes streams with all their events and groups; says which of them were there. Listeners of a deleted stream hear a
    /// gap.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn delete(&self, streams: &[StreamName]) -> Result<Vec<bool>, Error> {
        streams.iter().try_for_each(|stream| self.check_name(stream))?;
        let ends = self.0.backend.delete(streams).await?;
        for (stream, end) in streams.iter().zip(&ends) {
            if let Some(end) = end {
                self.0.hub.deleted(stream, *end);
            }
        }
        Ok(ends.iter().map(Option::is_some).collect())
    }

    /// Listens to streams and patterns; see [`Listen`].
    ///
    /// # Errors
    /// [`Error::TooMany`] sources, [`Error::Draining`], and those of the backend.
    pub async fn listen(&self, listen: Listen) -> Result<Listener, Error> {
        for source in &listen.sources {
            if let Some(stream) = source.stream() {
                self.check_name(stream)?;
            }
        }
        self.0.hub.listen(&self.0.backend, listen).await
    }

    /// A consumer group of a stream.
    #[must_use]
    pub fn group(&self, stream: &StreamName, group: &GroupName) -> Group {
        Group::new(self.clone(), stream.clone(), group.clone())
    }

    /// Handlers for the events of many streams, as a consumer of a group on each.
    #[must_use]
    pub fn consumer(&self, group: GroupName, config: ConsumerConfig) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), group, config)
    }

    /// Names streams that match, now and later.
    pub(crate) async fn discover(&self, patterns: Vec<Pattern>) -> Result<Discovery, Error> {
        self.0.hub.discover(&self.0.backend, patterns).await
    }

    /// The groups of a stream.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupInfo>, Error> {
        self.check_name(stream)?;
        self.0.backend.groups(stream).await
    }

    /// What an acknowledgement promises: `sync`, `everysec` or `memory` embedded; on Redis `always`, `everysec`,
    /// `snapshots`, `none` or `unknown`.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        self.0.backend.durability()
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.metrics.stats()
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Ends waits and listeners and takes no publishes from now on.
    pub fn drain(&self) {
        self.0.hub.drain();
    }

    /// Drains, ends all tasks and makes everything durable.
    ///
    /// # Errors
    /// [`Error::Store`] when the last write fails.
    pub async fn close(&self) -> Result<(), Error> {
        self.drain();
        self.0.hub.close().await;
        self.0.backend.close().await
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// Our own keys on Redis are nobody's streams, embedded neither, so that names mean the same in both worlds.
    pub(crate) fn check_name(&self, stream: &StreamName) -> Result<(), Error> {
        let own = self.0.config.redis_prefix.as_ref();
        let is_own = stream.as_str().strip_prefix(own).is_some_and(|rest| rest.starts_with(':'));
        if is_own && self.0.config.redis_stream_prefix.is_empty() {
            return Err(Error::ReservedName { name: stream.to_string(), prefix: format!("{own}:") });
        }
        Ok(())
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("durability", &self.durability())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
