//! The accept loop over real sockets: deadlines, limits, drain, and errors that are always problems.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tidegate_metrics::Registry;
use tidegate_server::accept::{Acceptor, Answer, Bounds, Frames, Outgoing, Takeover, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(20);

/// Answers by path: `/` at once, `/hold` when released, `/big` with megabytes, `/sse` with what the test feeds, `/flood`
/// with frames without end.
#[derive(Default)]
struct Paths {
    arrived: Notify,
    release: Notify,
    feeds: Mutex<Vec<UnboundedSender<Bytes>>>,
}

impl Paths {
    /// A marked response whose frames come from the test; they end when its sender is dropped.
    fn listen(&self) -> Response<Body> {
        let (feed, frames) = unbounded_channel();
        self.feeds.lock().unwrap().push(feed);
        self.arrived.notify_one();
        marked(Fed(frames))
    }

    async fn feed(&self) -> UnboundedSender<Bytes> {
        timeout(HANG, self.arrived.notified()).await.expect("the listener arrives");
        self.feeds.lock().unwrap().pop().unwrap()
    }
}

fn marked(frames: impl Frames) -> Response<Body> {
    let body = Body::from_stream(futures_util::stream::empty::<Result<Bytes, std::io::Error>>());
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    response.extensions_mut().insert(Takeover::new(frames));
    response
}

struct Fed(UnboundedReceiver<Bytes>);

impl Frames for Fed {
    fn poll_frames(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<()> {
        while out.has_room() {
            match self.0.poll_recv(cx) {
                Poll::Ready(Some(frame)) => out.push(frame),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}

/// Frames without end, each numbered, of 1000 bytes.
struct Flood(u64);

impl Frames for Flood {
    fn poll_frames(&mut self, _: &mut Context<'_>, out: &mut Outgoing) -> Poll<()> {
        while out.has_room() {
            out.push(format!("data: {:>990}\n\n", self.0).into());
            self.0 += 1;
        }
        Poll::Pending
    }
}

impl Answer for Paths {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let body = match request.uri().path() {
            "/sse" => return self.listen(),
            "/flood" => return marked(Flood(0)),
            "/hold" => {
                self.arrived.notify_one();
                self.release.notified().await;
                Body::from("held")
            }
            "/big" => Body::from(vec![b'x'; 64 << 20]),
            _ => Body::from("hello"),
        };
        Response::new(body)
    }
}

struct Running {
    address: SocketAddr,
    paths: Arc<Paths>,
    draining: CancellationToken,
    registry: Registry,
    loop_ended: tokio::task::JoinHandle<usize>,
}

fn bounds() -> Bounds {
    Bounds {
        descriptors_max: 4000,
        connections_max: 100,
        connections_per_address_max: 100,
        head_timeout: HANG,
        idle_timeout: HANG,
        write_timeout: HANG,
        feed_buffer: 16 * 1024,
        feed_stall_timeout: HANG,
    }
}

/// Runs the loop until `draining`; the drain gets `drain_timeout`.
fn start(bounds: Bounds, drain_timeout: Duration) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (draining, registry, paths) = (CancellationToken::new(), Registry::new(), Arc::new(Paths::default()));
    let acceptor = Acceptor::new(Arc::clone(&paths), bounds, draining.clone(), &registry);
    let loop_ended = tokio::spawn(async move {
        acceptor.run(listener).await;
        acceptor.finish(Instant::now() + drain_timeout).await
    });
    Running { address, paths, draining, registry, loop_ended }
}

impl Running {
    /// Sends these bytes on a connection of their own.
    async fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = open(self.address).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    fn expired(&self, deadline: &'static str) -> u64 {
        let labels = [("deadline", deadline)];
        self.registry.counter_with("tidegate_http_connections_expired_total", "", &labels).get()
    }

    fn connections(&self) -> f64 {
        self.registry.gauge("tidegate_http_connections", "").get()
    }
}

async fn until(is_so: impl Fn() -> bool) {
    timeout(HANG, async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it comes to be so");
}

async fn open(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after our last word counts as closed as well.
    let _ = timeout(HANG, stream.read_to_end(&mut bytes)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 1024];
    while !text.contains(end) {
        let read = timeout(HANG, stream.read(&mut bytes)).await.expect("the server answers").unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

fn assert_problem(response: &str, status: u16, code: &str) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert!(response.contains("content-type: application/problem+json"), "{response}");
    assert!(response.contains("\"success\":false"), "{response}");
    assert!(response.contains(&format!("\"code\":\"{code}\"")), "{response}");
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn half_a_head_is_answered_with_408_at_its_deadline() {
    let server = start(Bounds { head_timeout: Duration::from_millis(100), ..bounds() }, HANG);
    let mut stream = open(server.address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow").await.unwrap();
    assert_problem(&read_to_close(&mut stream).await, 408, "request_timeout");
}

#[tokio::test]
async fn half_a_preface_of_http2_gains_no_time() {
    let server = start(Bounds { head_timeout: Duration::from_millis(100), ..bounds() }, HANG);
    let mut stream = open(server.address).await;
    stream.write_all(b"PRI * HTTP").await.unwrap();
    read_to_close(&mut stream).await;
}

#[tokio::test]
async fn a_preface_of_http2_is_told_what_is_spoken_here() {
    let server = start(bounds(), HANG);
    let mut stream = open(server.address).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    assert_problem(&read_to_close(&mut stream).await, 505, "version_not_supported");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let server = start(Bounds { head_timeout: Duration::from_millis(100), ..bounds() }, HANG);
    assert_eq!(read_to_close(&mut open(server.address).await).await, "");
}

#[tokio::test]
async fn a_kept_alive_connection_is_closed_at_the_idle_deadline() {
    let server = start(Bounds { idle_timeout: Duration::from_millis(100), ..bounds() }, HANG);
    let mut stream = open(server.address).await;
    for _ in 0..2 {
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "hello").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(read_to_close(&mut stream).await, "");
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_cut() {
    let server = start(Bounds { write_timeout: Duration::from_millis(100), ..bounds() }, HANG);
    let mut stream = open(server.address).await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(|| server.expired("write") == 1).await;
    assert!(read_to_close(&mut stream).await.len() < 64 << 20);
}

#[tokio::test]
async fn bytes_that_are_not_http_get_a_problem() {
    let server = start(bounds(), HANG);
    let mut stream = open(server.address).await;
    stream.write_all(b"HELO there\r\n\r\n").await.unwrap();
    assert_problem(&read_to_close(&mut stream).await, 400, "bad_request");

    let mut stream = open(server.address).await;
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let _ = stream.write_all(head.as_bytes()).await;
    assert_problem(&read_to_close(&mut stream).await, 431, "headers_too_large");

    let mut stream = open(server.address).await;
    let _ = stream.write_all(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(66_000)).as_bytes()).await;
    let response = read_to_close(&mut stream).await;
    assert!(response.contains("application/problem+json"), "{response}");
}

#[tokio::test]
async fn over_the_limit_a_connection_is_told_so_and_the_others_go_on() {
    let server = start(Bounds { connections_per_address_max: 2, ..bounds() }, HANG);
    let mut held = [open(server.address).await, open(server.address).await];
    for stream in &mut held {
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        read_until(stream, "hello").await;
    }
    let mut third = open(server.address).await;
    third.write_all(REQUEST.as_bytes()).await.unwrap();
    let response = read_to_close(&mut third).await;
    assert_problem(&response, 503, "too_many_connections");
    assert!(response.contains("retry-after: "), "{response}");

    held[0].write_all(REQUEST.as_bytes()).await.unwrap();
    read_until(&mut held[0], "hello").await;
    let refused = server.registry.counter_with("tidegate_http_connections_refused_total", "", &[("limit", "address")]);
    assert_eq!(refused.get(), 1);
}

#[tokio::test]
async fn the_drain_closes_idle_connections_and_finishes_requests_in_flight() {
    let server = start(bounds(), HANG);
    let mut idle = open(server.address).await;
    idle.write_all(REQUEST.as_bytes()).await.unwrap();
    read_until(&mut idle, "hello").await;
    let mut silent = open(server.address).await;
    let mut busy = open(server.address).await;
    busy.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.paths.arrived.notified().await;

    server.draining.cancel();
    assert_eq!(read_to_close(&mut idle).await, "");
    assert_eq!(read_to_close(&mut silent).await, "");
    assert!(TcpStream::connect(server.address).await.is_err() || !server.loop_ended.is_finished());
    server.paths.release.notify_one();
    assert!(read_to_close(&mut busy).await.ends_with("held"));
    assert_eq!(timeout(HANG, server.loop_ended).await.unwrap().unwrap(), 0, "nothing was cut");
}

#[tokio::test]
async fn what_outlives_the_drain_is_cut_and_counted() {
    let server = start(bounds(), Duration::from_millis(100));
    let mut busy = open(server.address).await;
    busy.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.paths.arrived.notified().await;
    server.draining.cancel();
    assert_eq!(timeout(HANG, server.loop_ended).await.unwrap().unwrap(), 1);
    assert_eq!(read_to_close(&mut busy).await, "");
}

#[tokio::test]
async fn hundreds_of_silent_connections_leave_room_for_a_request() {
    let server = start(Bounds { connections_max: 3000, connections_per_address_max: 3000, ..bounds() }, HANG);
    let mut silent = Vec::new();
    for _ in 0..450 {
        silent.push(open(server.address).await);
    }
    let mut stream = open(server.address).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    read_until(&mut stream, "hello").await;
    server.draining.cancel();
    assert_eq!(timeout(HANG, server.loop_ended).await.unwrap().unwrap(), 0);
}

const LISTEN: &str = "GET /sse HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_listener_gets_a_head_and_every_frame_and_the_end() {
    let server = start(bounds(), HANG);
    let mut stream = server.send(LISTEN).await;
    let feed = server.paths.feed().await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ndate: "), "{head}");
    assert!(head.ends_with("connection: close\r\n\r\n"), "nothing follows the head by itself: {head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");

    feed.send("data: 1\n\n".into()).unwrap();
    assert_eq!(read_until(&mut stream, "\n\n").await, "data: 1\n\n");
    let burst: String = (0..1000).map(|n| format!("data: {n}\n\n")).collect();
    burst.split_inclusive("\n\n").for_each(|frame| feed.send(frame.to_owned().into()).unwrap());
    drop(feed);
    assert_eq!(read_to_close(&mut stream).await, burst);
    until(|| server.connections() == 0.0).await;
}

#[tokio::test]
async fn a_head_in_pieces_and_the_old_version_make_a_listener_too() {
    let server = start(bounds(), HANG);
    let mut stream = server.send("GET /sse HTTP/1.0\r\n").await;
    stream.write_all(b"host: x\r\n").await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    let feed = server.paths.feed().await;
    feed.send("data: 1\n\n".into()).unwrap();
    drop(feed);
    assert!(read_to_close(&mut stream).await.ends_with("connection: close\r\n\r\ndata: 1\n\n"));
}

#[tokio::test]
async fn answers_before_a_listener_arrive_whole_and_what_comes_after_is_not_a_request() {
    let server = start(bounds(), HANG);
    let big = "GET /big HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = server.send(&format!("{REQUEST}{big}{LISTEN}{REQUEST}")).await;
    let feed = async { server.paths.feed().await.send("data: 1\n\n".into()).unwrap() };
    let (answers, ()) = tokio::join!(read_to_close(&mut stream), feed);
    let (first, rest) = answers.split_once("hello").unwrap();
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    let (second, third) = rest.split_at(rest.find("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream").unwrap());
    assert_eq!(second.split_once("\r\n\r\n").unwrap().1.len(), 64 << 20);
    assert!(third.ends_with("connection: close\r\n\r\ndata: 1\n\n"), "{third}");
}

#[tokio::test]
async fn asking_for_the_head_alone_gets_no_frames_and_keeps_the_connection() {
    let server = start(bounds(), HANG);
    let mut stream = server.send("HEAD /sse HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let feed = server.paths.feed().await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    assert!(feed.is_closed(), "nobody listens");
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "hello").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn listeners_take_no_place_from_connections() {
    let server = start(Bounds { connections_max: 2, connections_per_address_max: 2, ..bounds() }, HANG);
    let mut listeners = Vec::new();
    for _ in 0..5 {
        let mut stream = server.send(LISTEN).await;
        read_until(&mut stream, "\r\n\r\n").await;
        listeners.push((stream, server.paths.feed().await));
    }
    assert_eq!(server.connections(), 5.0);
    let mut stream = server.send(REQUEST).await;
    read_until(&mut stream, "hello").await;
}

#[tokio::test]
async fn a_listener_that_closes_is_gone_at_once() {
    let server = start(bounds(), HANG);
    let mut stream = server.send(LISTEN).await;
    let feed = server.paths.feed().await;
    read_until(&mut stream, "\r\n\r\n").await;
    drop(stream);
    timeout(HANG, feed.closed()).await.expect("its frames are dropped");
    until(|| server.connections() == 0.0).await;
}

#[tokio::test]
async fn a_listener_that_stops_reading_is_cut_and_one_that_reads_slowly_loses_nothing() {
    let stall = Duration::from_millis(300);
    let server = start(Bounds { feed_stall_timeout: stall, feed_buffer: 4096, ..bounds() }, HANG);
    let mut slow = server.send("GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut stalled = server.send("GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(slow.read_u8().await.unwrap());
    }
    let mut frame = vec![0; 998];
    let mut number = 0;
    while server.expired("feed") == 0 {
        timeout(HANG, slow.read_exact(&mut frame)).await.expect("frames come").unwrap();
        let text = std::str::from_utf8(&frame).unwrap();
        assert_eq!(text.trim_start_matches("data:").trim().parse(), Ok(number), "{text}");
        number += 1;
    }
    let seen = read_to_close(&mut stalled).await;
    assert!(seen.len() < 16 << 20, "{} bytes were held for it", seen.len());
    timeout(HANG, slow.read_exact(&mut frame)).await.expect("the slow one goes on").unwrap();
}

#[tokio::test]
async fn a_listener_that_talks_without_end_is_cut() {
    let server = start(bounds(), HANG);
    let mut stream = server.send(LISTEN).await;
    let feed = server.paths.feed().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"a few words are thrown away").await.unwrap();
    feed.send("data: 1\n\n".into()).unwrap();
    assert_eq!(read_until(&mut stream, "\n\n").await, "data: 1\n\n");
    let _ = stream.write_all(&[b'x'; 1 << 20]).await;
    timeout(HANG, feed.closed()).await.expect("its frames are dropped");
}

#[tokio::test]
async fn the_drain_tells_listeners_when_to_come_back() {
    let server = start(bounds(), HANG);
    let mut listeners = Vec::new();
    for _ in 0..20 {
        let mut stream = server.send(LISTEN).await;
        let feed = server.paths.feed().await;
        read_until(&mut stream, "\r\n\r\n").await;
        listeners.push((stream, feed));
    }
    server.draining.cancel();
    for (stream, _) in &mut listeners {
        let word = read_to_close(stream).await;
        let wait = word.strip_prefix("retry: ").and_then(|word| word.strip_suffix("\n\n")).map(str::parse);
        assert!(matches!(wait, Some(Ok(1000..5000))), "{word:?}");
    }
    assert_eq!(timeout(HANG, server.loop_ended).await.unwrap().unwrap(), 0, "nothing was cut");
}

#[tokio::test]
async fn the_drain_does_not_wait_for_a_listener_that_does_not_read() {
    let server = start(bounds(), HANG);
    let mut stream = server.send("GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut stream, "\r\n\r\n").await;
    server.draining.cancel();
    assert_eq!(timeout(HANG, server.loop_ended).await.unwrap().unwrap(), 0, "it was given up, not cut");
}
