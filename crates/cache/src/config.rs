//! Every bound of a cache, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use crate::{Clock, Error};

/// The bounds of a cache.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it is called: part of its keys on Redis and the label of its metrics (`default`). Caches of one name on one
    /// Redis share their values; in one registry they share their figures, so give each its own name there.
    pub name: Arc<str>,
    /// Entries of tier 1 at most (10 000).
    pub entries_max: usize,
    /// Bytes of tier 1 at most: keys, values and what keeping them takes (256 MiB). Both bounds hold at once: a value larger than
    /// its even share, `bytes_max / entries_max`, takes the places of several small ones.
    pub bytes_max: u64,
    /// The largest value (1 MiB), as bytes, before compression; nothing larger is read back either. At most an eighth of
    /// `bytes_max`, so that no value has the memory to itself.
    pub value_bytes_max: usize,
    /// The longest key, in bytes (1024).
    pub key_bytes_max: usize,
    /// Tags of one value at most (16).
    pub tags_max: usize,
    /// How long a value is fresh that says nothing else (1 h). To within the 4 ms of a coarse clock, as all times here.
    pub ttl: Duration,
    /// The longest TTL, with what may be served stale (30 days): whoever asks for more gets this.
    pub ttl_max: Duration,
    /// By how much of a TTL chance shortens it, so that what was kept together does not expire together (0.05).
    pub ttl_jitter: f64,
    /// For how long "there is no such thing" is remembered when a loader says so (10 s); zero: not at all.
    pub negative_ttl: Duration,
    /// For how long past its TTL a value is given while it is renewed (zero: not at all).
    pub stale_while_revalidate: Duration,
    /// For how long past its TTL a value is given when renewing it fails (zero: not at all).
    pub stale_on_error: Duration,
    /// How long a caller waits for a load before it takes a value past its TTL, if there is one (100 ms).
    pub soft_timeout: Duration,
    /// When a load is ended and counts as failed (30 s).
    pub hard_timeout: Duration,
    /// Loads that run at the same time (1024).
    pub loads_max: usize,
    /// Loads that run or wait for their turn; beyond, callers are refused (16 384).
    pub loads_waiting_max: usize,
    /// Values from this size on are compressed on Redis where that saves a tenth (1024 bytes). `usize::MAX`: none.
    pub compress_from: usize,
    /// H: a value changed by another process is served from tier 1 no longer than this, whatever happens to the link (2 s).
    pub staleness_max: Duration,
    /// How long a call to Redis may take before the cache goes on without it (250 ms).
    pub redis_timeout: Duration,
    /// What keys on Redis begin with (`tidegate`).
    pub redis_prefix: Arc<str>,
    /// Prefixes whose invalidation is remembered one by one until everything they cover is swept; beyond, everything is
    /// invalidated instead (256).
    pub prefixes_max: usize,
    /// How many of the hottest keys are written down at the end, to be warmed at the next start (0: none).
    pub hottest_saved: usize,
    /// Where to read the time.
    pub clock: Clock,
    /// A bug planted on purpose, so that the checker of the promise can show that it would find it. Never set it.
    #[doc(hidden)]
    pub planted: Planted,
}

/// Bugs that other caches have, for the checker to find.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// A fill is kept even if its key was invalidated meanwhile.
    NoFillGuard,
    /// A lost link does not flush tier 1.
    LostLinkIgnored,
    /// Silence of the link is taken for health.
    SilenceTrusted,
    /// `FLUSHALL` and overflow are not heard.
    FlushIgnored,
    /// A restarted Redis is taken for the one it was.
    RestartIgnored,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "default".into(),
            entries_max: 10_000,
            bytes_max: 256 << 20,
            value_bytes_max: 1 << 20,
            key_bytes_max: 1024,
            tags_max: 16,
            ttl: Duration::from_secs(3600),
            ttl_max: Duration::from_secs(30 * 86_400),
            ttl_jitter: 0.05,
            negative_ttl: Duration::from_secs(10),
            stale_while_revalidate: Duration::ZERO,
            stale_on_error: Duration::ZERO,
            soft_timeout: Duration::from_millis(100),
            hard_timeout: Duration::from_secs(30),
            loads_max: 1024,
            loads_waiting_max: 16_384,
            compress_from: 1024,
            staleness_max: Duration::from_secs(2),
            redis_timeout: Duration::from_millis(250),
            redis_prefix: "tidegate".into(),
            prefixes_max: 256,
            hottest_saved: 0,
            clock: Clock::System,
            planted: Planted::Nothing,
        }
    }
}

impl Config {
    /// Checked, and with bounds that fit each other.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        let eighth = usize::try_from(self.bytes_max / 8).unwrap_or(usize::MAX);
        self.value_bytes_max = self.value_bytes_max.min(eighth);
        Ok(self)
    }

    /// Checks what no cache could work with.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the first bound that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
        let is_name = |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(legal);
        let checks: [(bool, &'static str, &str); 12] = [
            (is_name(&self.name), "name", "1 to 64 characters of A-Z a-z 0-9 - _ . : /"),
            (is_name(&self.redis_prefix), "redis_prefix", "1 to 64 characters of A-Z a-z 0-9 - _ . : /"),
            ((1..=1 << 30).contains(&self.entries_max), "entries_max", "1 to 2^30"),
            ((1024..=1 << 44).contains(&self.bytes_max), "bytes_max", "1 KiB to 16 TiB"),
            ((1..=256 << 20).contains(&self.value_bytes_max), "value_bytes_max", "1 byte to 256 MiB"),
            ((1..=65_536).contains(&self.key_bytes_max), "key_bytes_max", "1 to 65 536"),
            (self.tags_max <= 64, "tags_max", "at most 64"),
            ((0.0..=0.5).contains(&self.ttl_jitter), "ttl_jitter", "0 to 0.5"),
            (self.loads_max >= 1 && self.loads_max <= 1 << 20, "loads_max", "1 to 1 048 576"),
            (self.staleness_max >= Duration::from_millis(200), "staleness_max", "at least 200 ms"),
            (self.redis_timeout >= Duration::from_millis(1), "redis_timeout", "at least 1 ms"),
            ((1..=10_000).contains(&self.prefixes_max), "prefixes_max", "1 to 10 000"),
        ];
        match checks.iter().find(|(holds, ..)| !holds) {
            Some((_, field, reason)) => Err(Error::Invalid { field, reason: (*reason).into() }),
            None => Ok(()),
        }
    }
}
