//! The accept loop over real sockets: deadlines, limits, drain, and errors that are always problems.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tidegate_metrics::Registry;
use tidegate_server::accept::{Acceptor, Answer, Bounds, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(20);

/// Answers by path: `/` at once, `/hold` when released, `/stream` never ends, `/big` with megabytes.
#[derive(Default)]
struct Paths {
    arrived: Notify,
    release: Notify,
}

impl Answer for Paths {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let body = match request.uri().path() {
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
        connections_max: 100,
        connections_per_address_max: 100,
        head_timeout: HANG,
        idle_timeout: HANG,
        write_timeout: HANG,
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
    let expired = server.registry.counter_with("tidegate_http_connections_expired_total", "", &[("deadline", "write")]);
    timeout(HANG, async {
        while expired.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the write deadline passes");
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
