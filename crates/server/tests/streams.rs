//! Event streams over real sockets, as far as the server itself decides: places for listeners and waiting claims, heads,
//! forms of events, ends. What streams do is tested where they are made, and by the journeys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_server::auth::{Scope, create_token};
use tidegate_server::config::{Flags, resolve};
use tidegate_server::env::Environment;
use tidegate_server::{Ended, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Ended>,
}

/// Starts a server that keeps nothing, with these settings.
async fn start(settings: &[(&'static str, &str)]) -> Running {
    let mut flags: Flags = BTreeMap::from([("listen", "127.0.0.1:0".to_owned()), ("durability", "memory".to_owned())]);
    flags.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let server = Server::start(resolve(&flags, &Environment::default(), None).unwrap().config).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let ended = tokio::spawn(server.run(stop.clone(), CancellationToken::new()));
    Running { address, stop, ended }
}

impl Running {
    /// Sends a request and leaves the answer to be read.
    async fn send(&self, line: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).await.unwrap();
        stream
    }

    /// The whole answer, head and body.
    async fn call(&self, line: &str, body: &str) -> String {
        to_end(&mut self.send(line, "content-type: application/json\r\n", body).await).await
    }

    async fn publish(&self, stream: &str, body: &str) -> String {
        let answer = self.call(&format!("POST /api/streams/{stream}/events"), body).await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        answer
    }

    async fn until(&self, line: &str, is_so: impl Fn(&str) -> bool) {
        timeout(HANG, async {
            while !is_so(&self.call(line, "").await) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it comes to be so");
    }
}

async fn to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(HANG, stream.read_to_end(&mut bytes)).await.expect("the answer ends");
    String::from_utf8(bytes).unwrap()
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

#[tokio::test]
async fn a_listener_hears_what_is_published_after_it_came_and_in_the_drain_when_to_come_back() {
    let server = start(&[]).await;
    server.publish("orders", r#"{"data":"before"}"#).await;
    let mut listener = server.send("GET /api/streams/orders/sse", "", "").await;
    let mut many = server.send("GET /api/events?streams=users,ord*ers.*,orders", "", "").await;
    assert!(to_end(&mut many).await.starts_with("HTTP/1.1 422 "), "a star stands alone between dots");
    let mut many = server.send("GET /api/events?streams=users,orders,order.*", "", "").await;
    for stream in [&mut listener, &mut many] {
        let head = read_until(stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
        assert!(head.contains("\r\nx-accel-buffering: no\r\n"), "{head}");
        assert!(head.contains("\r\ncache-control: no-cache, no-transform\r\n"), "{head}");
    }
    server.publish("orders", r#"{"type":"order.created","data":{"n":1.0}}"#).await;
    server.publish("order.x", r#"{"events":[{"data":2},{"data":3}]}"#).await;
    let heard = read_until(&mut listener, "data: ").await;
    assert!(heard.contains("event: order.created\ndata: ") && !heard.contains("before"), "{heard}");
    let heard = read_until(&mut many, "data: 3").await;
    assert!(heard.contains("data: 2\n\n") && heard.contains("id: order.x="), "{heard}");

    server.stop.cancel();
    for stream in [&mut listener, &mut many] {
        let rest = to_end(stream).await;
        assert!(rest.contains("retry: ") && rest.ends_with("\n\n"), "{rest:?}");
    }
    assert_eq!(timeout(HANG, server.ended).await.unwrap().unwrap(), Ended::Drained);
}

#[tokio::test]
async fn listeners_are_counted_by_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let tokens = [create_token(Scope::Read, "one").unwrap(), create_token(Scope::Read, "two").unwrap()];
    std::fs::write(&path, format!("{}\n{}\n", tokens[0].line, tokens[1].line)).unwrap();
    let server = start(&[("token_file", path.to_str().unwrap()), ("sse_per_token_max", "1")]).await;
    let listen = async |token: &str| {
        let mut stream = server.send("GET /api/streams/s/sse", &format!("authorization: Bearer {token}\r\n"), "").await;
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        (stream, answer)
    };
    let (first, answer) = listen(&tokens[0].token).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, answer) = listen(&tokens[0].token).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nretry-after: "), "{answer}");
    let (_other, answer) = listen(&tokens[1].token).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(first);
    timeout(HANG, async { while !listen(&tokens[0].token).await.1.starts_with("HTTP/1.1 200 ") {} })
        .await
        .expect("a place is free again");
}

#[tokio::test]
async fn a_group_claim_without_a_place_to_wait_is_answered_at_once_and_a_waiting_one_ends_with_the_drain() {
    let server = start(&[("requests_max", "2"), ("waiting_claims_max", "1")]).await;
    server.publish("s", r#"{"data":1}"#).await;
    let claim = r#"{"consumer":"c","waitMs":30000}"#;
    let first = server.call("POST /api/streams/s/groups/g/claim", claim).await;
    assert!(first.contains("\"data\":1") && first.contains("\"deliveries\":1"), "{first}");
    let mut waiting =
        server.send("POST /api/streams/s/groups/g/claim", "content-type: application/json\r\n", claim).await;
    server.until("GET /metrics", |metrics| metrics.contains("\ntidegate_http_waiting_claims 1\n")).await;
    let answer = server.call("POST /api/streams/s/groups/g/claim", claim).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"deliveries\":[]"), "{answer}");
    server.stop.cancel();
    let answer = to_end(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"deliveries\":[]"), "{answer}");
    assert_eq!(timeout(HANG, server.ended).await.unwrap().unwrap(), Ended::Drained);
}

#[tokio::test]
async fn every_mistake_has_its_code() {
    let server = start(&[]).await;
    server.publish("s", r#"{"data":1}"#).await;
    let cases = [
        ("GET /api/streams/none", "", 404, "stream_not_found"),
        ("DELETE /api/streams/none", "", 404, "stream_not_found"),
        ("GET /api/streams/none/events", "", 404, "stream_not_found"),
        ("GET /api/streams/s/groups/none/pending", "", 404, "group_not_found"),
        ("GET /api/streams/a%20b", "", 422, "invalid_stream_name"),
        ("GET /api/streams/order.*/sse", "", 422, "invalid_stream_name"),
        ("POST /api/streams/tidegate:x/events", r#"{"data":1}"#, 422, "invalid_stream_name"),
        ("POST /api/streams/s/groups/a%20b/claim", r#"{"consumer":"c"}"#, 422, "invalid_group_name"),
        ("GET /api/streams/s/sse?after=x", "", 422, "invalid_request"),
        ("GET /api/streams/s/events?order=up", "", 422, "invalid_request"),
        ("POST /api/streams/s/events", r#"{"events":[{"data":1}],"data":1}"#, 422, "invalid_request"),
        ("POST /api/streams/s/trim", r#"{"maxLength":1,"before":"1-1"}"#, 422, "invalid_request"),
    ];
    for (line, body, status, code) in cases {
        let answer = server.call(line, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{line}: {answer}");
    }
    assert!(server.call("GET /api/streams/s", "").await.contains("\"length\":1"), "nothing was kept");
}

#[tokio::test]
async fn a_likely_mistake_is_told_with_its_cure() {
    let server = start(&[]).await;
    let cases = [
        ("GET /api/streams/s/sse?from=5", "", "after=<milliseconds since 1970>"),
        ("GET /api/streams/s/events?to=5", "", "\"to: unknown; known: `after`, `before`, `from`"),
        ("POST /api/streams/s/events", r#" [{"data":1}]"#, r#"{\"events\":[…]}"#),
        ("POST /api/streams/s/events", r#"{"events":[]}"#, "events: at least one event"),
        ("POST /api/streams/s/groups/g/ack", r#"{"ids":"1-0"}"#, "a list of at most 1000 items"),
        ("POST /api/streams/s/groups/g/fail", r#"{"ids":1,"error":""}"#, "a list of at most 1000 items"),
        ("POST /api/streams/shop/orders/events", r#"{"data":1}"#, "is written `%2F`"),
    ];
    for (line, body, cure) in cases {
        let answer = server.call(line, body).await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(cure), "{line}: {answer}");
    }
}

#[tokio::test]
async fn a_page_says_where_the_next_begins_in_both_orders() {
    let server = start(&[]).await;
    server.publish("s", r#"{"events":[{"data":1},{"data":2},{"data":3}]}"#).await;
    for (order, wanted) in [("asc", ["1", "2", "3"]), ("desc", ["3", "2", "1"])] {
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        loop {
            let page = server.call(&format!("GET /api/streams/s/events?limit=1&order={order}{cursor}"), "").await;
            seen.push(page.split_once("\"data\":").unwrap().1.split_once("\"data\":").unwrap().1[..1].to_owned());
            match page.split_once("\"cursor\":\"") {
                Some((_, next)) => cursor = format!("&cursor={}", next.split('"').next().unwrap()),
                None => break,
            }
        }
        assert_eq!(seen, wanted, "{order}");
    }
}
