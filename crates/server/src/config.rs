//! Settings: one table says the name, default, bounds and meaning of each. From it come the fields of [`Config`], the
//! flags, the environment names, the keys of the file, `config print` and `docs/configuration.md`.
//!
//! Flags win over the environment, the environment over the file, the file over the defaults. What is wrong is reported
//! all at once, each with its source, its value and what is accepted.

mod docs;
mod resolve;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_events::Pattern;
use tidegate_queue::QueueName;

pub use docs::{markdown, toml as to_toml};
pub use resolve::{ConfigError, Flags, Origin, Resolved, resolve};
pub use value::{
    Bounds, Bytes, DropPolicy, Durability, Hosts, Listen, LogFormat, Overflow, Percent, RedisPrefix, RedisUrl,
    StreamPrefix, Value,
};

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// Key in the file: `lease`. The flag is the same with dashes.
    pub key: &'static str,
    /// Name in the environment.
    pub env: &'static str,
    /// Default, as one would write it; empty for none.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// What is accepted, in words.
    pub accepts: fn(Bounds) -> String,
    /// Why a text is refused, in words.
    pub refusal: fn(&str, Bounds) -> String,
    /// Limits of a number; the type decides what it counts.
    pub bounds: Bounds,
    /// A switch: its flag needs no value.
    pub is_switch: bool,
    /// Where it can be given.
    pub section: &'static str,
}

impl Setting {
    /// The flag without its dashes: `token-file`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// What it was called before, in the file and (with dashes) as a flag.
    pub fn old_key(&self) -> Option<&'static str> {
        (self.key == "sse_max").then_some("followers_max")
    }

    /// Another name in the environment, which counts when [`env`](Self::env) is not set: `BLOCKING_POOL_MIN`.
    pub fn env_alias(&self) -> Option<&'static str> {
        if self.key == "sse_max" {
            return Some("TIDEGATE_FOLLOWERS_MAX");
        }
        self.env.strip_prefix("REDIS_").filter(|name| name.starts_with("BLOCKING_POOL_"))
    }
}

macro_rules! settings {
    ($($section:literal { $($key:ident: $type:ty = $default:literal, $env:literal, $min:expr => $max:expr, $help:literal;)* })*) => {
        /// Everything that can be set, checked and typed.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(#[doc = $help] pub $key: $type,)*)*
            /// Queues with limits of their own, from `[queues.NAME]` in the file.
            pub queues: BTreeMap<QueueName, QueueLimits>,
            /// Streams with limits of their own, from `[streams."PATTERN"]` in the file; the first match counts.
            pub streams: Vec<(Pattern, StreamLimits)>,
        }

        /// The table.
        pub static SETTINGS: &[Setting] = &[$($(Setting {
            key: stringify!($key),
            env: $env,
            default: $default,
            help: $help,
            accepts: <$type as Value>::accepts,
            refusal: <$type as Value>::refusal,
            bounds: Bounds { min: $min, max: $max },
            is_switch: <$type as Value>::IS_SWITCH,
            section: $section,
        },)*)*];

        impl Config {
            /// Reads every field with `read`; fields that cannot be read keep `read`'s errors and their default.
            fn build(read: &mut resolve::Reader<'_>) -> Option<Self> {
                $($(let $key = read.value::<$type>(stringify!($key));)*)*
                Some(Self { $($($key: $key?,)*)* queues: BTreeMap::new(), streams: Vec::new() })
            }

            /// The value of a setting as one would write it, secrets redacted.
            pub fn shown(&self, key: &str) -> String {
                match key {
                    $($(stringify!($key) => self.$key.show(),)*)*
                    _ => String::new(),
                }
            }
        }
    };
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const NONE: u64 = 0;

