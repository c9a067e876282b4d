//! What Redis says about itself: version, persistence, eviction.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::durability::Durability;
use crate::error::Error;
use crate::health::Warning;
use crate::link::{Link, Node};
use crate::wire::Request;

/// The oldest Redis with what we use: `GETDEL`, `ZRANGE … BYSCORE REV`, `SET … KEEPTTL`, `XAUTOCLAIM`.
const OLDEST: (u32, u32) = (6, 2);
/// After a failed look at the settings.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// As last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) durability: Durability,
    pub(crate) warnings: Vec<Warning>,
}

/// `redis 7.0.15`. Errors: [`Error::Unusable`] for a server that is too old.
pub(crate) fn check_version(info: &str) -> Result<String, Error> {
    if let Some(version) = field(info, "valkey_version") {
        return Ok(format!("valkey {version}"));
    }
    let Some(version) = field(info, "redis_version") else { return Ok("unknown".into()) };
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST {
        let (major, minor) = OLDEST;
        let text = format!("it is version {version}; needed is Redis {major}.{minor} or newer, or Valkey");
        return Err(Error::Unusable(text.into()));
    }
    Ok(format!("redis {version}"))
}

/// Whether the server is part of a cluster.
pub(crate) fn is_cluster_node(info: &str) -> bool {
    field(info, "cluster_enabled") == Some("1")
}

pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

/// Reads the settings of all primaries; the weakest counts.
pub(crate) async fn read(link: &Link, version: String) -> Result<Facts, Error> {
    let mut facts = Facts { version, durability: Durability::Always, warnings: Vec::new() };
    for node in link.primaries() {
        let settings = Settings::read(link, &node).await?;
        facts.durability = facts.durability.weaker(settings.durability());
        for warning in settings.warnings() {
            if !facts.warnings.contains(&warning) {
                facts.warnings.push(warning);
            }
        }
    }
    if matches!(facts.durability, Durability::Snapshots | Durability::None) {
        facts.warnings.push(Warning::WeakDurability(facts.durability));
    }
    Ok(facts)
}

/// Reads again after every reconnect, until the link closes.
pub(crate) async fn keep_fresh(link: Arc<Link>, facts: Arc<Mutex<Facts>>) {
    let mut reconnects = link.core.reconnects.subscribe();
    loop {
        tokio::select! {
            _ = reconnects.changed() => {}
            () = link.core.closing.cancelled() => return,
        }
        loop {
            let version = facts.lock().version.clone();
            let looked = tokio::select! {
                looked = look(&link, version) => looked,
                () = link.core.closing.cancelled() => return,
            };
            match looked {
                Ok(now) => {
                    link.core.stats.warnings.set(now.warnings.len() as f64);
                    *facts.lock() = now;
                    break;
                }
                Err(_) => tokio::select! {
                    () = sleep(LOOK_AGAIN) => {}
                    () = link.core.closing.cancelled() => return,
                },
            }
        }
    }
}

async fn look(link: &Link, before: String) -> Result<Facts, Error> {
    let info = link.call(None, Request { head: &[b"INFO", b"server"], keys: &[], args: &[] }).await;
    let version = info.ok().and_then(|info| check_version(info.as_str().ok()?).ok()).unwrap_or(before);
    read(link, version).await
}

/// What matters of one server's settings; `None` where it cannot be learnt.
#[derive(Debug, Default)]
struct Settings {
    append_only: Option<bool>,
    fsync: Option<String>,
    snapshots: Option<bool>,
    eviction: Option<String>,
    unreadable: Option<String>,
}

