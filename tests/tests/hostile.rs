//! Connections that are slow, many, or not HTTP at all: they end by a deadline and the others are still served.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tidegate_tests::{RawConnection, Server, within};

const JOB: &str = "/api/performance/async/job";

async fn impatient() -> Server {
    let builder = Server::builder().env("TIDEGATE_HEAD_TIMEOUT", "500ms").env("TIDEGATE_BODY_STALL_TIMEOUT", "500ms");
    builder.env("TIDEGATE_BODY_TIMEOUT", "2s").env("TIDEGATE_IDLE_TIMEOUT", "1s").start().await
}

#[tokio::test]
async fn half_a_head_is_cut_off_by_the_deadline() {
    let server = impatient().await;
    let starts = [
        "G",
        "GET /livez HTTP/1.1\r\n",
        "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        "",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for start in starts {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(start).await;
        let answer = raw.read_to_close(Duration::from_secs(20)).await;
        assert!(!answer.contains(" 200 "), "{start:?}: {answer}");
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off_although_every_byte_is_in_time() {
    let server = impatient().await;
    let mut raw = RawConnection::open(server.address()).await;
    raw.write("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n").await;
    within("the trickle is cut off", Duration::from_secs(20), async {
        while raw.write("X-Slow: 1\r\n").await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_stalls_or_trickles_is_answered_408_and_not_accepted() {
    let server = impatient().await;
    let head = format!(
        "POST {JOB} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"jobType\"",
        server.address()
    );
    let mut stalled = RawConnection::open(server.address()).await;
    stalled.write(&head).await;
    let answer = stalled.read_to_close(Duration::from_secs(20)).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"request_timeout\""), "{answer}");

    let mut trickling = RawConnection::open(server.address()).await;
    trickling.write(&head).await;
    let answer = within("the trickle is cut off", Duration::from_secs(20), async {
        for _ in 0..40 {
            if !trickling.write(" ").await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        trickling.read_to_close(Duration::from_secs(5)).await
    })
    .await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(server.client().claim("default", "w", 1, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn a_body_cut_off_in_the_middle_is_not_accepted() {
    let server = Server::start().await;
    let mut raw = RawConnection::open(server.address()).await;
    let body = r#"{"jobType":"a","data":1}"#;
    let head = format!("POST {JOB} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n", server.address());
    raw.write(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len() + 5)).await;
    raw.finish().await;
    let answer = raw.read_to_close(Duration::from_secs(20)).await;
    assert!(!answer.contains(" 202 "), "{answer}");
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n18\r\n{body}\r\n")).await;
    raw.finish().await;
    let answer = raw.read_to_close(Duration::from_secs(20)).await;
    assert!(!answer.contains(" 202 "), "{answer}");
    assert!(server.client().claim("default", "w", 1, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn what_is_not_http_ends_the_connection_and_nothing_else() {
    let server = Server::start().await;
    let host = server.address();
    let garbage: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        b"SSH-2.0-OpenSSH_9.0\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nBad Header: x\r\n\r\n").into_bytes(),
        format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "x".repeat(2_000_000)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(2_000_000)).into_bytes(),
        format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X: 1\r\n".repeat(20_000)).into_bytes(),
        format!("POST {JOB} HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n").into_bytes(),
        format!("POST {JOB} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde")
            .into_bytes(),
        format!("POST {JOB} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n")
            .into_bytes(),
    ];
    for bytes in garbage {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let mut raw = RawConnection::open(host).await;
        raw.write(&bytes).await;
        let answer = raw.read_to_close(Duration::from_secs(30)).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{shown:?}: {answer}");
        if answer.starts_with("HTTP/1.1 4") && !answer.contains("\r\ncontent-length: 0") {
            assert!(answer.contains("application/problem+json"), "{shown:?}: {answer}");
        }
    }
    assert_eq!(server.client().get("/livez").await.status, 200);
}

#[tokio::test]
async fn good_requests_before_pipelined_garbage_are_answered() {
    let server = Server::start().await;
    let mut raw = RawConnection::open(server.address()).await;
    let good = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    raw.write(format!("{}\0\0garbage\r\n\r\n{good}", good.repeat(3))).await;
    let answers = raw.read_to_close(Duration::from_secs(30)).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 4").count(), 1, "{answers}");
}

#[tokio::test]
async fn a_smuggled_second_request_is_not_seen() {
    let server = Server::start().await;
    let host = server.address();
    let body = r#"{"jobType":"smuggled","data":1}"#;
    let hidden = format!(
        "POST {JOB} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut raw = RawConnection::open(host).await;
    raw.write(format!(
        "POST {JOB} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    ))
    .await;
    let answer = raw.read_to_close(Duration::from_secs(90)).await;
    assert!(!answer.contains("HTTP/1.1 202"), "{answer}");
    assert!(server.client().claim("default", "w", 1, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn two_thousand_idle_connections_keep_nobody_from_being_served() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
    let mut server = Server::start().await;
    let client = server.client();
    client.enqueue("default", "a", json!(0)).await;
    let before = server.process().rss_bytes();
    let mut idle = Vec::new();
    for n in 0..2000 {
        let mut raw = RawConnection::open(server.address()).await;
        if n % 2 == 0 {
            raw.write("GET /livez HTTP/1.1\r\n").await;
        }
        idle.push(raw);
    }
    let fresh = server.client();
    for n in 0..20 {
        within("others are served", Duration::from_secs(10), fresh.enqueue("default", "a", json!(n))).await;
    }
    let grown = server.process().rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "2000 idle connections took {} KiB", grown >> 10);
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_and_the_others_go_on() {
    let server = Server::builder().env("TIDEGATE_CONNECTIONS_MAX", "20").start().await;
    let client = server.client();
    client.enqueue("default", "a", json!(0)).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(RawConnection::open(server.address()).await);
    }
    client.enqueue("default", "a", json!(1)).await;
    drop(idle);
    tidegate_tests::eventually("room again", Duration::from_secs(20), || async {
        let reply = server.client().call("GET", "/livez").attempt().await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_under_a_flood_of_large_bodies() {
    let builder = Server::builder().env("TIDEGATE_BODIES_BYTES_MAX", "64MiB").env("TIDEGATE_QUEUE_BYTES_MAX", "32MiB");
    let mut server = builder.start().await;
    let client = server.client();
    client.enqueue("default", "a", json!(0)).await;
    let before = server.process().rss_bytes();
    // 8 MiB of good JSON each, about 1.2 GiB in all: some are accepted, most refused because the queue is full.
    let good = bytes::Bytes::from(format!(r#"{{"jobType":"a","data":"{}"}}"#, "x".repeat(8 << 20)));
    // 24 MiB each, over the limit of 16 MiB.
    let oversized = bytes::Bytes::from(vec![b' '; 24 << 20]);
    let clients = (0..16).map(|n| {
        let (client, body) = (server.client(), if n % 2 == 0 { good.clone() } else { oversized.clone() });
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..10 {
                // An oversized body may be cut off by a reset before the answer can be read.
                if let Ok(reply) = client.call("POST", JOB).json(body.clone()).attempt().await {
                    statuses.push(reply.status);
                }
            }
            statuses
        })
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        for status in client.await.expect("no panic") {
            assert!([202, 413, 429, 503].contains(&status), "{status}");
        }
    }
    let grown = server.process().rss_peak_bytes().saturating_sub(before);
    // Bodies as received and once more on their way to the disk, the store's write buffers (one filling, two being
    // written out, 32 MiB each), and 64 MiB.
    let limit = (2 * 64 + 3 * 32 + 64) << 20;
    assert!(grown < limit, "peak grew by {} MiB", grown >> 20);
    assert_eq!(client.get("/readyz").await.status, 200);
}
