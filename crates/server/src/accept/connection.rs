//! One connection, from its first byte to its last: hyper speaks HTTP, the watch says when it is over.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::io::Io;
use super::takeover::{Slot, Taken, Takeover};
use super::watch::{Deadlines, Expired, Watch};
use super::{Answer, Peer, Shared, refuse};

/// How we speak HTTP/1.1; nothing else, for without TLS no client of ours needs more, and streams that each hold an answer
/// would have to be bounded one by one.
pub(crate) fn protocol(head_bytes_max: usize) -> Builder {
    let mut builder = Builder::new();
    // The watch keeps the head deadline: hyper's own does not cover the time before the first byte.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(head_bytes_max).half_close(false);
    builder
}

/// How a connection came to its end.
enum End {
    Closed,
    /// The peer began to speak HTTP/2.
    OtherVersion,
    Expired(Expired),
    /// An answer goes on without hyper.
    TakenOver(Taken),
}

/// Serves one connection until the peer closes it, a deadline passes or the drain lets it go. Returns the socket when it
/// is to be fed from here on.
pub(crate) async fn drive<A: Answer>(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared<A>>,
) -> Option<(TcpStream, Taken)> {
    let bounds = &shared.bounds;
    // Answers are small and awaited: waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let deadlines = Deadlines { head: bounds.head_timeout, idle: bounds.idle_timeout, write: bounds.write_timeout };
    let watch = Arc::new(Watch::new(deadlines, Instant::now()));
    let stream = Arc::new(stream);

    let end = match first_byte(&stream, &watch, shared).await {
        // In a box, so that a peer that says nothing costs next to nothing.
        None => Box::pin(speak(Arc::clone(&stream), peer, &watch, shared)).await,
        Some(end) => end,
    };
    match end {
        // hyper is gone, and with it the other owner of the socket.
        End::TakenOver(taken) => return Some((Arc::into_inner(stream)?, taken)),
        End::Closed if watch.is_body_unread() => refuse::linger(&stream).await,
        End::Closed => {}
        End::OtherVersion => refuse::version(&stream).await,
        End::Expired(Expired::Head) => {
            shared.counters.closed_head.inc();
            refuse::slow_head(&stream, bounds.head_timeout).await;
        }
        End::Expired(Expired::Idle) => shared.counters.closed_idle.inc(),
        End::Expired(Expired::Write) => {
            shared.counters.closed_write.inc();
            tracing::debug!(%peer, "closed a connection whose peer stopped reading");
        }
    }
    None
}

/// Waits until the peer has said something, or for the end that comes before.
async fn first_byte<A: Answer>(stream: &TcpStream, watch: &Watch, shared: &Shared<A>) -> Option<End> {
    let (at, expired) = watch.next()?;
    let mut first = [0];
    tokio::select! {
        biased;
        _ = stream.peek(&mut first) => None,
        () = shared.cut.cancelled() => Some(End::Closed),
        () = shared.draining.cancelled() => Some(End::Closed),
        () = tokio::time::sleep_until(at) => Some(End::Expired(expired)),
    }
}

/// Runs hyper and the watch side by side. hyper and its buffers are gone when this returns.
async fn speak<A: Answer>(
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    watch: &Arc<Watch>,
    shared: &Arc<Shared<A>>,
) -> End {
    let slot = Arc::new(Slot::default());
    let service = service_fn(|request: Request<Incoming>| {
        answer(request, peer.ip(), Arc::clone(watch), Arc::clone(&slot), Arc::clone(shared))
    });
    let io = TokioIo::new(Io::new(stream, Arc::clone(watch), shared.counters.traffic.clone()));
    let mut connection = pin!(shared.http.serve_connection(io, service));
    let mut timer = pin!(None);
    let mut is_draining = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended early");
                    if error.is_parse_version_h2() {
                        return End::OtherVersion;
                    }
                }
                return End::Closed;
            }
            taken = std::future::poll_fn(|_| poll_taken(&slot, watch)) => return End::TakenOver(taken),
            expired = std::future::poll_fn(|cx| poll_expired(watch, timer.as_mut(), cx)) => return End::Expired(expired),
            () = shared.cut.cancelled() => return End::Closed,
            () = shared.draining.cancelled(), if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Ready when the watch's next deadline has passed. The timer exists only while there is a deadline, and is moved only
/// when the deadline moved.
fn poll_expired(watch: &Watch, mut timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Expired> {
    let Some((at, expired)) = watch.next() else {
        timer.set(None);
        return Poll::Pending;
    };
    if timer.is_none() {
        timer.set(Some(tokio::time::sleep_until(at)));
    }
    let Some(mut sleep) = timer.as_pin_mut() else { return Poll::Pending };
    if sleep.deadline() != at {
        sleep.as_mut().reset(at);
    }
    sleep.poll(cx).map(|()| expired)
}

/// Ready when a response waits to be taken from hyper and every one before it is out: hyper writes what it has whenever
/// it is polled, so whatever is not out has met a full socket.
///
/// Polled after hyper, and woken with it: the slot is filled while hyper is polled, and so does a write become possible.
fn poll_taken(slot: &Slot, watch: &Watch) -> Poll<Taken> {
    if watch.is_write_blocked() {
        return Poll::Pending;
    }
    slot.take().map_or(Poll::Pending, Poll::Ready)
}

async fn answer<A: Answer>(
    request: Request<Incoming>,
    peer: IpAddr,
    watch: Arc<Watch>,
    slot: Arc<Slot>,
    shared: Arc<Shared<A>>,
) -> Result<Response<Watched>, std::convert::Infallible> {
    let in_flight = InFlight::begin(Arc::clone(&watch));
    // Who asks for a head alone gets it in the usual way, and nothing after it.
    let has_body = request.method() != Method::HEAD;
    let mut request = request.map(|body| Body::new(Received { body, watch }));
    request.extensions_mut().insert(Peer(peer));
    let mut response = shared.answer.answer(request).await;
    let takeover = response.extensions_mut().remove::<Takeover>();
    match takeover.and_then(|takeover| takeover.take()).filter(|_| has_body) {
        Some(frames) => {
            let (head, _) = response.into_parts();
            slot.fill(Taken { head, frames });
            // Dropped here, with hyper.
            std::future::pending().await
        }
        None => Ok(response.map(|body| Watched { body, _in_flight: in_flight })),
    }
}

/// A request whose response is not out yet.
struct InFlight(Arc<Watch>);

impl InFlight {
    fn begin(watch: Arc<Watch>) -> Self {
        watch.request_begun();
        Self(watch)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended(Instant::now());
    }
}

/// A response body that ends its request when hyper has taken it all, or has given up on it.
pub(crate) struct Watched {
    body: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request body that remembers whether it was read to its end.
struct Received {
    body: Incoming,
    watch: Arc<Watch>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !http_body::Body::is_end_stream(&self.body) {
            self.watch.body_left_unread();
        }
    }
}
