//! What this process is told about its part.

use std::str::FromStr;
use std::time::Duration;

use tidegate_cache::{BoxError, Config, Planted};

/// The arguments, each `name=value`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    url: String,
    /// Which of the processes this is; part of the ids of its values.
    pub(crate) node: u64,
    pub(crate) seed: u64,
    staleness: Duration,
    planted: Planted,
    /// Callers at the same time.
    pub(crate) actors: u64,
    /// Keys there are.
    pub(crate) keys: u64,
    /// Of a thousand calls, so many set, delete or invalidate one key …
    pub(crate) changes: u64,
    /// … and so many more invalidate by tag, prefix or everything.
    pub(crate) wide: u64,
    /// The mean pause of a caller between two calls, in microseconds.
    pub(crate) pause_us: u64,
    /// Of a thousand loads, so many take longer than the cache may be stale.
    pub(crate) slow_loads: u64,
    /// Whether values live long and loaders always find one: then nobody asks Redis but for what was changed.
    pub(crate) is_calm: bool,
    prefixes_max: usize,
    entries_max: usize,
}

impl Settings {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let pairs: Vec<(String, String)> = arguments
            .map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into())))
            .collect::<Option<_>>()
            .ok_or("arguments are name=value")?;
        let pairs = Pairs(pairs);
        Ok(Self {
            url: pairs.get("url")?,
            node: pairs.get("node")?,
            seed: pairs.get("seed")?,
            staleness: Duration::from_millis(pairs.get("staleness_ms")?),
            planted: planted(&pairs.get::<String>("planted")?)?,
            actors: pairs.get("actors")?,
            keys: pairs.get("keys")?,
            changes: pairs.get("changes")?,
            wide: pairs.get("wide")?,
            pause_us: pairs.get("pause_us")?,
            slow_loads: pairs.get("slow_loads")?,
            is_calm: pairs.get("calm")?,
            prefixes_max: pairs.get("prefixes_max")?,
            entries_max: pairs.get("entries_max")?,
        })
    }

    pub(crate) fn redis(&self) -> Result<tidegate_redis_ops::Config, BoxError> {
        Ok(tidegate_redis_ops::Config {
            // A run lasts two seconds: who waits that long for a Redis that is back has seen nothing.
            reconnect_max: Duration::from_millis(100),
            ..tidegate_redis_ops::Config::parse(&self.url)?
        })
    }

    pub(crate) fn cache(&self) -> Config {
        Config {
            staleness_max: self.staleness,
            redis_timeout: Duration::from_millis(80),
            negative_ttl: Duration::from_secs(2),
            stale_on_error: Duration::from_millis(500),
            soft_timeout: Duration::from_millis(20),
            hard_timeout: Duration::from_secs(2),
            compress_from: 512,
            prefixes_max: self.prefixes_max,
            entries_max: self.entries_max,
            planted: self.planted,
            ..Config::default()
        }
    }

    /// The longest load, in milliseconds.
    pub(crate) fn load_ms_max(&self) -> u64 {
        3 * u64::try_from(self.staleness.as_millis()).unwrap_or(u64::MAX)
    }
}

struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn get<T: FromStr>(&self, name: &str) -> Result<T, BoxError> {
        let found = self.0.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.parse().ok());
        found.ok_or_else(|| format!("no {name}=…, or none that can be read").into())
    }
}

fn planted(name: &str) -> Result<Planted, BoxError> {
    let all = [
        Planted::Nothing,
        Planted::NoFillGuard,
        Planted::LostLinkIgnored,
        Planted::SilenceTrusted,
        Planted::FlushIgnored,
        Planted::RestartIgnored,
    ];
    all.into_iter().find(|known| format!("{known:?}") == name).ok_or_else(|| format!("no bug is called {name}").into())
}
