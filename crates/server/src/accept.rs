//! The accept loop: takes connections from one listener, drives each in a task of its own, and ends them all in the drain.
//!
//! What a peer may cost is decided here and nowhere else: how many connections, how long it may take to send a head, to
//! stay idle, to take our bytes. Deadlines inside a request (its body) belong to `body.rs`.
//!
//! * `limits` counts connections, in all and per address;
//! * `watch` is the pure machine that says when a connection's time is over;
//! * `io` moves the bytes and tells the watch about them;
//! * `connection` drives one connection; `refuse` says no in a way a client can read;
//! * `takeover` marks an answer that goes on for as long as the peer listens; `feed` writes it, without hyper.

mod connection;
mod feed;
mod io;
mod limits;
mod refuse;
mod takeover;
mod watch;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tidegate_metrics::{Counter, Gauge, Registry};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use feed::{Feed, Feeds};
pub use limits::Refused;
pub(crate) use limits::group;
use limits::{Limits, Permit};
pub use takeover::{Frames, Outgoing, Takeover};

/// What one peer may cost.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Sockets open at once: connections, and listeners that are fed.
    pub descriptors_max: usize,
    /// Connections open at once, without those that are fed.
    pub connections_max: usize,
    /// Connections open at once from one address (IPv6: from one /64).
    pub connections_per_address_max: usize,
    /// Time to send a request's head, and to send the first one after connecting.
    pub head_timeout: Duration,
    /// Time a kept-alive connection may stay without a request.
    pub idle_timeout: Duration,
    /// Time a peer may take none of the bytes we have for it.
    pub write_timeout: Duration,
    /// Bytes the kernel may hold for a listener that does not read (it doubles the number for its own needs).
    pub feed_buffer: usize,
    /// Time a listener may take none of the frames we have for it.
    pub feed_stall_timeout: Duration,
}

/// Among a request's extensions: where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// 64 KiB, rounded up to what one read brings: a larger request head has no honest use; hyper answers 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// 1024: enough for a burst of reconnecting clients; the kernel caps it at `somaxconn`.
const BACKLOG: u32 = 1024;
/// First wait after the process ran out of file descriptors; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// 1 s: long enough to cost nothing, short enough that freed descriptors are used at once.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Answers requests. `Err` never happens: every failure is already a response.
pub trait Answer: Send + Sync + 'static {
    /// Answers one request. Dropped when the peer goes away, so whatever it holds must give itself back.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// Binds `address` for [`Acceptor::run`].
///
/// # Errors
/// The operating system's: the address is taken, not ours, or privileged.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Everything the connections share. Fields are immutable; counters lock for themselves.
struct Shared<A> {
    answer: Arc<A>,
    bounds: Bounds,
    limits: Arc<Limits>,
    http: hyper::server::conn::http1::Builder,
    tasks: TaskTracker,
    draining: CancellationToken,
    /// Cancelled when the drain's deadline has passed: whatever is still open is cut.
    cut: CancellationToken,
    counters: Counters,
    feeds: Arc<Feeds>,
}

/// What the loop counts.
struct Counters {
    accepted: Counter,
    accept_errors: Counter,
    open: Gauge,
    refused_total: Counter,
    refused_address: Counter,
    closed_head: Counter,
    closed_idle: Counter,
    closed_write: Counter,
    closed_feed: Counter,
    traffic: io::Traffic,
}

impl Counters {
    fn new(registry: &Registry) -> Self {
        let refused = |reason| {
            registry.counter_with(
                "tidegate_http_connections_refused_total",
                "Connections refused at a limit.",
                &[("limit", reason)],
            )
        };
        let closed = |reason| {
            registry.counter_with(
                "tidegate_http_connections_expired_total",
                "Connections closed at a deadline.",
                &[("deadline", reason)],
            )
        };
        Self {
            accepted: registry.counter("tidegate_http_connections_accepted_total", "Connections accepted."),
            accept_errors: registry
                .counter("tidegate_http_accept_errors_total", "Failed accepts (out of descriptors, out of memory)."),
            open: registry.gauge("tidegate_http_connections", "Connections open now."),
            refused_total: refused("total"),
            refused_address: refused("address"),
            closed_head: closed("head"),
            closed_idle: closed("idle"),
            closed_write: closed("write"),
            closed_feed: closed("feed"),
            traffic: io::Traffic {
                received: registry.counter("tidegate_http_received_bytes_total", "Bytes read from connections."),
                sent: registry.counter("tidegate_http_sent_bytes_total", "Bytes written to connections."),
            },
        }
    }
}