settings! {
    "Where it listens and who may call" {
        listen: Listen = "127.0.0.1:7700", "TIDEGATE_LISTEN", NONE => NONE, "Address and port to listen on; port 0 takes a free one.";
        token_file: Option<PathBuf> = "", "TIDEGATE_TOKEN_FILE", NONE => NONE, "File of token hashes (`tidegate token create`). With it every API call needs a token.";
        insecure_public: bool = "false", "TIDEGATE_INSECURE_PUBLIC", NONE => NONE, "Listen beyond loopback without tokens: whoever reaches the port may do everything.";
        hosts: Hosts = "", "TIDEGATE_HOSTS", NONE => NONE, "Further host names this server answers for, besides loopback names and the listen address.";
    }
    "Where jobs and events are kept" {
        redis: RedisUrl = "", "REDIS_URL", NONE => NONE, "Redis to keep jobs, events and values of the cache in, shared by any number of servers, instead of the embedded store: see [several servers](servers.md).";
        redis_prefix: RedisPrefix = "tidegate", "TIDEGATE_REDIS_PREFIX", NONE => NONE, "What the names of keys and channels on Redis begin with: servers with the same one share their queues.";
        redis_stream_prefix: StreamPrefix = "", "TIDEGATE_REDIS_STREAM_PREFIX", NONE => NONE, "What the keys of event streams on Redis begin with, before the stream's name; none: the name is the key, and streams of others are seen.";
        data: PathBuf = "./tidegate-data", "TIDEGATE_DATA", NONE => NONE, "Folder of the embedded store. One process at a time may use it.";
        durability: Durability = "sync", "TIDEGATE_DURABILITY", NONE => NONE, "When a write is answered: `sync` after fsync, `everysec` before (up to 1 s may be lost with the machine), `memory` keeps nothing.";
        disk_reserve: Bytes = "64MiB", "TIDEGATE_DISK_RESERVE", NONE => 1024 * GIB, "Free space below which nothing new is accepted (503), so that work in progress can still end.";
        repair: bool = "false", "TIDEGATE_REPAIR", NONE => NONE, "Set damaged records aside at the start instead of refusing to start.";
    }
    "Connections to Redis" {
        redis_pool_min: usize = "2", "REDIS_POOL_MIN", 1 => 1000, "Connections kept open, per node in a cluster; all calls share them.";
        redis_pool_max: usize = "10", "REDIS_POOL_MAX", 1 => 1000, "Connections at most, per node in a cluster, at least redis_pool_min. More than two bring nothing: they are shared, not lent.";
        redis_pool_acquire_timeout: Duration = "5s", "REDIS_POOL_ACQUIRE_TIMEOUT", 100 => HOUR, "How long a call to Redis waits; no call ever waits for a connection of its own, so this is the time for its reply.";
        redis_pool_idle_timeout: Duration = "30s", "REDIS_POOL_IDLE_TIMEOUT", 1 => 24 * HOUR, "Accepted and without effect: shared connections stay open.";
        redis_pool_health_check_interval: Duration = "15s", "REDIS_POOL_HEALTH_CHECK_INTERVAL", 100 => HOUR, "How often an idle connection is asked for a sign of life.";
        redis_blocking_pool_min: usize = "5", "REDIS_BLOCKING_POOL_MIN", 0 => 1000, "Connections for blocking reads kept open once used. Event streams need one, however many listen.";
        redis_blocking_pool_max: usize = "50", "REDIS_BLOCKING_POOL_MAX", 1 => 10_000, "Connections for blocking reads at most, at least redis_blocking_pool_min.";
        redis_blocking_pool_acquire_timeout: Duration = "5s", "REDIS_BLOCKING_POOL_ACQUIRE_TIMEOUT", 1 => HOUR, "How long a reader waits for one of them.";
        redis_blocking_pool_idle_timeout: Duration = "60s", "REDIS_BLOCKING_POOL_IDLE_TIMEOUT", 1 => 24 * HOUR, "When an unused one of them is closed, down to redis_blocking_pool_min.";
        redis_registry_refresh_interval: Duration = "30s", "REDIS_REGISTRY_REFRESH_INTERVAL", 100 => 24 * HOUR, "When the list of event streams is renewed by the next who asks for it; what is made or deleted through Tidegate shows at once.";
        redis_registry_cache_expiry: Duration = "60s", "REDIS_REGISTRY_CACHE_EXPIRY", 100 => 24 * HOUR, "When an old list of event streams is no longer used, at least redis_registry_refresh_interval.";
    }
    "Queues and workers" {
        lease: Duration = "10s", "TIDEGATE_LEASE", SECOND => HOUR, "How long a claimed job stays with a worker that sends no beat.";
        queue_jobs_max: usize = "1000000", "TIDEGATE_QUEUE_JOBS_MAX", 1 => 1_000_000_000, "Unfinished jobs per queue; beyond it submissions are refused with 429.";
        queue_bytes_max: Bytes = "1GiB", "TIDEGATE_QUEUE_BYTES_MAX", MIB => 1024 * GIB, "Bytes of unfinished jobs per queue; beyond it submissions are refused with 429.";
        jobs_max: usize = "4000000", "TIDEGATE_JOBS_MAX", 1 => 1_000_000_000, "Unfinished jobs of all queues together (half a KiB of memory each); beyond it submissions are refused with 429.";
        bytes_max: Bytes = "4GiB", "TIDEGATE_BYTES_MAX", MIB => 1024 * GIB, "Bytes of unfinished jobs of all queues together; beyond it submissions are refused with 429.";
        queue_overflow: Overflow = "reject", "TIDEGATE_QUEUE_OVERFLOW", NONE => NONE, "What a full queue does: `reject` refuses the new job; `drop_oldest` and `drop_newest` move a waiting job of the least urgent priority to the dead letter set.";
        queue_finished_max: usize = "10000", "TIDEGATE_QUEUE_FINISHED_MAX", 0 => 10_000, "Finished jobs kept per queue; beyond it the oldest is forgotten, failed ones last.";
        queue_key_limit: usize = "0", "TIDEGATE_QUEUE_KEY_LIMIT", 0 => 1_000_000_000, "Running jobs per fairness key; 0 for no limit.";
        queue_running_limit: usize = "0", "TIDEGATE_QUEUE_RUNNING_LIMIT", 0 => 1_000_000_000, "Running jobs per queue; 0 for no limit.";
        workers: usize = "10", "TIDEGATE_WORKERS", 1 => 10_000, "Built-in jobs running at once.";
        cpu_threads: usize = "0", "TIDEGATE_CPU_THREADS", 0 => 1024, "Threads for computations; 0 takes one per core.";
    }
    "Event streams" {
        streams_max: usize = "100000", "TIDEGATE_STREAMS_MAX", 1 => 10_000_000, "Streams at most (embedded), and names in the list of streams (Redis); beyond it a publish to a new one is refused with 429.";
        streams_bytes_max: Bytes = "4GiB", "TIDEGATE_STREAMS_BYTES_MAX", MIB => 1024 * GIB, "Bytes of all events together, embedded; beyond it publishing is refused with 429. On Redis its maxmemory decides.";
        stream_length_max: usize = "1000000", "TIDEGATE_STREAM_LENGTH_MAX", 0 => 1_000_000_000, "Events kept per stream; the oldest beyond go a little later, in batches. 0 for no limit.";
        stream_age_max: Duration = "7d", "TIDEGATE_STREAM_AGE_MAX", 0 => 3650 * 24 * HOUR, "Events older than this go, a little later. 0 for no limit.";
        event_bytes_max: Bytes = "1MiB", "TIDEGATE_EVENT_BYTES_MAX", KIB => 64 * MIB, "The largest data of one event.";
        events_idempotence_max: usize = "100000", "TIDEGATE_EVENTS_IDEMPOTENCE_MAX", 0 => 10_000_000, "Ids of publishers remembered per stream, so that an event published again is not kept twice; beyond it the oldest is forgotten.";
        events_idempotence_window: Duration = "1d", "TIDEGATE_EVENTS_IDEMPOTENCE_WINDOW", SECOND => 365 * 24 * HOUR, "How long they are remembered.";
        events_batch_max: usize = "1000", "TIDEGATE_EVENTS_BATCH_MAX", 1 => 10_000, "Events of one publish, and of publishes that share a write, at most.";
        events_batch_wait: Duration = "0ms", "TIDEGATE_EVENTS_BATCH_WAIT", 0 => SECOND, "Redis: how long a write waits for more events to gather; 0: it goes at once, and what comes while it is under way makes up the next, as always embedded.";
        events_ring_bytes_max: Bytes = "1MiB", "TIDEGATE_EVENTS_RING_BYTES_MAX", 4 * KIB => GIB, "Newest events of a stream that somebody listens to, held in memory for all its listeners; who falls behind further reads the log.";
        events_rings_bytes_max: Bytes = "64MiB", "TIDEGATE_EVENTS_RINGS_BYTES_MAX", 4 * KIB => 64 * GIB, "The same for all streams together.";
        events_direct_streams_max: usize = "100", "TIDEGATE_EVENTS_DIRECT_STREAMS_MAX", 1 => 1000, "Redis: streams with listeners that are read directly; for those beyond, publishers ring.";
        groups_max: usize = "1000", "TIDEGATE_GROUPS_MAX", 1 => 1_000_000, "Consumer groups per stream.";
        group_pending_max: usize = "100000", "TIDEGATE_GROUP_PENDING_MAX", 1 => 10_000_000, "Deliveries of a group that wait to be acknowledged; beyond it the group gets nothing new.";
        group_deliveries_max: usize = "5", "TIDEGATE_GROUP_DELIVERIES_MAX", 1 => 1_000_000, "An event delivered so often and not acknowledged goes to the dead letters, the stream `{stream}.dead.{group}`.";
        group_min_idle: Duration = "30s", "TIDEGATE_GROUP_MIN_IDLE", 0 => 24 * HOUR, "A delivery not acknowledged for so long is delivered again, unless the claim says otherwise (`minIdleMs`).";
    }
    "Cache" {
        cache_redis: RedisUrl = "", "TIDEGATE_CACHE_REDIS", NONE => NONE, "Redis for the cache alone, shared by any number of servers; without it the one in `redis`, if any. One of its own may evict, which no Redis with jobs may: see [the cache](cache.md#a-redis-of-its-own).";
        cache_entries_max: usize = "10000", "TIDEGATE_CACHE_ENTRIES_MAX", 1 => 1_073_741_824, "Values held in memory; beyond it those asked for least make room (`maxSize`).";
        cache_bytes_max: Bytes = "256MiB", "TIDEGATE_CACHE_BYTES_MAX", 64 * KIB => 16_384 * GIB, "Bytes of them, with their keys and what keeping them takes.";
        cache_value_bytes_max: Bytes = "1MiB", "TIDEGATE_CACHE_VALUE_BYTES_MAX", KIB => 256 * MIB, "The largest value; beyond it 413.";
        cache_ttl: Duration = "1h", "TIDEGATE_CACHE_TTL", 1 => 3650 * 24 * HOUR, "How long a value is kept that was set without a `ttl`.";
        cache_ttl_max: Duration = "30d", "TIDEGATE_CACHE_TTL_MAX", 1 => 3650 * 24 * HOUR, "The longest `ttl`, at least cache_ttl; whoever asks for more gets this.";
        cache_ttl_jitter: Percent = "5%", "TIDEGATE_CACHE_TTL_JITTER", 0 => 50, "By how much chance shortens a `ttl`, so that what was set together does not expire together.";
        cache_staleness_max: Duration = "2s", "TIDEGATE_CACHE_STALENESS_MAX", 200 => HOUR, "Redis: a value that another server changed is given from memory no longer than this, whatever happens to the link.";
        cache_redis_timeout: Duration = "250ms", "TIDEGATE_CACHE_REDIS_TIMEOUT", 1 => 60 * SECOND, "Redis: how long a call of the cache may take; then 503.";
        cache_compress_from: Bytes = "1KiB", "TIDEGATE_CACHE_COMPRESS_FROM", 0 => GIB, "Redis: values from this size on are compressed there where that saves a tenth; 0: none.";
        cache_queue_max: usize = "10000", "TIDEGATE_CACHE_QUEUE_MAX", 1 => 10_000_000, "Queued invalidations that may wait (`maxQueueSize`); one that is dropped beyond is covered by invalidating everything.";
        cache_queue_drop: DropPolicy = "oldest", "TIDEGATE_CACHE_QUEUE_DROP", NONE => NONE, "Which one is dropped (`queueDropPolicy`).";
        cache_auto_invalidate: bool = "true", "TIDEGATE_CACHE_AUTO_INVALIDATE", NONE => NONE, "Whether queued invalidations are applied as they come (`autoInvalidate`); otherwise when somebody asks for it.";
        cache_hottest_saved: usize = "1000", "TIDEGATE_CACHE_HOTTEST_SAVED", 0 => 8192, "Redis: so many of the keys asked for most are written down at the end, and fetched into memory after the next start; 0: none.";
    }
    "Limits of requests" {
        body_bytes_max: Bytes = "16MiB", "TIDEGATE_BODY_BYTES_MAX", KIB => GIB, "Largest request body; beyond it 413.";
        bodies_bytes_max: Bytes = "256MiB", "TIDEGATE_BODIES_BYTES_MAX", KIB => 64 * GIB, "Request bodies held at once, all together; beyond it 503.";
        answers_bytes_max: Bytes = "256MiB", "TIDEGATE_ANSWERS_BYTES_MAX", KIB => 64 * GIB, "Bytes of answers that clients have not read yet, all together; beyond it 503.";
        requests_max: usize = "8192", "TIDEGATE_REQUESTS_MAX", 1 => 1_000_000, "Requests answered at once; beyond it 503.";
        waiting_claims_max: usize = "4096", "TIDEGATE_WAITING_CLAIMS_MAX", 0 => 1_000_000, "Claims waiting for a job or an event at once, fewer than requests_max; beyond it a claim is answered at once with what there is.";
        requests_per_second_max: usize = "0", "TIDEGATE_REQUESTS_PER_SECOND_MAX", 0 => 10_000_000, "Requests taken per second, all callers together; beyond it 429. 0 for no limit.";
        connections_max: usize = "16384", "TIDEGATE_CONNECTIONS_MAX", 1 => 1_000_000, "Connections open at once, some 24 KB each; beyond it 503. Listeners are not among them: they have sse_max.";
        connections_per_address_max: usize = "8192", "TIDEGATE_CONNECTIONS_PER_ADDRESS_MAX", 1 => 1_000_000, "Connections open at once from one address (IPv6: one /64).";
    }
    "Listeners (server-sent events)" {
        sse_max: usize = "65536", "TIDEGATE_SSE_MAX", 0 => 1_000_000, "Event streams open at once, of jobs and of streams, some 1 KB each; beyond it 503. Together with connections_max as far as the limit on open files allows.";
        sse_streams_max: usize = "256", "TIDEGATE_SSE_STREAMS_MAX", 1 => 256, "Streams one listener may follow, named and matched by patterns.";
        sse_heartbeat: Duration = "20s", "TIDEGATE_SSE_HEARTBEAT", 100 => HOUR, "A listener of streams hears a comment after so much silence: proxies close connections after 30 to 60 s without bytes.";
        sse_per_token_max: usize = "0", "TIDEGATE_SSE_PER_TOKEN_MAX", 0 => 1_000_000, "Event streams open at once with one token; beyond it 429. 0 for no limit.";
        sse_per_address_max: usize = "32768", "TIDEGATE_SSE_PER_ADDRESS_MAX", 0 => 1_000_000, "Event streams open at once from one address (IPv6: one /64); beyond it 429. 0 for no limit.";
        sse_send_buffer: Bytes = "16KiB", "TIDEGATE_SSE_SEND_BUFFER", 4 * KIB => 4 * MIB, "Bytes the kernel holds for a listener that does not read; Linux doubles the number. Eight times as much for one that has read a full buffer at once.";
        sse_stall_timeout: Duration = "30s", "TIDEGATE_SSE_STALL_TIMEOUT", 10 => HOUR, "Time a listener may take none of the bytes sent to it; then its connection is closed.";
    }
    "Deadlines" {
        head_timeout: Duration = "10s", "TIDEGATE_HEAD_TIMEOUT", 10 => HOUR, "Time for a request's head to arrive.";
        idle_timeout: Duration = "75s", "TIDEGATE_IDLE_TIMEOUT", 10 => 24 * HOUR, "Time a kept-alive connection may stay without a request.";
        body_stall_timeout: Duration = "10s", "TIDEGATE_BODY_STALL_TIMEOUT", 10 => HOUR, "Time between two pieces of a request's body.";
        body_timeout: Duration = "60s", "TIDEGATE_BODY_TIMEOUT", 10 => 24 * HOUR, "Time for a whole request body to arrive.";
        write_timeout: Duration = "30s", "TIDEGATE_WRITE_TIMEOUT", 10 => HOUR, "Time a client may take none of the bytes sent to it.";
        drain_timeout: Duration = "30s", "TIDEGATE_DRAIN_TIMEOUT", NONE => HOUR, "Time from SIGTERM to the end; jobs that do not finish in it are handed back, the last fifth (4 s at most) is kept for that.";
    }
    "Logging" {
        log: String = "info", "TIDEGATE_LOG", NONE => NONE, "What is logged to stderr: a level, or directives such as `info,tidegate_queue=debug`.";
        log_format: LogFormat = "text", "TIDEGATE_LOG_FORMAT", NONE => NONE, "How it is logged: `text` or `json`.";
    }
}

