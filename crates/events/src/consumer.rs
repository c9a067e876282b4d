//! Handlers for the events of many streams: found as they are made, claimed in batches, acknowledged when done.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use futures_util::{FutureExt, TryFutureExt};
use tidegate_metrics::{Counter, Gauge, Registry};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::router::Router;
use crate::{Bus, Claim, Delivery, Error, EventId, Group, GroupName, Pattern, Source, StreamName};

/// A claim waits for as long as nothing happens; it is woken, it does not poll.
const CLAIM_WAIT: Duration = Duration::from_secs(86_400);
/// Waits after claims that failed: exponential with full jitter between these.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Streams that begin to be consumed at the same time (seed 003's batches of 10).
const STARTS_MAX: usize = 10;

type Handler = Arc<dyn Fn(Consumed) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// An event for a handler.
#[derive(Clone, Debug)]
pub struct Consumed {
    /// Where it came from.
    pub stream: StreamName,
    /// The event, and how often it was delivered.
    pub delivery: Delivery,
}

/// How a [`Consumer`] works.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Its name within the group; two that run at the same time need two names.
    pub name: Box<str>,
    /// Events per claim (100).
    pub batch_max: usize,
    /// Events of one stream handled at once. One (the default) keeps their order.
    pub concurrency: usize,
    /// As [`Claim::min_idle`]; longer than any batch takes, or its events are handled twice.
    pub min_idle: Option<Duration>,
    /// How long an event waits for its next delivery after a handler failed on it: twice as long each time, from the first
    /// to the second (1 s, 10 s), so that a trouble that passes does not make dead letters. Shorter than `min_idle`.
    pub backoff: (Duration, Duration),
}

impl ConsumerConfig {
    /// The defaults under a name.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        let backoff = (Duration::from_secs(1), Duration::from_secs(10));
        Self { name: name.into(), batch_max: 100, concurrency: 1, min_idle: None, backoff }
    }
}

/// What a consumer has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerStats {
    /// Streams it consumes.
    pub streams: u64,
    /// Events handled and acknowledged.
    pub handled: u64,
    /// Events no handler wanted; acknowledged.
    pub unrouted: u64,
    /// Events a handler failed on.
    pub failed: u64,
    /// Claims and acknowledgements that failed; repeated after a wait.
    pub errors: u64,
}

#[derive(Clone, Debug)]
struct Meters {
    streams: Gauge,
    handled: Counter,
    unrouted: Counter,
    failed: Counter,
    errors: Counter,
}

impl Meters {
    fn new(registry: &Registry, group: &GroupName) -> Self {
        let labels = [("group", group.as_str())];
        let counter = |name, help| registry.counter_with(name, help, &labels);
        Self {
            streams: registry.gauge_with(
                "tidegate_events_consumed_streams",
                "Streams consumed by this process.",
                &labels,
            ),
            handled: counter("tidegate_events_handled_total", "Events handled and acknowledged."),
            unrouted: counter("tidegate_events_unrouted_total", "Events no handler wanted; acknowledged."),
            failed: counter("tidegate_events_failed_total", "Events a handler failed on."),
            errors: counter("tidegate_events_consume_errors_total", "Claims and acknowledgements that failed."),
        }
    }
}

/// Collects handlers.
pub struct ConsumerBuilder {
    bus: Bus,
    group: GroupName,
    config: ConsumerConfig,
    sources: Vec<Source>,
    handlers: Router<Handler>,
}

impl ConsumerBuilder {
    pub(crate) fn new(bus: Bus, group: GroupName, config: ConsumerConfig) -> Self {
        Self { bus, group, config, sources: Vec::new(), handlers: Router::default() }
    }

    /// Consumes a stream, or all that match a pattern, now and later.
    #[must_use]
    pub fn consume(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Handles events whose type matches: `order.created`, `order.*`, `order.**`. Of several handlers that match, all run,
    /// one after the other; the event is acknowledged when none failed. An event without a type is matched by `**` alone. One
    /// that no handler matches is acknowledged, too, and counted as `unrouted`.
    #[must_use]
    pub fn handle<F, Fut, E>(mut self, types: &Pattern, handler: F) -> Self
    where
        F: Fn(Consumed) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let handler: Handler = Arc::new(move |consumed| handler(consumed).map_err(|error| error.to_string()).boxed());
        self.handlers.add(types, handler);
        self
    }

