//! A Redis Cluster: three primaries, each with a replica.

use std::time::Duration;

use crate::connection::Reply;
use crate::server::Server;
use crate::settings::{Builder, Role};
use crate::wait;

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;

/// 1.5 s: a dead primary is replaced within three, and two busy cores do not make a live one look dead.
const NODE_TIMEOUT_MS: u32 = 1500;

/// 60 s: it takes about four.
const FORMED: Duration = Duration::from_secs(60);

/// A cluster of 6 nodes; nodes 0 to 2 begin as primaries of a third of the slots each, node `n + 3` as the replica of
/// node `n`. It ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster and waits until every node is content and every replica follows.
    ///
    /// # Panics
    /// When there is no Redis to be found, or the cluster does not come about.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// As [`start`](Self::start), each node with the same further settings: users, persistence, a password.
    ///
    /// # Panics
    /// As `start`.
    pub async fn start_with(settings: impl Fn(Builder) -> Builder) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * PRIMARIES {
            let builder = Builder::new(Role::ClusterNode)
                .config(format!("cluster-node-timeout {NODE_TIMEOUT_MS}"))
                .config("cluster-replica-validity-factor 0")
                .config("repl-diskless-sync yes")
                .config("repl-diskless-sync-delay 0");
            nodes.push(settings(builder).start().await);
        }
        let cluster = Self { nodes };
        cluster.form().await;
        cluster
    }

    async fn form(&self) {
        // A node takes an epoch only while it knows no other.
        for (at, node) in self.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if at < PRIMARIES {
                let slots = (SLOTS * at / PRIMARIES..SLOTS * (at + 1) / PRIMARIES).map(|slot| slot.to_string());
                let words: Vec<String> = ["CLUSTER", "ADDSLOTS"].map(str::to_owned).into_iter().chain(slots).collect();
                node.cli(&words).await;
            }
            for other in self.nodes.iter().filter(|other| other.port() != node.port()) {
                node.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]).await;
            }
        }
        self.wait_until("all nodes know each other", async |node| node.knows(self.nodes.len(), 0).await).await;
        for (replica, primary) in self.nodes[PRIMARIES..].iter().zip(&self.nodes) {
            let id = primary.cli(&["CLUSTER", "MYID"]).await;
            replica.cli(&["CLUSTER", "REPLICATE", &id]).await;
        }
        self.wait_until_healthy().await;
    }

    /// `redis-cluster://127.0.0.1:port?node=127.0.0.1:port&…`, all nodes named; with the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        let first = self.nodes[0].url();
        let nodes = self.nodes[1..].iter().map(|node| format!("node={}", node.addr()));
        format!("{}?{}", first.replacen("://", "-cluster://", 1), nodes.collect::<Vec<_>>().join("&"))
    }

    /// As [`url`](Self::url), for a user of [`Builder::acl`].
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let (_, nodes) = self.url().split_once('?').map(|(first, nodes)| (first.to_owned(), nodes.to_owned())).unzip();
        let first = self.nodes[0].url_as(user, password).replacen("://", "-cluster://", 1);
        format!("{first}?{}", nodes.unwrap_or_default())
    }

    /// All nodes, those that were killed too, in the order of their start.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The hash slot of a key; `{tag}` decides where there is one.
    ///
    /// # Panics
    /// When no node lives.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let slot = self.live().next().expect("a node lives").command(&["CLUSTER", "KEYSLOT", key]).await.int();
        u16::try_from(slot).expect("a slot is below 16384")
    }

    /// The live node that serves this key.
    ///
    /// # Panics
    /// When there is none, as between the death of a primary and [`wait_for_failover`](Self::wait_for_failover).
    pub async fn primary_of(&self, key: &str) -> &Server {
        self.find_primary_of(key).await.unwrap_or_else(|| panic!("no live node serves {key:?}"))
    }

    /// Kills (`kill -9`) the node that serves this key, and hands it out, to be restarted.
    ///
    /// # Panics
    /// As [`primary_of`](Self::primary_of).
    pub async fn kill_primary_of(&self, key: &str) -> &Server {
        let primary = self.primary_of(key).await;
        primary.kill();
        primary
    }

    /// Waits until all live nodes agree that a live node serves this key and that the cluster works; hands it out.
    ///
    /// # Panics
    /// When that takes longer than 60 s.
    pub async fn wait_for_failover(&self, key: &str) -> &Server {
        let serves = || async {
            let primary = self.find_primary_of(key).await?;
            for node in self.live() {
                let agrees = node.is_content().await && node.owner_of(key).await == Some(primary.port());
                agrees.then_some(())?;
            }
            Some(primary)
        };
        let found = wait::until(FORMED, serves).await;
        found.unwrap_or_else(|| panic!("nobody took over {key:?} within {FORMED:?}\n{}", self.logs()))
    }

    /// Waits until all live nodes are content and all live replicas follow.
    ///
    /// # Panics
    /// When that takes longer than 60 s.
    pub async fn wait_until_healthy(&self) {
        self.wait_until("the cluster is healthy", async |node| {
            node.is_content().await && node.knows(self.nodes.len(), PRIMARIES).await && node.follows().await
        })
        .await;
    }

    /// Deletes all keys of all primaries.
    pub async fn flush_all(&self) {
        for node in self.live() {
            // A replica refuses, and needs no telling.
            let reply = node.command(&["FLUSHALL", "SYNC"]).await;
            assert!(!reply.is_error("") || reply.is_error("READONLY"), "{reply}");
        }
    }

    fn live(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    async fn find_primary_of(&self, key: &str) -> Option<&Server> {
        for node in self.live() {
            if node.owner_of(key).await == Some(node.port()) && node.is_primary().await {
                return Some(node);
            }
        }
        None
    }

    async fn wait_until(&self, what: &str, holds: impl AsyncFn(&Server) -> bool) {
        let all = || async {
            for node in self.live() {
                holds(node).await.then_some(())?;
            }
            Some(())
        };
        assert!(wait::until(FORMED, all).await.is_some(), "not within {FORMED:?}: {what}\n{}", self.logs());
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(|node| format!("--- node {}:\n{}\n", node.port(), node.log())).collect()
    }
}

