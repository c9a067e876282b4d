//! Each fault of the proxy does what it says, to the byte.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_test_redis::{Connection, Fault, Proxy, Reply, Server, Toward};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client and its counterpart behind the proxy, to look at single bytes.
async fn both_ends() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = Proxy::start(listener.local_addr().expect("a bound listener"));
    let (client, server) = another_pair(&proxy, &listener).await;
    (proxy, client, server)
}

async fn another_pair(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.addr()).await.expect("the proxy accepts");
    (client, listener.accept().await.expect("the proxy connects").0)
}

async fn received(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("so many bytes");
    bytes
}

/// All that arrives until the end, and how the end looks.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await.err().map(|error| error.kind());
    (bytes, end)
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await.is_err()
}

async fn connects(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_ok()
}

#[tokio::test]
async fn without_faults_everything_passes_and_is_counted() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    assert_eq!(server.url_through(&proxy), format!("redis://{}", proxy.addr()));
    let mut connection = Connection::tcp(proxy.addr()).await.unwrap();
    let value = "x".repeat(3 << 20);
    assert_eq!(connection.command(&["SET", "key", &value]).await.unwrap().to_string(), "OK");
    assert_eq!(connection.command(&["GET", "key"]).await.unwrap().to_string(), value);
    let traffic = proxy.traffic();
    assert_eq!((traffic.connections, traffic.open, traffic.cuts), (1, 1, 0));
    assert!(traffic.to_server > 3 << 20 && traffic.to_client > 3 << 20, "{traffic:?}");
}

#[tokio::test]
async fn a_reply_is_cut_after_exactly_k_bytes_for_every_k() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let reply = b"$5\r\nhello\r\n";
    for k in 0..=reply.len() {
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        client.write_all(b"PING\r\n").await.unwrap();
        assert_eq!(received(&mut client, 7).await, b"+PONG\r\n");
        proxy.cut_once(Toward::Client, k as u64);
        client.write_all(b"ECHO hello\r\n").await.unwrap();
        if k == reply.len() {
            assert_eq!(received(&mut client, k).await, reply);
            assert_eq!(proxy.traffic().cuts, k as u64, "a reply of k bytes passes whole");
            client.write_all(b"PING\r\n").await.unwrap();
            assert_eq!(rest(&mut client).await, (vec![], None), "the byte after it cuts");
        } else {
            assert_eq!(rest(&mut client).await, (reply[..k].to_vec(), None));
            assert_eq!(proxy.traffic().cuts, k as u64 + 1);
        }
    }
}

#[tokio::test]
async fn a_request_is_cut_after_exactly_k_bytes_for_every_k() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let request = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
    for k in 0..request.len() {
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        client.write_all(b"PING\r\n").await.unwrap();
        received(&mut client, 7).await;
        proxy.cut_once(Toward::Server, k as u64);
        client.write_all(request).await.unwrap();
        assert_eq!(rest(&mut client).await.0, b"");
        assert_eq!(server.command(&["GET", "n"]).await, Reply::Nil, "executed after {k} bytes");
    }
    assert_eq!(proxy.traffic().cuts, request.len() as u64);
    let mut client = Connection::tcp(proxy.addr()).await.unwrap();
    proxy.cut_once(Toward::Server, request.len() as u64);
    assert_eq!(client.command(&["INCR", "n"]).await.unwrap(), Reply::Int(1), "the whole request passes");
}

#[tokio::test]
async fn what_passed_before_a_cut_has_arrived_at_the_server() {
    let (proxy, mut client, mut server) = both_ends().await;
    proxy.set(Toward::Server, Fault::CutAfter(5));
    client.write_all(b"hello world").await.unwrap();
    assert_eq!(rest(&mut server).await, (b"hello".to_vec(), None));
}

#[tokio::test]
async fn a_cut_for_each_connection_counts_each_from_its_start_or_the_mark() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let (mut old, mut old_server) = another_pair(&proxy, &listener).await;
    old.write_all(b"greeting").await.unwrap();
    received(&mut old_server, 8).await;
    proxy.mark();
    proxy.set(Toward::Server, Fault::CutAfter(3));
    let (mut new, mut new_server) = another_pair(&proxy, &listener).await;
    for (client, server) in [(&mut old, &mut old_server), (&mut new, &mut new_server)] {
        client.write_all(b"ab").await.unwrap();
        assert_eq!(received(server, 2).await, b"ab");
        client.write_all(b"cd").await.unwrap();
        assert_eq!(rest(server).await.0, b"c");
    }
    assert_eq!(proxy.traffic().cuts, 2);
}

#[tokio::test]
async fn one_cut_hits_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let (mut first, mut first_server) = another_pair(&proxy, &listener).await;
    let (mut second, mut second_server) = another_pair(&proxy, &listener).await;
    proxy.cut_once(Toward::Server, 1);
    first.write_all(b"ab").await.unwrap();
    assert_eq!(rest(&mut first_server).await.0, b"a");
    second.write_all(b"ab").await.unwrap();
    assert_eq!(received(&mut second_server, 2).await, b"ab");
}

