//! From a configuration to a running server, and from a signal to a clean end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_queue::{QueueConfig, QueueName, Queues};
use tidegate_redis_ops::{Class, Error as RedisError};
use tidegate_scheduler::{CpuConfig, CpuPool, Scheduler};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Acceptor, Bounds};
use crate::api;
use crate::app::{App, DEFAULT_QUEUE, Parts};
use crate::auth::{Auth, TokenFileError};
use crate::backend::{Backend, redis_acl};
use crate::browser::Hosts;
use crate::builtin;
use crate::cache::Values;
use crate::config::{self, Config, QueueLimits, StreamLimits};
use crate::gate::Gate;
use crate::limits::sockets_that_fit;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The token file cannot be used: configuration (exit 78).
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The data folder cannot be used (exit 69).
    #[error(transparent)]
    Store(#[from] tidegate_store::Error),
    /// Redis is not there now (exit 69).
    #[error("failed to reach Redis at {place}: {reason}")]
    RedisUnavailable {
        /// Its URL, credentials redacted.
        place: String,
        /// What is in the way, and what to do.
        reason: String,
    },
    /// Redis is there and will not do for us (exit 78).
    #[error("failed to use Redis at {place}: {reason}")]
    RedisUnusable {
        /// Its URL, credentials redacted.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// What is kept in it cannot be used (exit 69).
    #[error("failed to open the queues: {0}")]
    Queues(tidegate_queue::Error),
    /// What is kept in them cannot be used (exit 69).
    #[error("failed to open the event streams: {0}")]
    Streams(tidegate_events::Error),
    /// The cache cannot be used (exit 69).
    #[error("failed to open the cache: {0}")]
    Cache(tidegate_cache::Error),
    /// The scheduler cannot be started (exit 69).
    #[error("failed to start the scheduler: {0}")]
    Scheduler(tidegate_scheduler::Error),
    /// The address cannot be listened on (exit 69).
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

impl StartError {
    /// The process's exit code, as in `sysexits.h`: 69 for something unavailable, 78 for configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Tokens(_) | Self::RedisUnusable { .. } => 78,
            Self::Store(_)
            | Self::RedisUnavailable { .. }
            | Self::Queues(_)
            | Self::Streams(_)
            | Self::Cache(_)
            | Self::Scheduler(_)
            | Self::Listen { .. } => 69,
        }
    }

    /// What a failed first call to the Redis that is configured means for the start.
    pub(crate) fn redis(config: &Config, error: &RedisError) -> Self {
        Self::redis_of("redis", config, error)
    }

    /// What a failed first call to the Redis of a setting means for the start.
    fn redis_of(setting: &str, config: &Config, error: &RedisError) -> Self {
        let place = config.shown(setting);
        let advice = match error.code() {
            "NOPERM" => format!(
                "; its user may not do what is needed; the least is granted by (with its own name and a password)\n  {}",
                redis_acl("tidegate", &config.redis_prefix.0, &config.redis_stream_prefix.0)
            ),
            "WRONGPASS" | "NOAUTH" => {
                "; check user and password in the URL (REDIS_URL, --redis, --cache-redis)".to_owned()
            }
            "LOADING" => "; it still loads its data, try again when it has".to_owned(),
            "OOM" => "; it has used up its maxmemory".to_owned(),
            "READONLY" => "; it is a replica: name the primary, or its Sentinels".to_owned(),
            "DISCONNECTED" => "; is it running, and are address and scheme right?".to_owned(),
            _ => String::new(),
        };
        let said = match error {
            RedisError::NotSent { detail, .. } | RedisError::Lost { detail, .. } => detail.to_string(),
            RedisError::Answer { message, .. } => format!("it answers {message:?}"),
            RedisError::Unusable(reason) => reason.to_string(),
            other => other.to_string(),
        };
        let reason = said + &advice;
        match (error.class(), error.code()) {
            (Class::Transient | Class::Ambiguous, _) | (_, "OOM" | "MISCONF" | "NOREPLICAS") => {
                Self::RedisUnavailable { place, reason }
            }
            _ => Self::RedisUnusable { place, reason },
        }
    }

    /// What a failed call to the queues means for the start.
    fn queues(config: &Config, error: tidegate_queue::Error) -> Self {
        match error {
            tidegate_queue::Error::Redis(error) => Self::redis(config, &error),
            other => Self::Queues(other),
        }
    }

    /// What a failed call to the event streams means for the start.
    fn streams(config: &Config, error: tidegate_events::Error) -> Self {
        match error {
            tidegate_events::Error::Redis(error) => Self::redis(config, &error),
            other => Self::Streams(other),
        }
    }

    /// What a failed first call of the cache means for the start.
    fn cache(config: &Config, error: tidegate_cache::Error) -> Self {
        match error {
            tidegate_cache::Error::Redis(error) if config.cache_redis.get().is_some() => {
                Self::redis_of("cache_redis", config, &error)
            }
            tidegate_cache::Error::Redis(error) => Self::redis(config, &error),
            other => Self::Cache(other),
        }
    }
}