/// The limits of one queue; the same settings without `queue_` in front.
#[derive(Debug, Clone)]
pub struct QueueLimits {
    /// `queue_jobs_max`
    pub jobs_max: usize,
    /// `queue_bytes_max`
    pub bytes_max: Bytes,
    /// `queue_overflow`
    pub overflow: Overflow,
    /// `queue_finished_max`
    pub finished_max: usize,
    /// `queue_key_limit`, 0 for none.
    pub key_limit: usize,
    /// `queue_running_limit`, 0 for none.
    pub running_limit: usize,
}

/// What the streams that match a pattern forget; the same settings without `stream_` in front.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// `stream_length_max`, 0 for none.
    pub length_max: usize,
    /// `stream_age_max`, zero for none.
    pub age_max: Duration,
}

/// What the settings of one stream have in front when they are meant for all.
const PER_STREAM: &str = "stream_";

impl StreamLimits {
    fn build(read: &mut resolve::Reader<'_>) -> Option<Self> {
        Some(Self { length_max: read.value("stream_length_max")?, age_max: read.value("stream_age_max")? })
    }
}

/// What the settings of one queue have in front when they are meant for all.
const PER_QUEUE: &str = "queue_";

impl QueueLimits {
    fn build(read: &mut resolve::Reader<'_>) -> Option<Self> {
        Some(Self {
            jobs_max: read.value("queue_jobs_max")?,
            bytes_max: read.value("queue_bytes_max")?,
            overflow: read.value("queue_overflow")?,
            finished_max: read.value("queue_finished_max")?,
            key_limit: read.value("queue_key_limit")?,
            running_limit: read.value("queue_running_limit")?,
        })
    }
}

