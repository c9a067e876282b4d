//! From a key to the connection it goes over; redirections of a cluster.
//!
//! A single server is a link with one node. A redirection is followed because it says that nothing was executed;
//! nothing else is ever sent twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{Address, Topology};
use crate::core::Core;
use crate::error::Error;
use crate::lane::{self, Lane};
use crate::value::Value;
use crate::wire::{Request, SlotMap, Stream, parse_slots, slot_of};

/// More hops than this are a cluster that does not know itself.
const HOPS_MAX: usize = 5;
/// While a node is down its cluster is asked this often who took over.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// At least this long between two looks at the table.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// All general connections.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) core: Arc<Core>,
    /// The only node, when there is no cluster.
    single: Option<Arc<Node>>,
    /// Held to copy or replace the table.
    table: RwLock<Arc<Table>>,
    /// Every node with connections; held to look one up or add it.
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    slots: Option<SlotMap>,
    /// As `slots.primaries`.
    nodes: Vec<Arc<Node>>,
}

/// One server and our connections to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: Option<Address>,
    lanes: Vec<Arc<Lane>>,
    turn: AtomicUsize,
    /// Cancelled when the node is none of the cluster's any more.
    pub(crate) stop: CancellationToken,
}

type Answer = oneshot::Receiver<Result<Value, Error>>;

async fn reply(answer: Answer) -> Result<Value, Error> {
    answer.await.unwrap_or_else(|_| Err(Error::lost("the connection's task ended")))
}

impl Node {
    fn open(core: &Arc<Core>, address: Option<Address>, mut first: Option<Stream>) -> Arc<Self> {
        let stop = core.closing.child_token();
        let lanes: Vec<Arc<Lane>> = (0..core.config.general_connections()).map(|_| Arc::default()).collect();
        for lane in &lanes {
            let lane = Arc::clone(lane);
            core.tasks.spawn(lane.keep_up(core.clone(), address.clone(), first.take(), stop.clone()));
        }
        Arc::new(Self { address, lanes, turn: AtomicUsize::new(0), stop })
    }

    fn is_up(&self) -> bool {
        self.lanes.iter().any(|lane| lane.connection().is_some())
    }

