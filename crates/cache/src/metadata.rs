//! A cache of typed metadata: what handlers look up again and again and that hardly changes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_metrics::Registry;

use crate::cache::Cache;
use crate::codec::{Codec, CodecError};
use crate::config::Config;
use crate::error::{BoxError, Error};
use crate::invalidation::Invalidation;
use crate::keep::Keep;
use crate::stats::Stats;

/// 5 minutes: what describes a handler or a feature group changes with a deployment, and nobody wants to restart for it.
const TTL: Duration = Duration::from_secs(300);

/// Typed values in memory, by name: a lookup is O(1), a missing one is loaded once however many ask.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidegate_cache::Error> {
/// use tidegate_cache::Metadata;
/// use tidegate_metrics::Registry;
///
/// struct Handler { timeout_ms: u64 }
/// let handlers = Metadata::new("handlers", &Registry::new())?;
/// let load = || async { Ok::<_, std::io::Error>(Some(Handler { timeout_ms: 500 })) };
/// let found = handlers.get_or_load("resize", load).await?;
/// assert_eq!(found.map(|handler| handler.timeout_ms), Some(500));
/// assert!(handlers.get("resize").is_some());
/// assert_eq!(handlers.stats().hit_rate(), 0.5);
/// # Ok(()) }
/// ```
pub struct Metadata<T>(Cache<Arc<T>>);

/// Nothing is ever written as bytes: there is no tier 2.
struct InMemory;

impl<T: Send + Sync + 'static> Codec<Arc<T>> for InMemory {
    fn encode(&self, _value: &Arc<T>) -> Result<Bytes, CodecError> {
        Err(CodecError::new("metadata stays in memory"))
    }

    fn decode(&self, _bytes: Bytes) -> Result<Arc<T>, CodecError> {
        Err(CodecError::new("metadata stays in memory"))
    }

    fn weight(&self, _value: &Arc<T>) -> usize {
        size_of::<T>()
    }
}

impl<T: Send + Sync + 'static> Metadata<T> {
    /// 10 000 values for 5 minutes each. `name` is the label of its metrics.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none.
    pub fn new(name: &str, registry: &Registry) -> Result<Self, Error> {
        Self::with_config(Config { name: name.into(), ttl: TTL, ..Config::default() }, registry)
    }

    /// As the configuration says. Each value weighs its own size, without what it points to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound out of its range.
    pub fn with_config(config: Config, registry: &Registry) -> Result<Self, Error> {
        Cache::memory(InMemory, config, registry).map(Self)
    }

    /// The value of a name, if it is there.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.0.peek(name)
    }

    /// The value of a name; where there is none, what `load` brings.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load<F, Fut, E>(&self, name: &str, load: F) -> Result<Option<Arc<T>>, Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.0.get_or_load(name, Keep::new(), || async { load().await.map(|value| value.map(Arc::new)) }).await
    }

    /// Keeps a value.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is too long.
    pub async fn set(&self, name: &str, value: T) -> Result<(), Error> {
        self.0.set(name, Arc::new(value), Keep::new()).await
    }

    /// Forgets a value, or those whose names begin with a prefix, or all.
    ///
    /// # Errors
    /// None in memory.
    pub async fn invalidate(&self, what: Invalidation) -> Result<(), Error> {
        self.0.invalidate(what).await
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.0.config()
    }

    /// A snapshot; its hit rate is that of the lookups.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl<T> fmt::Debug for Metadata<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metadata").field(&self.0).finish()
    }
}

impl<T> Clone for Metadata<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
