//! A primary with a replica, watched by three Sentinels.

use std::time::Duration;

use crate::server::Server;
use crate::settings::{Builder, Role, USER};
use crate::wait;

const SENTINELS: usize = 3;

/// What the Sentinels call the primary.
const NAME: &str = "mymaster";

/// A dead primary is noticed after this and replaced about a second later. With one second, on two busy cores, a live
/// one now and then looked dead just after its promotion, and the failover went back.
const DOWN_AFTER_MS: u32 = 1500;

/// Between two attempts at a failover, and how long Sentinels that voted for another wait.
const FAILOVER_TIMEOUT_MS: u32 = 3000;

/// Sentinels look at each server every half second instead of every ten, greet each other as often, and miss several
/// answers before they call a server dead.
const HASTE: [&str; 8] = ["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "500", "PING-PERIOD", "200"];

/// 60 s: it takes about three.
const FORMED: Duration = Duration::from_secs(60);

/// Two servers and three Sentinels; they end when this is dropped.
#[derive(Debug)]
pub struct Sentinel {
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

impl Sentinel {
    /// Starts all five and waits until each Sentinel knows the others and the replica.
    ///
    /// # Panics
    /// When there is no Redis to be found, or they do not find together.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// As [`start`](Self::start), both servers with the same further settings: users, persistence.
    ///
    /// # Panics
    /// As `start`.
    pub async fn start_with(settings: impl Fn(Builder) -> Builder) -> Self {
        let quick = || Server::builder().config("repl-diskless-sync yes").config("repl-diskless-sync-delay 0");
        let primary = settings(quick()).start().await;
        let follow = format!("replicaof 127.0.0.1 {}", primary.port());
        let replica = settings(quick().config(follow)).start().await;
        wait::until_true("the replica follows", FORMED, || linked(&replica)).await;
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            let sentinel = sentinel_of(primary.port()).start().await;
            // Before 7.0 this is refused, and a killed primary takes half a minute to be taken back.
            sentinel.command(&HASTE).await;
            sentinels.push(sentinel);
        }
        let group = Self { servers: [primary, replica], sentinels };
        group.wait_until_healthy().await;
        group
    }

    /// `redis-sentinel://127.0.0.1:port?node=…&sentinelServiceName=mymaster`, all Sentinels named.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: String = self.sentinels[1..].iter().map(|node| format!("node={}&", node.addr())).collect();
        format!("redis-sentinel://{}?{nodes}sentinelServiceName={NAME}", self.sentinels[0].addr())
    }

    /// What the Sentinels call the primary: `mymaster`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The two servers, primary and replica at first.
    #[must_use]
    pub fn servers(&self) -> &[Server; 2] {
        &self.servers
    }

    /// The three Sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// The server that the Sentinels call primary.
    ///
    /// # Panics
    /// When they do not agree for 60 s.
    pub async fn primary(&self) -> &Server {
        let found = wait::until(FORMED, || self.agreed()).await;
        found.unwrap_or_else(|| panic!("the sentinels do not agree within {FORMED:?}"))
    }

    /// Kills (`kill -9`) the primary, waits until the Sentinels have made the other one primary, and hands out the
    /// killed one, to be restarted.
    ///
    /// # Panics
    /// When that takes longer than 60 s.
    pub async fn kill_primary(&self) -> &Server {
        let killed = self.primary().await;
        killed.kill();
        self.wait_for_promotion(killed).await;
        killed
    }

    /// Waits until the Sentinels agree on a primary other than `former`, and it takes writes.
    ///
    /// # Panics
    /// When that takes longer than 60 s.
    pub async fn wait_for_promotion(&self, former: &Server) -> &Server {
        let promoted = || async {
            let primary = self.agreed().await.filter(|primary| primary.port() != former.port())?;
            primary.asked(&["INFO", "replication"]).await.contains("role:master").then_some(primary)
        };
        let found = wait::until(FORMED, promoted).await;
        found.unwrap_or_else(|| {
            panic!("no new primary within {FORMED:?}; a sentinel says:\n{}", self.sentinels[0].log())
        })
    }

    /// Waits until each Sentinel sees both others and the replica, which follows the primary.
    ///
    /// # Panics
    /// When that takes longer than 60 s.
    pub async fn wait_until_healthy(&self) {
        let healthy = || async {
            for sentinel in &self.sentinels {
                is_content(sentinel).await.then_some(())?;
            }
            // What they say of the replica may be older than its restart.
            let primary = self.agreed().await?;
            let replica = self.servers.iter().find(|server| server.port() != primary.port())?;
            let info = replica.asked(&["INFO", "replication"]).await;
            let follows = info.contains(&format!("master_port:{}\r\n", primary.port()));
            (follows && info.contains("master_link_status:up")).then_some(())
        };
        if wait::until(FORMED, healthy).await.is_none() {
            let mut states = String::new();
            for sentinel in &self.sentinels {
                states += &views(sentinel).await.concat();
                states += &sentinel.log();
            }
            panic!("the sentinels do not see each other and a replica that follows within {FORMED:?}:\n{states}");
        }
    }

    /// The running server that all Sentinels call primary.
    async fn agreed(&self) -> Option<&Server> {
        let mut ports = Vec::new();
        for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.is_running()) {
            let addr = sentinel.asked(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            ports.push(addr.lines().nth(1)?.parse::<u16>().ok()?);
        }
        ports.dedup();
        let [port] = ports.as_slice() else { return None };
        self.servers.iter().find(|server| server.port() == *port && server.is_running())
    }
}

/// What a Sentinel thinks of the primary and of its replicas.
async fn views(sentinel: &Server) -> [String; 2] {
    let primary = sentinel.asked(&["SENTINEL", "MASTER", NAME]).await;
    [primary, sentinel.asked(&["SENTINEL", "REPLICAS", NAME]).await]
}

async fn is_content(sentinel: &Server) -> bool {
    let [primary, replicas] = views(sentinel).await;
    let lines: Vec<&str> = primary.lines().collect();
    let has = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
    let sees_all = has("flags", "master") && has("num-other-sentinels", "2") && has("num-slaves", "1");
    sees_all && replicas.contains("master-link-status\nok") && !replicas.contains("_down")
}

fn sentinel_of(port: u16) -> Builder {
    let majority = SENTINELS / 2 + 1;
    Builder::new(Role::Sentinel)
        .config(format!("sentinel monitor {NAME} 127.0.0.1 {port} {majority}"))
        .config(format!("sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}"))
        .config(format!("sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}"))
        .config(format!("sentinel auth-user {NAME} {USER}"))
        .config(format!("sentinel auth-pass {NAME} {USER}"))
        .config(format!("sentinel parallel-syncs {NAME} 1"))
}

async fn linked(replica: &Server) -> bool {
    replica.asked(&["INFO", "replication"]).await.contains("master_link_status:up")
}