    /// As [`send`](Self::send), two commands between `MULTI` and `EXEC`; over the first connection.
    fn send_together(&self, commands: [Request<'_>; 2]) -> Result<[Answer; 2], Error> {
        let connection = self.lanes.iter().find_map(|lane| lane.connection());
        connection.ok_or_else(|| Error::not_connected("there is no connection to Redis"))?.send_together(commands)
    }

    /// Sends over a connection that is up: the first while nobody else is using it, so that a lone caller always meets
    /// the same warm task; else each in turn.
    fn send(&self, request: Request<'_>, asking: bool) -> Result<(Answer, &Lane), Error> {
        let mut failure = None;
        let start = match self.lanes[0].connection() {
            Some(first) if first.is_idle() => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        for turn in 0..self.lanes.len() {
            let lane = &self.lanes[(start + turn) % self.lanes.len()];
            let Some(connection) = lane.connection() else { continue };
            let sent = if asking { connection.send_asking(request) } else { connection.send(request) };
            match sent {
                Ok(answer) => return Ok((answer, lane)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::not_connected("there is no connection to Redis")))
    }
}

impl Link {
    /// A link to one server over `first` and more connections like it, which it waits for a moment.
    pub(crate) async fn single(core: Arc<Core>, first: Stream) -> Arc<Self> {
        let link = Self::one_server(core, Some(first));
        link.wait_for_all(link.core.config.grace).await;
        link
    }

    fn one_server(core: Arc<Core>, first: Option<Stream>) -> Arc<Self> {
        let node = Node::open(&core, None, first);
        let table = Table { slots: None, nodes: vec![node.clone()] };
        Arc::new(Self::new(core, Some(node), table))
    }

    /// A link to the same servers with connections of its own. Waits for them for up to `patience`; those that are not
    /// up then are still on their way.
    pub(crate) async fn beside(&self, core: Arc<Core>, patience: Duration) -> Arc<Self> {
        let link = match &self.single {
            Some(_) => Self::one_server(core, None),
            None => {
                let link = Arc::new(Self::new(core, None, Table::default()));
                if let Some(slots) = self.table.read().slots.clone() {
                    link.adopt(slots);
                }
                link.core.table_stale.notify_one();
                link.core.tasks.spawn(link.clone().keep_table());
                link
            }
        };
        link.wait_for_all(patience).await;
        link
    }

    /// A link to all primaries of a cluster. Errors: whatever keeps us from learning who they are.
    pub(crate) async fn cluster(core: Arc<Core>) -> Result<Arc<Self>, Error> {
        let link = Arc::new(Self::new(core, None, Table::default()));
        link.look().await?;
        link.wait_for_all(link.core.config.connect_timeout).await;
        if link.table.read().nodes.iter().all(|node| !node.is_up()) {
            return Err(Error::not_connected("no primary of the cluster could be reached"));
        }
        link.core.tasks.spawn(link.clone().keep_table());
        Ok(link)
    }

    fn new(core: Arc<Core>, single: Option<Arc<Node>>, table: Table) -> Self {
        let table = RwLock::new(Arc::new(table));
        Self { core, single, table, nodes: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// One request, its reply. `key` says where in a cluster.
    pub(crate) async fn call(&self, key: Option<&[u8]>, request: Request<'_>) -> Result<Value, Error> {
        match &self.single {
            Some(node) => self.call_node(node, request, false).await,
            None => self.call_cluster(key.map(slot_of), request).await,
        }
    }

    async fn call_cluster(&self, slot: Option<u16>, request: Request<'_>) -> Result<Value, Error> {
        let (mut redirected, mut asking) = (None, false);
        for _ in 0..HOPS_MAX {
            let node = match redirected.take() {
                Some(node) => node,
                None => self.owner(slot).await?,
            };
            let error = match self.call_node(&node, request, asking).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error.code() {
                "MOVED" | "ASK" => {
                    asking = error.code() == "ASK";
                    redirected = Some(self.node(target(&error, &node)?));
                    if !asking {
                        self.core.table_stale.notify_one();
                    }
                }
                "CLUSTERDOWN" => {
                    self.core.table_stale.notify_one();
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
        Err(Error::not_connected("the cluster sends us in circles"))
    }

    /// One request to one node; waits a moment for a connection that is just being made.
    pub(crate) async fn call_node(&self, node: &Node, request: Request<'_>, asking: bool) -> Result<Value, Error> {
        let (answer, lane) = match node.send(request, asking) {
            Err(error) if error.code() == "DISCONNECTED" => self.send_soon(node, request, asking).await?,
            sent => sent?,
        };
        reply(answer).await.inspect_err(|error| {
            if lane::is_read_only(error) {
                lane.is_read_only();
            }
        })
    }

    /// Two commands as one, at the node that owns `key`. What Redis says to the first when it is queued, and what it says to
    /// the whole; redirections are told, not followed.
    pub(crate) async fn call_together(
        &self,
        key: &[u8],
        commands: [Request<'_>; 2],
    ) -> Result<[Result<Value, Error>; 2], Error> {
        let node = self.node_soon(Some(key)).await?;
        let [queued, executed] =
            node.send_together(commands).map_err(|error| match self.core.closing.is_cancelled() {
                true => Error::closed(),
                false => error,
            })?;
        let both = [reply(queued).await, reply(executed).await];
        if both.iter().any(|reply| reply.as_ref().is_err_and(lane::is_read_only)) {
            node.lanes.iter().for_each(|lane| lane.is_read_only());
        }
        Ok(both)
    }

    /// As [`Node::send`], as soon as a connection comes up; gives up after the grace.
    async fn send_soon<'a>(
        &self,
        node: &'a Node,
        request: Request<'_>,
        asking: bool,
    ) -> Result<(Answer, &'a Lane), Error> {
        let grace = self.core.config.grace;
        let limit = Instant::now() + grace;
        let mut came_up = self.core.came_up.subscribe();
        loop {
            if self.core.closing.is_cancelled() {
                return Err(Error::closed());
            }
            match node.send(request, asking) {
                Err(error) if error.code() == "DISCONNECTED" => {
                    if grace.is_zero() || timeout_at(limit, came_up.changed()).await.is_err() {
                        return Err(error);
                    }
                }
                sent => return sent,
            }
        }
    }

    /// The node that owns a key now, if it is known; without a key any node.
    pub(crate) fn node_now(&self, key: Option<&[u8]>) -> Option<Arc<Node>> {
        match &self.single {
            Some(node) => Some(node.clone()),
            None => self.find(key.map(slot_of)),
        }
    }

    /// As [`node_now`](Self::node_now); waits a moment for one.
    pub(crate) async fn node_soon(&self, key: Option<&[u8]>) -> Result<Arc<Node>, Error> {
        match &self.single {
            Some(node) => Ok(node.clone()),
            None => self.owner(key.map(slot_of)).await,
        }
    }

    /// The places of `keys`, grouped by the node that owns them now.
    pub(crate) fn by_node(&self, keys: &[Bytes]) -> Vec<Vec<usize>> {
        if !self.is_cluster() {
            return vec![(0..keys.len()).collect()];
        }
        let table = self.table.read().clone();
        let mut groups = vec![Vec::new(); table.nodes.len() + 1];
        for (place, key) in keys.iter().enumerate() {
            let owner = table.slots.as_ref().and_then(|slots| slots.owner(slot_of(key)));
            groups[owner.unwrap_or(table.nodes.len())].push(place);
        }
        groups
    }

    /// The node that owns a slot; without a slot any that is up. Waits a moment for one.
    async fn owner(&self, slot: Option<u16>) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.find(slot) {
            return Ok(node);
        }
        let grace = self.core.config.grace;
        let limit = Instant::now() + grace;
        let mut came_up = self.core.came_up.subscribe();
        loop {
            self.core.table_stale.notify_one();
            if let Some(node) = self.find(slot) {
                return Ok(node);
            }
            if grace.is_zero() || timeout_at(limit, came_up.changed()).await.is_err() {
                return Err(Error::not_connected("no node of the cluster serves this key now"));
            }
        }
    }

    fn find(&self, slot: Option<u16>) -> Option<Arc<Node>> {
        let table = self.table.read();
        match slot {
            Some(slot) => table.slots.as_ref()?.owner(slot).map(|at| table.nodes[at].clone()),
            None => self.any(&table.nodes).cloned(),
        }
    }

    fn any<'a>(&self, nodes: &'a [Arc<Node>]) -> Option<&'a Arc<Node>> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..nodes.len()).map(|turn| &nodes[(start + turn) % nodes.len()]);
        in_turn.into_iter().find(|node| node.is_up())
    }

    async fn wait_for_all(&self, patience: Duration) {
        let limit = Instant::now() + patience;
        loop {
            let mut came_up = self.core.came_up.subscribe();
            let all = self.primaries().iter().all(|node| node.lanes.iter().all(|lane| lane.connection().is_some()));
            if all || timeout_at(limit, came_up.changed()).await.is_err() {
                return;
            }
        }
    }

    /// All primaries.
    pub(crate) fn primaries(&self) -> Vec<Arc<Node>> {
        self.table.read().nodes.clone()
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.single.is_none()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.table.read().nodes.iter().any(|node| node.is_up())
    }

    fn all_up(&self) -> bool {
        let table = self.table.read();
        !table.nodes.is_empty() && table.nodes.iter().all(|node| node.is_up())
    }

    /// Where nodes of the cluster listen: the known ones, then those of the configuration.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let mut known: Vec<Address> = self.primaries().iter().filter_map(|node| node.address.clone()).collect();
        if let Topology::Cluster { addresses } = &self.core.config.topology {
            known.extend(addresses.iter().cloned());
        }
        known
    }

    /// The node at an address, with connections on the way.
    fn node(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let node =
            nodes.entry(address).or_insert_with_key(|address| Node::open(&self.core, Some(address.clone()), None));
        node.clone()
    }

    /// Keeps the table true: looks whenever somebody was redirected, a connection was lost, or a node is down.
    async fn keep_table(self: Arc<Self>) {
        loop {
            let again = if self.all_up() { Duration::MAX } else { LOOK_AGAIN };
            tokio::select! {
                _ = timeout(again, self.core.table_stale.notified()) => {}
                () = self.core.closing.cancelled() => return,
            }
            let looked = tokio::select! {
                looked = self.look() => looked,
                () = self.core.closing.cancelled() => return,
            };
            if let Err(error) = looked {
                self.core.failed(&error.to_string());
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Asks a node for the table and opens and closes connections accordingly.
    async fn look(&self) -> Result<(), Error> {
        let slots = self.ask_for_slots().await?;
        self.adopt(slots);
        Ok(())
    }

    fn adopt(&self, slots: SlotMap) {
        let nodes: Vec<_> = slots.primaries.iter().map(|address| self.node(address.clone())).collect();
        self.nodes.lock().retain(|address, node| {
            let stays = slots.primaries.contains(address);
            if !stays {
                node.stop.cancel();
            }
            stays
        });
        let before = std::mem::replace(&mut *self.table.write(), Arc::new(Table { slots: Some(slots), nodes }));
        let known = |node: &Arc<Node>| before.nodes.iter().any(|other| other.address == node.address);
        if !before.nodes.is_empty() && !self.primaries().iter().all(known) {
            // Another primary, other settings perhaps.
            self.core.reconnects.send_modify(|count| *count += 1);
        }
        // Those who wait for an owner look again.
        self.core.came_up.send_modify(|count| *count += 1);
    }

    /// Asks every server that is in use whether it is there and a primary, over the connection that callers use; of a
    /// cluster also whether these are all. Errors: the first doubt.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let mut nodes = self.primaries();
        if nodes.is_empty() {
            return Err(Error::not_connected("no primary is known"));
        }
        // A slot that is moving leads to a node that may be in no table yet.
        let others = self.nodes.lock().values().filter(|node| node.is_up()).cloned().collect::<Vec<_>>();
        nodes.extend(others);
        nodes.sort_by(|one, other| one.address.cmp(&other.address));
        nodes.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let checked = try_join(try_join_all(nodes.iter().map(|node| self.check_node(node))), self.check_table()).await;
        match checked {
            Err(_) if self.core.closing.is_cancelled() => Err(Error::closed()),
            checked => checked.map(|_| ()),
        }
    }

    async fn check_node(&self, node: &Node) -> Result<(), Error> {
        let (answer, lane) = node.send(Request::bare(&[b"ROLE"]), false)?;
        let role = match reply(answer).await {
            Ok(role) => role.into_array()?,
            // Whoever may not be asked for its role has answered all the same.
            Err(error) if error.code() == "NOPERM" => return Ok(()),
            Err(error) => return Err(error),
        };
        match role.first().map(Value::as_str) {
            Some(Ok("master")) => Ok(()),
            _ => {
                lane.is_read_only();
                Err(Error::not_connected("the server is a replica"))
            }
        }
    }

    /// Whether a cluster still has the primaries that we know.
    async fn check_table(&self) -> Result<(), Error> {
        if !self.is_cluster() {
            return Ok(());
        }
        let known = self.primaries();
        let node = self.any(&known).ok_or_else(|| Error::not_connected("there is no connection to the cluster"))?;
        let request = Request::bare(&[b"CLUSTER", b"SLOTS"]);
        let host = node.address.as_ref().map_or("", |address| &address.host);
        let slots = parse_slots(self.call_node(node, request, false).await?, host)?;
        let is_known = |address: &Address| known.iter().any(|node| node.address.as_ref() == Some(address));
        if slots.primaries.len() == known.len() && slots.primaries.iter().all(is_known) {
            return Ok(());
        }
        self.core.table_stale.notify_one();
        Err(Error::not_connected("the cluster has other primaries than before"))
    }

    async fn ask_for_slots(&self) -> Result<SlotMap, Error> {
        let request = Request::bare(&[b"CLUSTER", b"SLOTS"]);
        if let Some(node) = self.any(&self.primaries())
            && let Some(address) = &node.address
            && let Ok((answer, _)) = node.send(request, false)
            && let Ok(Ok(Ok(reply))) = timeout(self.core.config.connect_timeout, answer).await
        {
            return parse_slots(reply, &address.host);
        }
        let (mut stream, address) = self.core.dialer.dial_any(&self.addresses()).await?;
        let asking = crate::wire::exchange(&mut stream, &[b"CLUSTER", b"SLOTS"]);
        let reply = timeout(self.core.config.connect_timeout, asking).await;
        parse_slots(reply.map_err(|_| Error::not_connected("a node of the cluster does not answer"))??, &address.host)
    }
}

/// `MOVED 3999 127.0.0.1:6381`; a node without a host is the one that said so.
fn target(error: &Error, said: &Node) -> Result<Address, Error> {
    let Error::Answer { message, .. } = error else { return Err(error.clone()) };
    let (host, port) =
        message.split_whitespace().nth(2).and_then(|place| place.rsplit_once(':')).ok_or(error.clone())?;
    let port = port.parse().map_err(|_| error.clone())?;
    let host = match (host, &said.address) {
        ("" | "?", Some(address)) => address.host.clone(),
        (host, _) => host.to_owned(),
    };
    Ok(Address { host, port })
}