impl From<tidegate_scheduler::Error> for StartError {
    fn from(error: tidegate_scheduler::Error) -> Self {
        Self::Scheduler(error)
    }
}

/// How a server came to its end. Nothing acknowledged is lost in any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything in flight was finished.
    Drained,
    /// The drain's deadline passed: what was still in flight was handed back or cut.
    AtDeadline,
    /// A second signal came during the drain.
    AtOnce,
}

/// A server that listens; it answers once [`Server::run`] is polled.
pub struct Server {
    app: Arc<App>,
    scheduler: Scheduler,
    acceptor: Acceptor<Gate>,
    listener: TcpListener,
    address: SocketAddr,
    /// Ends the accept loop; later than the drain begins.
    closing: CancellationToken,
}

impl Server {
    /// Opens everything, starts the built-in kinds and binds the address.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let registry = Registry::new();
        let auth = open_auth(&config)?;
        let backend = Backend::open(&config, &registry).await?;
        let unusable = |error| StartError::queues(&config, error);
        let queues = backend.queues(queue_config(&config), &registry).await.map_err(unusable)?;
        make_usual_queues(&queues).await.map_err(unusable)?;
        let bus = backend.bus(events_config(&config), &registry).await;
        let bus = bus.map_err(|error| StartError::streams(&config, error))?;
        let cache = Values::open(&backend, &config, &registry).await;
        let cache = cache.map_err(|error| StartError::cache(&config, error))?;
        let asked = config.listen_address();
        let listen_error = |source| StartError::Listen { address: asked, source };
        let listener = accept::bind(asked).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let scheduler = start_scheduler(&config, &queues, &registry).await?;
        let hosts = Hosts::new(address, &config.hosts.0);
        let (bounds, draining, closing) = (bounds(&config), CancellationToken::new(), CancellationToken::new());
        let parts = Parts { config, auth, hosts, queues, bus, cache, backend, registry: registry.clone(), draining };
        let app = Arc::new(App::new(parts));
        let gate = Gate::new(Arc::clone(&app), api::router(&app));
        let acceptor = Acceptor::new(Arc::new(gate), bounds, closing.clone(), &registry);
        Ok(Self { app, scheduler, acceptor, listener, address, closing })
    }

    /// Where it listens; with port 0 the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line for standard output when it is ready.
    pub fn ready_line(&self) -> String {
        let (backend, durability) = (self.app.backend.name(), self.app.queues.durability());
        format!("tidegate listening on http://{} ({backend}, durability: {durability})", self.address)
    }

    /// Answers until `stop` is cancelled, then drains; `cut` ends the drain at once.
    pub async fn run(self, stop: CancellationToken, cut: CancellationToken) -> Ended {
        let Self { app, scheduler, acceptor, listener, closing, .. } = self;
        let drain_when_told = async {
            stop.cancelled().await;
            drain(&app, &scheduler, &acceptor, &closing).await
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => Ended::AtOnce,
            ((), ended) = async { tokio::join!(acceptor.run(listener), drain_when_told) } => ended,
        }
    }
}

/// Requests in flight get this long after the jobs, even when those took the whole deadline.
const REQUESTS_GRACE: Duration = Duration::from_secs(1);

/// 3 s: over which listeners are sent away, so that they do not all come back to another server at once.
const RELEASE_MAX: Duration = Duration::from_secs(3);

