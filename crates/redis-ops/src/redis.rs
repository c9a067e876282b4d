//! The handle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_metrics::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::breaker::{BreakerState, Pass};
use crate::config::{Config, Topology};
use crate::core::Core;
use crate::delete::{self, DeleteOptions};
use crate::durability::Durability;
use crate::error::Error;
use crate::facts::{self, Facts};
use crate::health::Health;
use crate::link::{Link, Node};
use crate::pool::{BlockingPool, Pool};
use crate::scan::{Scan, ScanOptions};
use crate::script::Script;
use crate::stats::Stats;
use crate::subscriber::Hub;
use crate::subscription::Subscription;
use crate::value::Value;
use crate::wire::{Dialer, Request, Stream, exchange};

/// A Redis. A cheap clone; every clone shares the connections, which close with [`close`](Self::close) or with the last
/// clone.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    hub: Arc<Hub>,
    /// Held to read or replace them.
    facts: Arc<Mutex<Facts>>,
    topology: &'static str,
    pool: Arc<Pool>,
    registry: Registry,
    /// Of a tracked handle: the one it was made from, which stays open as long. Subscriptions and blocking reads are its.
    parent: Option<Redis>,
    _closing: DropGuard,
}

/// These would hold up, or change the connection for, everybody who shares it.
const BLOCKING: [&str; 20] = [
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BLMOVE",
    "BLMPOP",
    "BZPOPMIN",
    "BZPOPMAX",
    "BZMPOP",
    "WAIT",
    "WAITAOF",
    "MONITOR",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "MULTI",
    "WATCH",
    "SELECT",
    "HELLO",
    "RESET",
    "QUIT",
];

impl Redis {
    /// Connects, checks the version (Redis ≥ 6.2 or Valkey) and reads what durability this Redis gives. Needs a tokio
    /// runtime, on which the connections live. One attempt: whoever wants to wait for a Redis that is not there yet calls
    /// again.
    ///
    /// Errors: `NotSent` when nobody answers, `Answer` when Redis refuses us (`WRONGPASS`), `Unusable` when it is too old
    /// or the TLS trust cannot be set up.
    pub async fn connect(config: Config, registry: &Registry) -> Result<Self, Error> {
        let mut dialer = Dialer::new(Arc::new(config))?;
        let mut stream = dialer.dial().await?;
        let version = facts::check_version(&info(&mut stream, b"server").await?)?;
        if let Topology::Standalone { address } = &dialer.config.topology
            && facts::is_cluster_node(&info(&mut stream, b"cluster").await?)
        {
            dialer = Dialer::new(Arc::new(as_cluster(&dialer.config, vec![address.clone()])?))?;
        }
        let topology = topology_name(&dialer.config.topology);
        let core = Arc::new(Core::new(dialer, Stats::new(registry)));
        let closing = core.closing.clone().drop_guard();
        let link = match topology {
            "cluster" => Link::cluster(core).await?,
            _ => Link::single(core, stream).await,
        };
        let facts = facts::read(&link, version).await?;
        for warning in &facts.warnings {
            tracing::warn!("{warning}");
        }
        link.core.stats.warnings.set(facts.warnings.len() as f64);
        let facts = Arc::new(Mutex::new(facts));
        link.core.tasks.spawn(facts::keep_fresh(link.clone(), facts.clone()));
        let hub = Hub::new(link.clone());
        let pool = Pool::new(link.clone(), registry);
        let registry = registry.clone();
        Ok(Self(Arc::new(Shared { link, hub, facts, topology, pool, registry, parent: None, _closing: closing })))
    }

    /// The same Redis over the connections of `core`; waits for them for up to `patience`.
    pub(crate) async fn beside(&self, core: Core, patience: Duration) -> Self {
        let closing = core.closing.clone().drop_guard();
        Self(Arc::new(Shared {
            link: self.0.link.beside(Arc::new(core), patience).await,
            hub: self.0.hub.clone(),
            facts: self.0.facts.clone(),
            topology: self.0.topology,
            pool: self.0.pool.clone(),
            registry: self.0.registry.clone(),
            parent: Some(self.clone()),
            _closing: closing,
        }))
    }

