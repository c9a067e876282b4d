//! Redis behind one small surface: errors that tell what happened, scripts, wake-ups, coalescing, blocking reads, streams,
//! health.
//!
//! Standalone, unix socket, Sentinel, Cluster; plain or TLS; Redis 6.2 and newer, Valkey. A call is sent at most once, and
//! its error's [`Class`] says whether it may have been executed.
//!
//! | URL | meaning |
//! |---|---|
//! | `redis://user:password@host:6379/0` | one server; a node of a cluster leads to the whole cluster |
//! | `rediss://host?ca=/etc/ca.pem` | the same over TLS; without `ca` the system's certificates are trusted |
//! | `redis+unix:///run/redis.sock?db=0` | a unix socket |
//! | `redis-sentinel://host:26379,host2/service/0?sentinelUsername=…&sentinelPassword=…` | whom Sentinels call primary |
//! | `redis-cluster://host,host2` | a cluster; `rediss-…` with TLS |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidegate_metrics::Registry;
//! use tidegate_redis_ops::{Config, Redis, Script};
//!
//! let redis = Redis::connect(Config::parse("redis://localhost")?, &Registry::new()).await?;
//! let add = Script::new("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])");
//! let sum = redis.run(&add, &["sum".into()], vec!["5".into()]).await?.as_int()?;
//! # let _ = sum; Ok(()) }
//! ```

mod config;
mod redis;
mod url;

mod script;
mod value;

mod coalesce;
mod delete;
mod durability;
mod get;
mod health;
mod pool;
mod primaries;
mod registry;
mod scan;
mod stream;
mod subscription;
mod tracking;
mod unheard;

mod acl;
mod error;
mod stats;

mod backoff;
mod breaker;
mod chance;
mod core;
mod facts;
mod lane;
mod link;
mod subscriber;
mod wire;

pub use acl::acl_line;
pub use breaker::{BreakerConfig, BreakerState};
pub use coalesce::Coalescer;
pub use config::{Address, Config, ConfigError, Password, PoolConfig, RegistryConfig, TlsConfig, Topology};
pub use delete::DeleteOptions;
pub use durability::Durability;
pub use error::{Class, Error};
pub use health::{Health, Warning};
pub use pool::{Blocking, BlockingPool, PoolError, PoolStats};
pub use redis::Redis;
pub use registry::{Listing, RegistryOptions, StreamRegistry};
pub use scan::{Scan, ScanOptions};
pub use script::Script;
pub use stream::{AutoClaimed, Order, ParseStreamIdError, StreamEntry, StreamId, StreamInfo};
pub use subscription::{Signal, Subscription};
pub use tracking::{Tracking, Watcher};
pub use value::Value;