/// What a node thinks of its cluster. A node that dies meanwhile thinks nothing.
impl Server {
    async fn is_content(&self) -> bool {
        self.asked(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
    }

    /// Does it know so many nodes, all reachable, and so many replicas among them?
    async fn knows(&self, nodes: usize, replicas: usize) -> bool {
        let text = self.asked(&["CLUSTER", "NODES"]).await;
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        let flags = |flag: &str| lines.iter().filter(|line| line[2].split(',').any(|own| own == flag)).count();
        let linked = lines.iter().filter(|line| line[2].contains("myself") || line[7] == "connected").count();
        let lost = flags("fail") + flags("noaddr");
        lines.len() == nodes
            && flags("handshake") == 0
            && linked == nodes - lost
            && flags("slave") >= replicas.min(nodes - lost)
    }

    async fn is_primary(&self) -> bool {
        self.asked(&["INFO", "replication"]).await.contains("role:master")
    }

    /// Is it a primary, or a replica that has all of its primary's data?
    async fn follows(&self) -> bool {
        let info = self.asked(&["INFO", "replication"]).await;
        info.contains("role:master") || info.contains("master_link_status:up")
    }

    /// The port of the node that, in its eyes, serves this key.
    async fn owner_of(&self, key: &str) -> Option<u16> {
        let slot = self.try_command(&["CLUSTER", "KEYSLOT", key]).await.ok()?.int();
        let ranges = self.try_command(&["CLUSTER", "SLOTS"]).await.ok()?;
        let range = ranges.items().iter().find_map(|range| match range.items() {
            [from, to, primary, ..] if (from.int()..=to.int()).contains(&slot) => Some(primary.items()),
            _ => None,
        });
        u16::try_from(range?.get(1)?.int()).ok()
    }

    /// The reply as text; nothing from a node that is gone.
    pub(crate) async fn asked(&self, words: &[&str]) -> String {
        self.try_command(words).await.as_ref().map(Reply::to_string).unwrap_or_default()
    }
}