/// The accept loop and the connections it started.
pub struct Acceptor<A> {
    shared: Arc<Shared<A>>,
}

impl<A: Answer> Acceptor<A> {
    /// Makes a loop that answers with `answer`. Nothing runs until [`Acceptor::run`].
    ///
    /// When `draining` is cancelled the loop stops accepting, idle connections close, and those with a request in
    /// flight close after its response.
    pub fn new(answer: Arc<A>, bounds: Bounds, draining: CancellationToken, registry: &Registry) -> Self {
        let tasks = TaskTracker::new();
        let limits = Limits::new(bounds.descriptors_max, bounds.connections_max, bounds.connections_per_address_max);
        let http = connection::protocol(HEAD_BYTES_MAX);
        let counters = Counters::new(registry);
        let cut = CancellationToken::new();
        let feeds = Arc::new(Feeds::new(&bounds, &cut, &counters));
        Self { shared: Arc::new(Shared { answer, bounds, limits, http, tasks, draining, cut, counters, feeds }) }
    }

    /// Accepts until the drain begins. Returns with connections still open: [`Acceptor::finish`] waits for them.
    pub async fn run(&self, listener: TcpListener) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    backoff = BACKOFF_MIN;
                    self.admit(stream, peer);
                }
                Err(error) if belongs_to_the_peer(&error) => {}
                Err(error) => {
                    self.shared.counters.accept_errors.inc();
                    tracing::warn!(%error, retry_in_ms = backoff.as_millis() as u64, "failed to accept a connection");
                    tokio::select! {
                        () = self.shared.draining.cancelled() => return,
                        () = tokio::time::sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Sends all listeners away with a word about when to come back; when they are many, spread over `window`. Those who
    /// come later are sent away at once.
    pub async fn release_listeners(&self, window: Duration) {
        self.shared.feeds.release(window).await;
    }

    /// Waits until every connection has ended; at `deadline` the rest are cut. Returns how many were cut.
    pub async fn finish(&self, deadline: tokio::time::Instant) -> usize {
        self.shared.tasks.close();
        self.release_listeners(Duration::ZERO).await;
        if tokio::time::timeout_at(deadline, self.shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let remaining = self.shared.limits.open();
        self.shared.cut.cancel();
        remaining
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let shared = &self.shared;
        shared.counters.accepted.inc();
        match shared.limits.admit(peer.ip()) {
            Ok(permit) => self.start(stream, peer, permit),
            Err(refused) => {
                match refused {
                    Refused::Total { .. } => shared.counters.refused_total.inc(),
                    Refused::Address { .. } => shared.counters.refused_address.inc(),
                }
                if let Some(place) = shared.limits.place_to_linger() {
                    shared.tasks.spawn(async move {
                        refuse::connection(stream, refused).await;
                        drop(place);
                    });
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        let shared = Arc::clone(&self.shared);
        let open = Open::new(shared.counters.open.clone());
        self.shared.tasks.spawn(async move {
            if let Some((stream, taken)) = connection::drive(stream, peer, &shared).await {
                // A task of its own, so that the memory of this one is freed.
                shared.tasks.spawn(Feed::new(stream, taken, Arc::clone(&shared.feeds), permit.begin_feed()));
            }
            drop(open);
        });
    }
}

/// Counts an open connection; gives the gauge back even when its task panics.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.add(1.0);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Errors of the connection that was being accepted, not of the listener: the next accept may succeed at once.
fn belongs_to_the_peer(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}
