//! Fills that race with changes: is a value that was read before a change still served after it, for good?

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidegate_cache::{Cache, Keep, Raw};
use tidegate_metrics::Registry;

use crate::cache::Random;

const KEY: &str = "user:00000001:profile";

/// A cache as a service uses it.
pub trait Filled: Clone + Send + Sync + 'static {
    /// What it has.
    fn kept(&self) -> impl Future<Output = Option<u64>> + Send;
    /// What it has, or else what is at the source now, which is kept.
    fn filled(&self, source: Source) -> impl Future<Output = u64> + Send;
    /// Makes it forget.
    fn forgotten(&self) -> impl Future<Output = ()> + Send;
}

/// Where values come from: a database that answers in its own time.
#[derive(Clone, Debug, Default)]
pub struct Source {
    version: Arc<AtomicU64>,
    pause: usize,
}

impl Source {
    async fn read(self) -> u64 {
        let version = self.version.load(Ordering::SeqCst);
        pause(self.pause).await;
        version
    }
}

async fn pause(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// In how many rounds of so many a reader fills while a writer changes the source and then the cache, and afterwards, when
/// both are done, the cache still has the old value.
pub async fn stale_rounds<C: Filled>(cache: C, rounds: usize) -> usize {
    let mut random = Random(0xA076_1D64_78BD_642F);
    let mut source = Source::default();
    let mut stale = 0;
    for _ in 0..rounds {
        cache.forgotten().await;
        source.pause = random.below(4);
        let before = random.below(5);
        let version = source.version.clone();
        let change = async {
            pause(before).await;
            version.fetch_add(1, Ordering::SeqCst);
            cache.forgotten().await;
        };
        tokio::join!(cache.filled(source.clone()), change);
        let kept = cache.kept().await;
        stale += usize::from(kept.is_some_and(|kept| kept != source.version.load(Ordering::SeqCst)));
    }
    stale
}

/// Get, and where there is nothing, load and insert: what most services do.
#[derive(Clone, Debug)]
pub struct Naive(Arc<quick_cache::sync::Cache<&'static str, u64>>);

impl Default for Naive {
    fn default() -> Self {
        Self(Arc::new(quick_cache::sync::Cache::new(1000)))
    }
}

impl Filled for Naive {
    async fn kept(&self) -> Option<u64> {
        self.0.get(KEY)
    }

    async fn filled(&self, source: Source) -> u64 {
        match self.0.get(KEY) {
            Some(kept) => kept,
            None => {
                let loaded = source.read().await;
                self.0.insert(KEY, loaded);
                loaded
            }
        }
    }

    async fn forgotten(&self) {
        self.0.remove(KEY);
    }
}

/// moka with `get_with`.
#[derive(Clone, Debug)]
pub struct Moka(moka::future::Cache<&'static str, u64>);

impl Default for Moka {
    fn default() -> Self {
        Self(moka::future::Cache::new(1000))
    }
}

impl Filled for Moka {
    async fn kept(&self) -> Option<u64> {
        self.0.get(KEY).await
    }

    async fn filled(&self, source: Source) -> u64 {
        self.0.get_with(KEY, source.read()).await
    }

    async fn forgotten(&self) {
        self.0.invalidate(KEY).await;
    }
}

/// Ours, in memory; with Redis between, the freshness checker of the tests asks the same of several processes.
#[derive(Clone, Debug)]
pub struct Ours(Cache<Bytes>);

impl Ours {
    /// A cache.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn open() -> Self {
        Self(Cache::memory(Raw, tidegate_cache::Config::default(), &Registry::new()).expect("a cache"))
    }
}

fn number(value: Option<Bytes>) -> Option<u64> {
    let bytes = value?.as_ref().try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

impl Filled for Ours {
    async fn kept(&self) -> Option<u64> {
        number(self.0.get(KEY).await.expect("memory"))
    }

    async fn filled(&self, source: Source) -> u64 {
        let load = || async { Ok::<_, Infallible>(Some(Bytes::copy_from_slice(&source.read().await.to_le_bytes()))) };
        number(self.0.get_or_load(KEY, Keep::new(), load).await.expect("a value")).expect("a number")
    }

    async fn forgotten(&self) {
        self.0.delete(KEY).await.expect("memory");
    }
}