#[tokio::test]
async fn a_reset_is_seen_as_a_reset_by_both_sides() {
    let (proxy, mut client, mut server) = both_ends().await;
    proxy.set(Toward::Client, Fault::ResetAfter(2));
    server.write_all(b"abc").await.unwrap();
    assert_eq!(rest(&mut server).await.1, Some(ErrorKind::ConnectionReset));
    let (bytes, end) = rest(&mut client).await;
    assert_eq!((bytes.as_slice(), end), (b"ab".as_slice(), Some(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn all_connections_are_killed_or_reset_at_once_and_new_ones_work() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let (mut client, mut server) = another_pair(&proxy, &listener).await;
    proxy.kill_all();
    assert_eq!(proxy.traffic().open, 0);
    assert_eq!((rest(&mut client).await.1, rest(&mut server).await.1), (None, None));

    let (mut client, mut server) = another_pair(&proxy, &listener).await;
    proxy.reset_all();
    let reset = Some(ErrorKind::ConnectionReset);
    assert_eq!((rest(&mut client).await.1, rest(&mut server).await.1), (reset, reset));

    let (mut client, mut server) = another_pair(&proxy, &listener).await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(received(&mut server, 5).await, b"hello");
}

#[tokio::test]
async fn a_delay_holds_bytes_back_in_one_direction() {
    let (proxy, mut client, mut server) = both_ends().await;
    let delay = Duration::from_millis(60);
    proxy.set(Toward::Server, Fault::Delay(delay));
    server.write_all(b"reply").await.unwrap();
    assert_eq!(received(&mut client, 5).await, b"reply");
    let start = Instant::now();
    client.write_all(b"request").await.unwrap();
    assert_eq!(received(&mut server, 7).await, b"request");
    // A lower bound holds on any machine.
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_throttled_line_takes_its_time() {
    let (proxy, mut client, mut server) = both_ends().await;
    proxy.set(Toward::Client, Fault::BytesPerSecond(10_000));
    let start = Instant::now();
    server.write_all(&[7; 2_000]).await.unwrap();
    assert_eq!(received(&mut client, 2_000).await, [7; 2_000]);
    // The last slice of 100 bytes waits for those before it: 190 ms.
    assert!(start.elapsed() >= Duration::from_millis(180), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_black_hole_swallows_and_healing_cuts_what_it_damaged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let (mut damaged, mut damaged_server) = another_pair(&proxy, &listener).await;
    let (mut quiet, mut quiet_server) = another_pair(&proxy, &listener).await;
    proxy.set(Toward::Server, Fault::Blackhole);
    damaged.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut damaged_server).await);
    damaged_server.write_all(b"y").await.unwrap();
    assert_eq!(received(&mut damaged, 1).await, b"y", "the other direction works");
    proxy.heal();
    assert_eq!(rest(&mut damaged_server).await.0, b"");
    quiet.write_all(b"hello").await.unwrap();
    assert_eq!(received(&mut quiet_server, 5).await, b"hello");
}

#[tokio::test]
async fn a_stalled_line_delivers_everything_when_healed() {
    let (proxy, mut client, mut server) = both_ends().await;
    proxy.set(Toward::Server, Fault::Stall);
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(is_silent(&mut server).await);
    proxy.heal();
    assert_eq!(rest(&mut server).await, (b"hello".to_vec(), None));
}

#[tokio::test]
async fn half_a_connection_ends_and_the_other_half_goes_on() {
    let (proxy, mut client, mut server) = both_ends().await;
    proxy.set(Toward::Client, Fault::HalfClose);
    assert_eq!(rest(&mut client).await, (vec![], None));
    client.write_all(b"still here").await.unwrap();
    assert_eq!(received(&mut server, 10).await, b"still here");
    assert_eq!(proxy.traffic().open, 1);
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_its_answer() {
    let (_proxy, mut client, mut server) = both_ends().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await.0, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(rest(&mut client).await.0, b"answer");
}

#[tokio::test]
async fn a_refusing_proxy_keeps_what_is_open_and_takes_nobody_new() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let (mut client, mut server) = another_pair(&proxy, &listener).await;
    proxy.refuse();
    assert!(!connects(proxy.addr()).await);
    client.write_all(b"hello").await.unwrap();
    assert_eq!(received(&mut server, 5).await, b"hello");
    proxy.heal();
    another_pair(&proxy, &listener).await;
}

#[tokio::test]
async fn a_client_of_a_dead_server_is_reset() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    server.kill();
    // The reset may overtake the news that the connection stands.
    let end = match TcpStream::connect(proxy.addr()).await {
        Ok(mut client) => rest(&mut client).await.1,
        Err(error) => Some(error.kind()),
    };
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    server.restart().await;
    assert!(Connection::tcp(proxy.addr()).await.unwrap().command(&["PING"]).await.is_ok());
}

#[tokio::test]
async fn a_dropped_proxy_leaves_no_connection_and_no_listener() {
    let (proxy, mut client, mut server) = both_ends().await;
    let addr = proxy.addr();
    proxy.set(Toward::Client, Fault::Stall);
    drop(proxy);
    assert_eq!((rest(&mut client).await.0, rest(&mut server).await.0), (vec![], vec![]));
    assert!(!connects(addr).await);
}
