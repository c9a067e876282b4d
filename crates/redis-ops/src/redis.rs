//! The handle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_metrics::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::delete::DeleteOptions;
use crate::durability::Durability;
use crate::error::Error;
use crate::health::{BreakerState, Health};
use crate::scan::{Scan, ScanOptions};
use crate::script::Script;
use crate::subscription::Subscription;
use crate::value::Value;

/// A Redis. A cheap clone; every clone shares the connections.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reconnects: watch::Sender<u64>,
}

impl Redis {
    /// Connects, checks the version (Redis ≥ 6.2 or Valkey) and reads what durability this Redis gives.
    pub async fn connect(_config: Config, _registry: &Registry) -> Result<Self, Error> {
        Ok(Self(Arc::new(Shared { reconnects: watch::Sender::new(0) })))
    }

    /// Runs a script by its SHA; where Redis does not know it, nothing ran, and the source is sent once.
    pub async fn run(&self, _script: &Script, _keys: &[Bytes], _args: Vec<Bytes>) -> Result<Value, Error> {
        Err(Error::not_connected("not written yet"))
    }

    /// One command, in a cluster routed by `key`. `args` include the key where the command wants it.
    pub async fn command(&self, _name: &'static str, _key: Option<Bytes>, _args: Vec<Bytes>) -> Result<Value, Error> {
        Err(Error::not_connected("not written yet"))
    }

    /// Messages of a channel.
    pub fn subscribe(&self, _channel: Bytes) -> Subscription {
        Subscription {}
    }

    /// What survives a crash of Redis, as last read; read again after every reconnect.
    pub fn durability(&self) -> Durability {
        Durability::Unknown
    }

    /// How the link is right now.
    pub fn health(&self) -> Health {
        Health {
            connected: false,
            breaker: BreakerState::Closed,
            last_error: None,
            warnings: Vec::new(),
            version: String::new(),
            topology: "standalone",
            durability: Durability::Unknown,
        }
    }

    /// One round trip.
    pub async fn ping(&self) -> Result<Duration, Error> {
        Err(Error::not_connected("not written yet"))
    }

    /// Keys that match, page by page; those of all primaries in a cluster.
    pub fn scan(&self, _pattern: impl Into<Bytes>, _options: ScanOptions) -> Scan {
        Scan {}
    }

    /// Deletes the keys that match; says how many were there.
    pub async fn delete_matching(
        &self,
        _pattern: impl Into<Bytes>,
        _options: DeleteOptions,
        _progress: impl FnMut(u64),
        _cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        Err(Error::not_connected("not written yet"))
    }

    /// Counts the (re)connections of the general side; wakes on each.
    pub fn reconnects(&self) -> watch::Receiver<u64> {
        self.0.reconnects.subscribe()
    }

    /// Ends all connections and tasks.
    pub async fn close(&self) {}
}
