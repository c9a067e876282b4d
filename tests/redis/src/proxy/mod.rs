//! A TCP proxy that breaks the network between a client and a server, to the byte.
//!
//! It lives on a thread and a runtime of its own, so it goes on while a test blocks, and serves tests without one.

mod fault;
mod link;
mod pipe;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use fault::{Fault, Toward};

use crate::port::Port;
use fault::{Ending, Plan};

/// 10 s: an order is carried out within a millisecond, so this is a proxy that hangs.
const ORDER: Duration = Duration::from_secs(10);

/// What passed through a [`Proxy`] since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes given to the server.
    pub to_server: u64,
    /// Bytes given to clients.
    pub to_client: u64,
    /// Connections ended by a fault at its byte.
    pub cuts: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    cuts: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    plan: watch::Sender<Plan>,
    traffic: Counters,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    /// End all connections.
    End(Ending),
    /// Close the door.
    Refuse,
    /// Open the door.
    Accept,
}

/// A proxy on 127.0.0.1; it and all its connections end when it is dropped. Without faults it passes everything.
///
/// Faults, once set, hold for every byte that is sent afterwards, on old and new connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: Port,
    /// `None` only while dropping.
    orders: Option<mpsc::UnboundedSender<(Order, blocking::Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of `target`, which need not be there yet: each client gets its own connection to it,
    /// or a reset.
    ///
    /// # Panics
    /// When no port or no thread is to be had.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let (port, listener) = listening();
        let shared = Arc::new(Shared { target, plan: watch::Sender::default(), traffic: Counters::default() });
        let (orders, inbox) = mpsc::unbounded_channel();
        let house =
            House { shared: Arc::clone(&shared), port: port.number(), killed: watch::Sender::new(Ending::Close) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let thread = std::thread::Builder::new().name("fault-proxy".to_owned());
        let thread = thread.spawn(move || runtime.block_on(house.run(listener, inbox))).expect("a thread starts");
        Self { shared, port, orders: Some(orders), thread: Some(thread) }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// Sets a fault for one direction until [`heal`](Self::heal).
    pub fn set(&self, toward: Toward, fault: Fault) {
        self.shared.plan.send_modify(|plan| plan.way_mut(toward).add(fault));
    }

    /// Cuts one connection: the first that, from now on, has passed `bytes` in this direction and gets one byte more.
    /// That byte does not pass. Sets a [`mark`](Self::mark); clients that come back find all well.
    ///
    /// To lose a whole reply: `cut_once(Toward::Client, 0)`. Let the line be quiet when calling this, or what is on the
    /// way counts as well. Whether it happened is told by [`Traffic::cuts`].
    pub fn cut_once(&self, toward: Toward, bytes: u64) {
        self.shared.plan.send_modify(|plan| {
            plan.mark += 1;
            plan.way_mut(toward).once = Some(bytes);
        });
    }

    /// All open connections count their bytes from zero again.
    pub fn mark(&self) {
        self.shared.plan.send_modify(|plan| plan.mark += 1);
    }

    /// Ends all connections now (FIN); returns when they are gone.
    pub fn kill_all(&self) {
        self.order(Order::End(Ending::Close));
    }

    /// Resets all connections now (RST); returns when they are gone.
    pub fn reset_all(&self) {
        self.order(Order::End(Ending::Reset));
    }

    /// Refuses new connections (nobody listens) until [`heal`](Self::heal). Open ones stay.
    pub fn refuse(&self) {
        self.order(Order::Refuse);
    }

    /// Takes all faults back. Connections that lost bytes are cut, all others go on.
    ///
    /// # Panics
    /// When a stranger took the port of a refusing proxy.
    pub fn heal(&self) {
        self.shared.plan.send_modify(Plan::heal);
        self.order(Order::Accept);
    }

    /// What passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.traffic;
        // `ended` first: more connections may be counted meanwhile, never fewer.
        let ended = of(&counters.ended);
        let connections = of(&counters.connections);
        Traffic {
            connections,
            open: connections - ended,
            to_server: of(&counters.to_server),
            to_client: of(&counters.to_client),
            cuts: of(&counters.cuts),
        }
    }

    fn order(&self, order: Order) {
        let (done, wait) = blocking::channel();
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send((order, done)).is_ok());
        assert!(sent && wait.recv_timeout(ORDER).is_ok(), "the proxy does not carry out {order:?}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listening() -> (Port, std::net::TcpListener) {
    loop {
        let port = Port::reserve();
        if let Ok(listener) = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())) {
            return (port, listener);
        }
    }
}

/// What lives on the proxy's thread.
struct House {
    shared: Arc<Shared>,
    port: u16,
    killed: watch::Sender<Ending>,
}

impl House {
    /// Accepts and obeys until the handle is dropped; connections end with it.
    async fn run(
        self,
        listener: std::net::TcpListener,
        mut orders: mpsc::UnboundedReceiver<(Order, blocking::Sender<()>)>,
    ) {
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let mut listener = Some(listener.expect("a fresh listener joins the runtime"));
        let mut links = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some((order, done)) = order else { return close(&mut listener) };
                    self.obey(order, &mut listener, &mut links).await;
                    let _ = done.send(());
                }
                Some(_) = links.join_next() => {}
                client = accepted(listener.as_ref()) => if let Ok(client) = client {
                    self.shared.traffic.connections.fetch_add(1, Ordering::Relaxed);
                    let (shared, killed) = (Arc::clone(&self.shared), self.killed.subscribe());
                    links.spawn(async move {
                        let _count = Leaving(Arc::clone(&shared));
                        link::serve(client, shared, killed).await;
                    });
                }
            }
        }
    }

    async fn obey(&self, order: Order, listener: &mut Option<TcpListener>, links: &mut JoinSet<()>) {
        match order {
            Order::End(ending) => {
                self.killed.send_replace(ending);
                while links.join_next().await.is_some() {}
            }
            Order::Refuse => close(listener),
            Order::Accept if listener.is_some() => {}
            Order::Accept => {
                let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
                *listener = Some(bound.expect("the proxy's port is still free"));
            }
        }
    }
}

/// Closing alone is not enough: a process that is just being started elsewhere in this program holds a copy of the
/// socket for a moment, and would go on listening.
fn close(listener: &mut Option<TcpListener>) {
    if let Some(listener) = listener.take() {
        // Systems that cannot do this to a listener say so; there the moment remains.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
    }
}

/// The next client; never one while the door is closed.
async fn accepted(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// Counts a connection as ended, however its task ends.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.traffic.ended.fetch_add(1, Ordering::Relaxed);
    }
}