    /// Starts to consume. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Invalid`] without sources or handlers, and those of the backend.
    pub async fn start(self, registry: &Registry) -> Result<Consumer, Error> {
        let invalid = |field, reason: &str| Err(Error::Invalid { field, reason: reason.into() });
        if self.sources.is_empty() {
            return invalid("sources", "at least one");
        }
        if self.handlers.is_empty() {
            return invalid("handlers", "at least one");
        }
        if !(1..=1000).contains(&self.config.batch_max) || self.config.concurrency == 0 {
            return invalid("batch_max", "1 to 1000, concurrency at least 1");
        }
        let named = self.sources.iter().filter_map(Source::stream).cloned().collect();
        let patterns = self.sources.iter().map(|source| match source {
            Source::Stream(stream) => Pattern::new(stream.as_str()),
            Source::Pattern(pattern) => Ok(pattern.clone()),
        });
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let mut discovery = self.bus.discover(patterns).await?;
        let shared = Arc::new(Shared {
            meters: Meters::new(registry, &self.group),
            bus: self.bus,
            group: self.group,
            config: self.config,
            handlers: self.handlers,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            starts: tokio::sync::Semaphore::new(STARTS_MAX),
            named,
        });
        let of_all = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            loop {
                let stream = tokio::select! {
                    stream = discovery.next() => stream,
                    () = of_all.stop.cancelled() => return,
                };
                // Its own dead letters are for others to look at.
                if of_all.is_own_grave(&stream) {
                    continue;
                }
                of_all.meters.streams.add(1.0);
                of_all.tasks.spawn(Arc::clone(&of_all).consume(stream));
            }
        });
        Ok(Consumer(shared))
    }
}

/// Consumes until it is stopped. A cheap clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tidegate_events::*;
///
/// let registry = tidegate_metrics::Registry::new();
/// let bus = Bus::open(tidegate_store::Store::memory(TABLES), 0, Config::default(), &registry).await?;
/// let (done, mut handled) = tokio::sync::mpsc::channel(1);
/// let consumer = bus
///     .consumer(GroupName::new("mail")?, ConsumerConfig::new("worker-1"))
///     .consume(Source::parse("orders.*")?)
///     .handle(&Pattern::new("order.created")?, move |event: Consumed| {
///         let done = done.clone();
///         async move { done.send(event.delivery.event.data).await }
///     })
///     .start(&registry)
///     .await?;
/// bus.publish(&StreamName::new("orders.eu")?, vec![NewEvent::new("7").kind("order.created")]).await?;
/// assert_eq!(handled.recv().await.as_deref(), Some(&b"7"[..]));
/// consumer.stop().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Consumer(Arc<Shared>);

struct Shared {
    bus: Bus,
    group: GroupName,
    config: ConsumerConfig,
    handlers: Router<Handler>,
    meters: Meters,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// First claims make groups: not all at once.
    starts: tokio::sync::Semaphore,
    /// Streams that were asked for by name.
    named: Vec<StreamName>,
}

impl Consumer {
    /// Finishes the batches under way and stops. What they do not acknowledge is delivered to others later.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        let Meters { streams, handled, unrouted, failed, errors } = &self.0.meters;
        ConsumerStats {
            streams: streams.get() as u64,
            handled: handled.get(),
            unrouted: unrouted.get(),
            failed: failed.get(),
            errors: errors.get(),
        }
    }
}

impl Shared {
    /// Whether a stream is where this group's dead letters lie and only a pattern led there.
    fn is_own_grave(&self, stream: &StreamName) -> bool {
        let is_grave = stream.as_str().strip_suffix(self.group.as_str()).is_some_and(|rest| rest.ends_with(".dead."));
        is_grave && !self.named.contains(stream)
    }

