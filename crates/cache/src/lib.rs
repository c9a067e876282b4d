//! A two-tier cache that is never silently stale: memory (tier 1), then Redis (tier 2), one load per key in the cluster.
//!
//! A [`Cache`] is opened once per process and name, over memory alone or over a Redis that other processes share. Its
//! promise, written down and tested, is in the documentation of [`Cache`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidegate_cache::Error> {
//! use bytes::Bytes;
//! use tidegate_cache::{Cache, Config, Invalidation, Keep, Raw};
//! use tidegate_metrics::Registry;
//!
//! let cache = Cache::memory(Raw, Config::default(), &Registry::new())?;
//! let keep = Keep::new().tag("users");
//! let load = || async { Ok::<_, std::io::Error>(Some(Bytes::from("ada"))) };
//! assert_eq!(cache.get_or_load("user:1", keep, load).await?, Some(Bytes::from("ada")));
//! cache.invalidate(Invalidation::tag("users")).await?;
//! assert_eq!(cache.get("user:1").await?, None);
//! # Ok(()) }
//! ```
//!
//! Contents, in reading order: the handle [`Cache`]; how long and under which tags a value is kept ([`Keep`]); what is
//! forgotten ([`Invalidation`], and the bounded [`InvalidationQueue`]); how values become bytes ([`Codec`]); the typed
//! cache of metadata ([`Metadata`]). [`Config`] holds every bound, [`Stats`] what is counted, [`Error`] says why not.

mod access;
mod cache;
mod keep;

mod invalidation;
mod queue;

mod codec;
mod metadata;
mod warm;

mod config;
mod error;
mod stats;

mod clock;
mod compress;
mod flight;
mod hottest;
mod key;
mod load;
mod redis;
mod tier1;

pub use cache::Cache;
pub use clock::{Clock, ManualClock};
pub use codec::{Codec, CodecError, Json, Postcard, Raw};
pub use config::{Config, Planted};
pub use error::{BoxError, Error};
pub use invalidation::Invalidation;
pub use keep::Keep;
pub use metadata::Metadata;
pub use queue::{DropPolicy, InvalidationQueue, QueueConfig, QueueStats};
pub use redis::redis_reference;
pub use stats::{Stats, TierStats};
pub use warm::{Progress, Warmed};