    /// Runs a script by its SHA. Where Redis does not know it, nothing ran, and the source is sent instead, once; nothing
    /// else is ever repeated. In a cluster all `keys` must hash to one slot; without keys any node runs it.
    ///
    /// Dropping the future does not take the script back: it may run.
    pub async fn run(&self, script: &Script, keys: &[Bytes], args: impl AsRef<[Bytes]>) -> Result<Value, Error> {
        let (key, args) = (keys.first().map(|key| &key[..]), args.as_ref());
        let mut digits = itoa::Buffer::new();
        let count = digits.format(keys.len()).as_bytes();
        let by_sha = Request { head: &[b"EVALSHA", script.sha().as_bytes(), count], keys, args };
        match self.call(key, by_sha).await {
            Err(Error::Answer { code, .. }) if &*code == "NOSCRIPT" => {
                tracing::debug!(script = script.name(), "Redis does not know it yet");
                self.call(key, Request { head: &[b"EVAL", script.source().as_bytes(), count], keys, args }).await
            }
            answer => answer,
        }
    }

    /// One command, in a cluster routed by `key`; without a key any node takes it. `args` include the key where the
    /// command wants it. Never repeated.
    ///
    /// Errors: besides those of Redis and of the link, [`Error::Unusable`] for a command that would hold up or change the
    /// connection for everybody else.
    pub async fn command(&self, name: &'static str, key: Option<Bytes>, args: Vec<Bytes>) -> Result<Value, Error> {
        let blocks = |args: &[Bytes]| args.iter().any(|arg| arg.eq_ignore_ascii_case(b"BLOCK"));
        let changes = |args: &[Bytes]| {
            args.first().is_some_and(|what| [&b"TRACKING"[..], b"REPLY"].iter().any(|it| what.eq_ignore_ascii_case(it)))
        };
        if BLOCKING.contains(&name)
            || (name == "CLIENT" && changes(&args))
            || (matches!(name, "XREAD" | "XREADGROUP") && blocks(&args))
        {
            return Err(Error::Unusable(format!("{name} has no place on a shared connection").into()));
        }
        self.call(key.as_deref(), Request { head: &[name.as_bytes()], keys: &[], args: &args }).await
    }

    /// Messages of a channel. All subscriptions of the process share one connection, made with the first.
    pub fn subscribe(&self, channel: Bytes) -> Subscription {
        Subscription::new(self.clone(), &self.0.hub, channel)
    }

    /// What survives a crash of Redis, as last read; read again after every reconnect.
    pub fn durability(&self) -> Durability {
        self.0.facts.lock().durability
    }

    /// How the link is right now.
    pub fn health(&self) -> Health {
        let facts = self.0.facts.lock().clone();
        let core = &self.0.link.core;
        Health {
            connected: self.0.link.is_up(),
            breaker: core.breaker.state(),
            last_error: core.last_error(),
            warnings: facts.warnings,
            version: facts.version,
            topology: self.0.topology,
            durability: facts.durability,
        }
    }

    /// Whether a call made now goes out: a general connection is up and the breaker is not open. Cheap.
    pub fn is_ready(&self) -> bool {
        self.0.link.is_up() && self.0.link.core.breaker.state() != BreakerState::Open
    }

    /// Connections for blocking reads; one pool per Redis, bounded by [`Config::blocking_pool`]. Opens none by itself.
    pub fn blocking_pool(&self) -> BlockingPool {
        BlockingPool::new(self.clone(), self.0.pool.clone())
    }