impl Config {
    /// The limits of queues that are not named in `queues`.
    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            jobs_max: self.queue_jobs_max,
            bytes_max: self.queue_bytes_max,
            overflow: self.queue_overflow,
            finished_max: self.queue_finished_max,
            key_limit: self.queue_key_limit,
            running_limit: self.queue_running_limit,
        }
    }

    /// What streams forget that no pattern in `streams` matches.
    pub fn stream_limits(&self) -> StreamLimits {
        StreamLimits { length_max: self.stream_length_max, age_max: self.stream_age_max }
    }

    /// Which Redis to keep jobs and events in and how to talk to it; none for the embedded store.
    pub fn redis_config(&self) -> Option<tidegate_redis_ops::Config> {
        Some(self.redis_settings(self.redis.get()?))
    }

    /// Which Redis to keep the cache in and how to talk to it, if it has one of its own.
    pub fn cache_redis_config(&self) -> Option<tidegate_redis_ops::Config> {
        Some(self.redis_settings(self.cache_redis.get()?))
    }

    fn redis_settings(&self, url: &tidegate_redis_ops::Config) -> tidegate_redis_ops::Config {
        use tidegate_redis_ops::{PoolConfig, RegistryConfig};
        tidegate_redis_ops::Config {
            pool_min: self.redis_pool_min,
            pool_max: self.redis_pool_max,
            command_timeout: self.redis_pool_acquire_timeout,
            health_check_interval: self.redis_pool_health_check_interval,
            blocking_pool: PoolConfig {
                min: self.redis_blocking_pool_min,
                max: self.redis_blocking_pool_max,
                acquire_timeout: self.redis_blocking_pool_acquire_timeout,
                idle_timeout: self.redis_blocking_pool_idle_timeout,
            },
            registry: RegistryConfig {
                refresh_interval: self.redis_registry_refresh_interval,
                cache_expiry: self.redis_registry_cache_expiry,
            },
            ..url.clone()
        }
    }

    /// The address to listen on.
    pub fn listen_address(&self) -> SocketAddr {
        self.listen.0
    }
}