    /// One stream, batch after batch.
    async fn consume(self: Arc<Self>, stream: StreamName) {
        let group = self.bus.group(&stream, &self.group);
        let mut claim = Claim {
            consumer: self.config.name.clone(),
            limit: self.config.batch_max,
            wait: Duration::ZERO,
            min_idle: self.config.min_idle,
        };
        let (mut failures, mut first) = (0, self.starts.acquire().await.ok());
        while !self.stop.is_cancelled() {
            let claimed = tokio::select! {
                claimed = group.claim(claim.clone()) => claimed,
                () = self.stop.cancelled() => return,
            };
            first.take();
            claim.wait = CLAIM_WAIT;
            let acknowledged = match claimed {
                Ok(deliveries) => Arc::clone(&self).handle_all(&group, &stream, deliveries).await,
                // Deleted; it may be made again.
                Err(Error::StreamNotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            };
            match acknowledged {
                Ok(()) => failures = 0,
                Err(Error::Draining) => return,
                Err(error) => {
                    self.meters.errors.inc();
                    tracing::warn!(%stream, group = %self.group, %error, "consuming failed, trying again");
                    self.pause(failures).await;
                    failures += 1;
                }
            }
        }
    }

    async fn handle_all(
        self: Arc<Self>,
        group: &Group,
        stream: &StreamName,
        deliveries: Vec<Delivery>,
    ) -> Result<(), Error> {
        let handled = stream::iter(deliveries.into_iter().map(|delivery| {
            let (id, times) = (delivery.event.id, delivery.deliveries);
            self.handle(Consumed { stream: stream.clone(), delivery }).map(move |outcome| (id, times, outcome))
        }));
        let outcomes: Vec<(EventId, u32, Result<(), String>)> =
            handled.buffered(self.config.concurrency).collect().await;
        let done: Vec<EventId> =
            outcomes.iter().filter(|(_, _, outcome)| outcome.is_ok()).map(|(id, ..)| *id).collect();
        if !done.is_empty() {
            group.ack(&done).await?;
        }
        for (id, times, outcome) in outcomes {
            if let Err(error) = outcome {
                self.meters.failed.inc();
                let failing = Arc::clone(&self).fail_later(group.clone(), id, times, error);
                self.tasks.spawn(failing);
            }
        }
        Ok(())
    }

    /// Gives an event back when it has waited; one that had its last delivery is put aside at once. What a stop leaves is
    /// delivered again when it has been idle for long enough.
    async fn fail_later(self: Arc<Self>, group: Group, id: EventId, times: u32, error: String) {
        let (first, most) = self.config.backoff;
        if times < self.bus.config().deliveries_max {
            let wait = first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(most);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
        if let Err(failure) = group.fail(&[id], &error).await {
            self.meters.errors.inc();
            tracing::warn!(group = %self.group, event = %id, error = %failure, "a failed event was not given back yet");
        }
    }

    /// Runs every handler that matches.
    async fn handle(&self, consumed: Consumed) -> Result<(), String> {
        let kind = consumed.delivery.event.kind.clone().unwrap_or_default();
        let kind = String::from_utf8_lossy(&kind).into_owned();
        let handlers: Vec<Handler> = self.handlers.find(&kind).cloned().collect();
        if handlers.is_empty() {
            self.meters.unrouted.inc();
            return Ok(());
        }
        for handler in handlers {
            let running = AssertUnwindSafe(async { handler(consumed.clone()).await });
            running.catch_unwind().await.unwrap_or_else(|_| Err("the handler panicked".to_owned()))?;
        }
        self.meters.handled.inc();
        Ok(())
    }

    async fn pause(&self, failures: u32) {
        let (base, cap) = BACKOFF;
        let most = base.saturating_mul(1 << failures.min(10)).min(cap);
        let share = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), failures) % 1000;
        tokio::select! {
            () = tokio::time::sleep(most.mul_f64(share as f64 / 1000.0)) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("group", &self.0.group).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder").field("group", &self.group).finish_non_exhaustive()
    }
}