    /// One round trip, past the breaker.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let started = Instant::now();
        self.0.link.call(None, Request { head: &[b"PING"], keys: &[], args: &[] }).await?;
        Ok(started.elapsed())
    }

    /// Keys that match a pattern, page by page; those of all primaries in a cluster.
    pub fn scan(&self, pattern: impl Into<Bytes>, options: ScanOptions) -> Scan {
        Scan::new(self.clone(), pattern.into(), options)
    }

    /// Deletes the keys that match and says how many there were, by `SCAN` and `UNLINK`, one batch in flight: others
    /// hardly notice. `progress` hears the sum so far; after `cancel` the batch in flight is finished and its sum returned.
    ///
    /// Errors: the first one ends it; what was deleted stays deleted, and calling again goes on.
    pub async fn delete_matching(
        &self,
        pattern: impl Into<Bytes>,
        options: DeleteOptions,
        progress: impl FnMut(u64),
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        delete::delete_matching(self, pattern.into(), options, progress, cancel).await
    }

    /// The settings it was made with.
    pub fn config(&self) -> &Config {
        &self.0.link.core.config
    }

    /// Counts the general connections that came up again, each before the first reply over it; wakes on each.
    pub fn reconnects(&self) -> watch::Receiver<u64> {
        self.0.link.core.reconnects.subscribe()
    }

    /// Ends all connections and tasks, and waits until they have ended. Calls in flight fail as lost.
    pub async fn close(&self) {
        let core = &self.0.link.core;
        if self.0.parent.is_none() {
            self.0.pool.close();
        }
        core.closing.cancel();
        core.tasks.close();
        core.tasks.wait().await;
    }

    pub(crate) fn core(&self) -> &Core {
        &self.0.link.core
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
    }

    /// Cheap: nothing is copied.
    pub(crate) fn version_starts_with(&self, text: &str) -> bool {
        self.0.facts.lock().version.starts_with(text)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.0.link.is_cluster()
    }

    pub(crate) fn primaries(&self) -> Vec<Arc<Node>> {
        self.0.link.primaries()
    }

    /// The places of `keys`, grouped by the node that owns them now; those of no known owner make a group of their own.
    pub(crate) fn by_node(&self, keys: &[Bytes]) -> Vec<Vec<usize>> {
        self.0.link.by_node(keys)
    }

    pub(crate) async fn call(&self, key: Option<&[u8]>, request: Request<'_>) -> Result<Value, Error> {
        self.measured(self.0.link.call(key, request)).await
    }

    pub(crate) async fn call_node(&self, node: &Node, request: Request<'_>) -> Result<Value, Error> {
        self.measured(self.0.link.call_node(node, request, false)).await
    }

    pub(crate) async fn measured(&self, call: impl Future<Output = Result<Value, Error>>) -> Result<Value, Error> {
        let core = &self.0.link.core;
        let started = Instant::now();
        let admitted: Result<Pass<'_>, Error> = core.breaker.admit();
        let (answer, pass) = match admitted {
            Ok(pass) => (call.await, Some(pass)),
            Err(refused) => (Err(refused), None),
        };
        let outcome = answer.as_ref().map(|_| ()).map_err(Error::class);
        core.stats.command(started.elapsed(), outcome);
        // Not to know a script is an answer: a Redis that was restarted gives it to every probe until it gets the source.
        let heard = match &answer {
            Err(error) if error.code() == "NOSCRIPT" => Ok(()),
            _ => outcome,
        };
        if pass.is_some_and(|pass| pass.record(heard)) {
            core.stats.breaker(core.breaker.state());
        }
        answer
    }
}

/// A section of `INFO`; nothing where that is forbidden.
async fn info(stream: &mut Stream, section: &[u8]) -> Result<String, Error> {
    match exchange(stream, &[b"INFO", section]).await {
        Ok(info) => Ok(info.as_str().map(str::to_owned).unwrap_or_default()),
        Err(Error::Answer { code, .. }) if &*code == "NOPERM" => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn as_cluster(config: &Config, addresses: Vec<crate::config::Address>) -> Result<Config, Error> {
    if config.database != 0 {
        return Err(Error::Unusable("it is a cluster, which has only database 0".into()));
    }
    Ok(Config { topology: Topology::Cluster { addresses }, ..config.clone() })
}

fn topology_name(topology: &Topology) -> &'static str {
    match topology {
        Topology::Standalone { .. } => "standalone",
        Topology::Unix { .. } => "unix",
        Topology::Sentinel { .. } => "sentinel",
        Topology::Cluster { .. } => "cluster",
    }
}