/// How often the scheduler may use up its grace after its own deadline: for handlers told to stop, for those dropped, for
/// the CPU pool, for its tasks.
const DRAIN_GRACES: u32 = 4;

/// What of the drain's time is kept for what must still be stopped when jobs did not finish: a twentieth each.
fn drain_grace(time: Duration) -> Duration {
    (time / 20).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

/// Waits end, listeners are sent away and `/readyz` turns 503; jobs finish while workers can still report theirs; then
/// requests end, and everything is made durable.
async fn drain(app: &App, scheduler: &Scheduler, acceptor: &Acceptor<Gate>, closing: &CancellationToken) -> Ended {
    let time = app.config.drain_timeout;
    let deadline = Instant::now() + time;
    tracing::info!(deadline_ms = time.as_millis() as u64, "draining");
    app.draining.cancel();
    app.queues.drain();
    let jobs = scheduler.drain(time.saturating_sub(drain_grace(time) * DRAIN_GRACES));
    let listeners = async {
        acceptor.release_listeners((time / 3).min(RELEASE_MAX)).await;
        app.bus.drain();
    };
    let (report, ()) = tokio::join!(jobs, listeners);
    closing.cancel();
    let cut = acceptor.finish(deadline.max(Instant::now() + REQUESTS_GRACE)).await;
    app.cache.close(REQUESTS_GRACE).await;
    app.backend.close(&app.queues, &app.bus, REQUESTS_GRACE).await;
    let is_clean = cut == 0 && report.interrupted == 0 && report.stuck == 0;
    tracing::info!(
        connections_cut = cut,
        jobs_finished = report.finished,
        jobs_handed_back = report.handed_back,
        "drained"
    );
    if is_clean { Ended::Drained } else { Ended::AtDeadline }
}

/// The queues that jobs go to without being told: made before any other can take their place.
async fn make_usual_queues(queues: &Queues) -> Result<(), tidegate_queue::Error> {
    for name in [DEFAULT_QUEUE, builtin::QUEUE] {
        match queues.queue(&QueueName::new(name)?).await {
            // A folder from before may be full of others.
            Err(error @ tidegate_queue::Error::TooManyQueues { .. }) => {
                tracing::warn!(%error, name, "a usual queue is missing");
            }
            made => drop(made?),
        }
    }
    Ok(())
}

fn queue_config(config: &Config) -> tidegate_queue::Config {
    tidegate_queue::Config {
        lease: config.lease,
        payload_max: config.body_bytes_max.as_usize(),
        jobs_max: config.jobs_max as u64,
        bytes_max: config.bytes_max.0,
        default: limits_of(&config.queue_limits()),
        queues: config.queues.iter().map(|(name, limits)| (name.clone(), limits_of(limits))).collect(),
        redis_prefix: config.redis_prefix.0.as_str().into(),
        ..tidegate_queue::Config::default()
    }
}

fn limits_of(limits: &QueueLimits) -> QueueConfig {
    let limit = |count: usize| u32::try_from(count).ok().filter(|count| *count > 0);
    QueueConfig {
        jobs_max: limits.jobs_max as u64,
        bytes_max: limits.bytes_max.0,
        overflow: match limits.overflow {
            config::Overflow::Reject => tidegate_queue::Overflow::Reject,
            config::Overflow::DropOldest => tidegate_queue::Overflow::DropOldest,
            config::Overflow::DropNewest => tidegate_queue::Overflow::DropNewest,
        },
        key_limit: limit(limits.key_limit),
        running_limit: limit(limits.running_limit),
        finished_max: limits.finished_max as u64,
        ..QueueConfig::default()
    }
}

fn events_config(config: &Config) -> tidegate_events::Config {
    let streams = config.streams.iter();
    tidegate_events::Config {
        streams_max: config.streams_max,
        event_bytes_max: config.event_bytes_max.as_usize(),
        bytes_max: config.streams_bytes_max.0,
        retention: retention_of(config.stream_limits()),
        retentions: streams.map(|(pattern, limits)| (pattern.clone(), retention_of(*limits))).collect(),
        idempotence_max: config.events_idempotence_max,
        idempotence_window: config.events_idempotence_window,
        batch_max: config.events_batch_max,
        batch_wait: config.events_batch_wait,
        ring_bytes_max: config.events_ring_bytes_max.as_usize(),
        rings_bytes_max: config.events_rings_bytes_max.as_usize(),
        heartbeat: config.sse_heartbeat,
        sources_max: config.sse_streams_max,
        direct_streams_max: config.events_direct_streams_max,
        groups_max: config.groups_max,
        pending_max: config.group_pending_max,
        deliveries_max: u32::try_from(config.group_deliveries_max).unwrap_or(u32::MAX),
        min_idle: config.group_min_idle,
        redis_prefix: config.redis_prefix.0.as_str().into(),
        redis_stream_prefix: config.redis_stream_prefix.0.as_str().into(),
        ..tidegate_events::Config::default()
    }
}

fn retention_of(limits: StreamLimits) -> tidegate_events::Retention {
    tidegate_events::Retention {
        length_max: Some(limits.length_max as u64).filter(|length| *length > 0),
        age_max: Some(limits.age_max).filter(|age| !age.is_zero()),
    }
}

async fn start_scheduler(config: &Config, queues: &Queues, registry: &Registry) -> Result<Scheduler, StartError> {
    let cpu = CpuConfig { threads: Some(config.cpu_threads).filter(|threads| *threads > 0), ..CpuConfig::default() };
    let pool = CpuPool::new(&cpu, registry)?;
    let limits = builtin::Limits { result_bytes_max: config.body_bytes_max.as_usize() };
    let settings = tidegate_scheduler::Config {
        permits_max: config.workers,
        worker: "builtin".into(),
        drain_grace: drain_grace(config.drain_timeout),
        cpu,
        ..Default::default()
    };
    let builder = Scheduler::builder(queues.clone(), registry.clone(), settings).serve(usual_queue(builtin::QUEUE)?);
    builtin::register(builder, &pool, limits).start().await.map_err(|error| match error {
        tidegate_scheduler::Error::Queue(error) => StartError::queues(config, error),
        other => other.into(),
    })
}

fn usual_queue(name: &str) -> Result<QueueName, StartError> {
    QueueName::new(name).map_err(StartError::Queues)
}

fn open_auth(config: &Config) -> Result<Auth, StartError> {
    let Some(path) = &config.token_file else {
        if !config.listen_address().ip().is_loopback() {
            tracing::warn!(listen = %config.listen_address(), "listening beyond loopback without tokens, as --insecure-public asks");
        }
        return Ok(Auth::open());
    };
    let (auth, warning) = Auth::from_file(path)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(auth)
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        descriptors_max: sockets_that_fit(config.connections_max, config.sse_max),
        connections_max: config.connections_max,
        connections_per_address_max: config.connections_per_address_max,
        head_timeout: config.head_timeout,
        idle_timeout: config.idle_timeout,
        write_timeout: config.write_timeout,
        feed_buffer: config.sse_send_buffer.as_usize(),
        feed_stall_timeout: config.sse_stall_timeout,
    }
}

/// Tokens that are cancelled by the first and by the second SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_signals() -> std::io::Result<(CancellationToken, CancellationToken)> {
    use tokio::signal::unix::{SignalKind, signal};
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tokens = [stop.clone(), cut.clone()];
    // Ends after the second signal or with the runtime; it holds nothing.
    tokio::spawn(async move {
        for token in tokens {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok((stop, cut))
}

/// The OpenAPI document as JSON.
pub fn openapi_json() -> String {
    api::document().to_pretty_json().unwrap_or_default()
}

#[cfg(test)]
pub(crate) async fn app_for_tests() -> App {
    let config = crate::config::resolve(&Default::default(), &Default::default(), None).unwrap().config;
    let registry = Registry::new();
    let backend = Backend::Embedded(tidegate_store::Store::memory(&crate::backend::tables()));
    let queues = backend.queues(queue_config(&config), &registry).await.unwrap();
    let bus = backend.bus(events_config(&config), &registry).await.unwrap();
    let cache = Values::open(&backend, &config, &registry).await.unwrap();
    let hosts = Hosts::new(config.listen_address(), &[]);
    let draining = CancellationToken::new();
    App::new(Parts { config, auth: Auth::open(), hosts, queues, bus, cache, backend, registry, draining })
}