impl Settings {
    async fn read(link: &Link, node: &Node) -> Result<Self, Error> {
        let mut settings = Self::default();
        match setting(link, node, b"appendonly").await {
            Ok(append_only) => {
                settings.append_only = append_only.map(|value| value == "yes");
                settings.fsync = setting(link, node, b"appendfsync").await?;
                settings.snapshots = setting(link, node, b"save").await?.map(|value| !value.trim().is_empty());
                settings.eviction = setting(link, node, b"maxmemory-policy").await?;
            }
            Err(error @ Error::Answer { .. }) => {
                settings.unreadable = Some(error.code().to_owned());
                settings.fall_back(link, node).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(settings)
    }

    /// `CONFIG` is forbidden (or renamed, as managed services do): `INFO` says less.
    async fn fall_back(&mut self, link: &Link, node: &Node) -> Result<(), Error> {
        let persistence = section(link, node, b"persistence").await?;
        let memory = section(link, node, b"memory").await?;
        self.append_only = field(&persistence, "aof_enabled").map(|value| value == "1");
        self.eviction = field(&memory, "maxmemory_policy").map(str::to_owned);
        Ok(())
    }

    fn durability(&self) -> Durability {
        match (self.append_only, self.fsync.as_deref(), self.snapshots) {
            (Some(true), Some("always"), _) => Durability::Always,
            (Some(true), Some("everysec"), _) => Durability::EverySecond,
            // `no`: the system decides when, half a minute usually; no more can be promised than by snapshots.
            (Some(true), Some(_), _) | (Some(false), _, Some(true)) => Durability::Snapshots,
            (Some(false), _, Some(false)) => Durability::None,
            _ => Durability::Unknown,
        }
    }

    fn warnings(&self) -> Vec<Warning> {
        let evicting = self.eviction.clone().filter(|policy| policy != "noeviction");
        let evicting = evicting.map(|policy| Warning::Evicting { policy });
        let unreadable = self.unreadable.clone().map(|code| Warning::Unreadable { code });
        evicting.into_iter().chain(unreadable).collect()
    }
}

async fn setting(link: &Link, node: &Node, name: &[u8]) -> Result<Option<String>, Error> {
    let request = Request { head: &[b"CONFIG", b"GET", name], keys: &[], args: &[] };
    let mut pair = link.call_node(node, request, false).await?.into_array()?.into_iter();
    Ok(pair.nth(1).and_then(|value| value.as_str().map(str::to_owned).ok()))
}

/// A section of `INFO`; nothing where that is forbidden.
async fn section(link: &Link, node: &Node, name: &[u8]) -> Result<String, Error> {
    match link.call_node(node, Request { head: &[b"INFO", name], keys: &[], args: &[] }, false).await {
        Ok(info) => Ok(info.as_str().map(str::to_owned).unwrap_or_default()),
        Err(Error::Answer { .. }) => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_with_what_is_needed() {
        let error = check_version("# Server\r\nredis_version:6.0.16\r\n").unwrap_err().to_string();
        assert!(error.contains("6.0.16") && error.contains("6.2") && error.contains("Valkey"), "{error}");
        assert_eq!(check_version("redis_version:6.2.0\r\n").unwrap(), "redis 6.2.0");
        assert_eq!(check_version("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n").unwrap(), "valkey 8.0.1");
    }

    #[test]
    fn durability_is_what_the_settings_say_and_unknown_when_they_do_not() {
        let settings = |append_only, fsync: Option<&str>, snapshots| Settings {
            append_only,
            fsync: fsync.map(str::to_owned),
            snapshots,
            ..Settings::default()
        };
        let says = |settings: Settings| settings.durability();
        assert_eq!(says(settings(Some(true), Some("always"), Some(true))), Durability::Always);
        assert_eq!(says(settings(Some(true), Some("everysec"), Some(false))), Durability::EverySecond);
        assert_eq!(says(settings(Some(true), Some("no"), Some(false))), Durability::Snapshots);
        assert_eq!(says(settings(Some(false), Some("always"), Some(true))), Durability::Snapshots);
        assert_eq!(says(settings(Some(false), None, Some(false))), Durability::None);
        assert_eq!(says(settings(Some(true), None, None)), Durability::Unknown);
    }
}
