//! The whole server in this process, over real sockets: every rejection is a problem, waits end, nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

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
    let config = resolve(&flags, &Environment::default(), None).unwrap().config;
    let server = Server::start(config).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let ended = tokio::spawn(server.run(stop.clone(), CancellationToken::new()));
    Running { address, stop, ended }
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Running {
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends head and body as they are, but for `Host`, `Connection: close` and the length.
    async fn call(&self, line: &str, headers: &str, body: &str) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
        let mut stream =
            self.send(&format!("{line} HTTP/1.1\r\n{host}connection: close\r\n{length}{headers}\r\n{body}")).await;
        let mut bytes = Vec::new();
        let _ = timeout(HANG, stream.read_to_end(&mut bytes)).await.expect("the server answers");
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.call(&format!("POST {path}"), "content-type: application/json\r\n", body).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(&format!("GET {path}"), "", "").await
    }

    async fn drain(self) -> Ended {
        self.stop.cancel();
        timeout(HANG, self.ended).await.expect("the drain ends").unwrap()
    }
}

const JOB: &str = "/api/performance/async/job";
const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn every_rejection_is_a_problem_with_a_stable_code() {
    let server = start(&[("body_bytes_max", "2KiB")]).await;
    let deep = format!("{{\"jobType\":\"a\",\"data\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
    let large = format!("{{\"jobType\":\"a\",\"data\":\"{}\"}}", "x".repeat(3000));
    let submit = format!("POST {JOB}");
    let cases = [
        ("GET /nothing/here", "", "", 404, "not_found"),
        ("GET /api/performance/async/job/none", "", "", 404, "job_not_found"),
        ("GET /api/queues/none", "", "", 404, "queue_not_found"),
        ("DELETE /api/queues", "", "", 405, "method_not_allowed"),
        ("GET /api/performance/async/jobs?limit=0", "", "", 422, "invalid_request"),
        ("GET /api/performance/async/jobs?limit=x", "", "", 422, "invalid_request"),
        ("GET /api/performance/async/jobs?color=red", "", "", 422, "invalid_request"),
        ("GET /api/queues/%FF", "", "", 400, "bad_request"),
        ("GET /api/queues/no%20spaces", "", "", 422, "invalid_request"),
        (&*submit, JSON, "{\"jobType\":", 400, "malformed_json"),
        (&*submit, JSON, " ", 400, "malformed_json"),
        (&*submit, JSON, &deep, 400, "json_too_deep"),
        (&*submit, JSON, "{\"jobType\":\"a\"}", 422, "invalid_request"),
        (&*submit, JSON, &large, 413, "body_too_large"),
        (&*submit, "", "{}", 415, "unsupported_media_type"),
        (&*submit, "content-type: text/plain\r\n", "{}", 415, "unsupported_media_type"),
        (&*submit, "content-type: application/json\r\ncontent-encoding: gzip\r\n", "{}", 415, "unsupported_media_type"),
        (
            &*submit,
            "content-type: application/json\r\nidempotency-key:\r\n",
            "{\"jobType\":\"a\",\"data\":1}",
            422,
            "invalid_request",
        ),
        ("GET /livez", "host: evil.example\r\n", "", 421, "host_not_allowed"),
        (
            &*submit,
            "content-type: application/json\r\norigin: https://evil.example\r\n",
            "{}",
            403,
            "cross_site_request",
        ),
        ("POST /api/queues/q/claim", JSON, "{\"worker\":\"w\",\"limit\":5000}", 422, "invalid_request"),
        ("POST /api/queues/q/claim", JSON, "{\"worker\":\"\"}", 422, "invalid_request"),
    ];
    for (line, headers, body, status, code) in cases {
        let reply = server.call(line, headers, body).await;
        assert_eq!(reply.status, status, "{line}: {}", reply.body);
        assert!(reply.head.contains("content-type: application/problem+json"), "{line}: {}", reply.head);
        assert!(
            reply.body.starts_with("{\"success\":false,\"type\":\"urn:tidegate:problem:"),
            "{line}: {}",
            reply.body
        );
        assert!(reply.body.contains(&format!("\"code\":\"{code}\"")), "{line}: {}", reply.body);
        assert!(reply.body.contains(&format!("\"status\":{status}")), "{line}: {}", reply.body);
    }
    let reply = server.call("DELETE /api/queues", "", "").await;
    assert!(reply.head.contains("\nallow: get,head"), "{}", reply.head);
}

#[tokio::test]
async fn a_refused_body_of_any_size_can_be_sent_whole_and_its_answer_still_be_read() {
    let server = start(&[("body_bytes_max", "2KiB")]).await;
    for _ in 0..20 {
        let body = "x".repeat(4 << 20);
        let mut stream = server
            .send(&format!("POST {JOB} HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {}\r\n\r\n", body.len()))
            .await;
        stream.write_all(body.as_bytes()).await.expect("the whole body can be sent");
        let mut answer = String::new();
        timeout(HANG, stream.read_to_string(&mut answer))
            .await
            .expect("the server answers")
            .expect("and does not reset the connection");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn a_submission_is_answered_claimed_and_completed() {
    let server = start(&[]).await;
    let reply = server.post(JOB, r#"{"jobType":"a","data":{"b": 1.0}}"#).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    let claimed = server.post("/api/queues/default/claim", r#"{"worker":"w"}"#).await;
    assert!(claimed.body.contains(r#""data":{"b": 1.0}"#), "{}", claimed.body);
    let lease = claimed.body.split("\"lease\":\"").nth(1).unwrap().split('"').next().unwrap();
    let done = server
        .post("/api/queues/default/complete", &format!(r#"{{"results":[{{"lease":"{lease}","result":null}}]}}"#))
        .await;
    assert_eq!(done.body, r#"{"success":true,"data":{"outcomes":["ok"]}}"#);
    let list = server.get("/api/performance/async/jobs?status=completed").await;
    assert!(list.body.contains("\"result\":null") && list.body.contains("\"cursor\":null"), "{}", list.body);
    assert_eq!(server.drain().await, Ended::Drained);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_takes_no_job_with_it() {
    let server = start(&[]).await;
    let body = r#"{"worker":"gone","waitMs":30000}"#;
    let request = format!(
        "POST /api/queues/q/claim HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let waiting = server.send(&request).await;
    let waits = async |count: &str| {
        timeout(HANG, async {
            while !server.get("/api/queues/q").await.body.contains(&format!("\"waitingClaims\":{count}")) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the count of waiting claims follows");
    };
    waits("1").await;
    drop(waiting);
    waits("0").await;
    server.post(JOB, r#"{"jobType":"a","data":1,"options":{"queue":"q"}}"#).await;
    let claimed = server.post("/api/queues/q/claim", r#"{"worker":"here"}"#).await;
    assert!(claimed.body.contains("\"attempt\":1"), "{}", claimed.body);
}

#[tokio::test]
async fn the_drain_answers_waiting_claims_and_closes_event_streams() {
    let server = start(&[]).await;
    let accepted = server.post(JOB, r#"{"jobType":"a","data":1}"#).await;
    let id = accepted.body.split("\"jobId\":\"").nth(1).unwrap().split('"').next().unwrap();
    let mut events = server.send(&format!("GET {JOB}/{id}/events HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    let mut first = vec![0; 4096];
    let read = timeout(HANG, events.read(&mut first)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first[..read]).contains("text/event-stream"));
    let body = r#"{"worker":"w","waitMs":30000}"#;
    let mut waiting = server
        .send(&format!(
            "POST /api/queues/empty/claim HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    timeout(HANG, async {
        while !server.get("/api/queues/empty").await.body.contains("\"waitingClaims\":1") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();

    assert_eq!(server.drain().await, Ended::Drained);
    let mut answer = String::new();
    let _ = timeout(HANG, waiting.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("\"jobs\":[]"), "{answer}");
    let mut rest = Vec::new();
    let _ = timeout(HANG, events.read_to_end(&mut rest)).await.expect("the stream ends");
}

#[tokio::test]
async fn a_job_that_is_not_kept_still_shows_its_end_to_its_followers() {
    let server = start(&[]).await;
    for (verb, item, end) in [
        ("complete", "\"results\":[{\"lease\":\"LEASE\"}]", "completed"),
        ("fail", "\"failures\":[{\"lease\":\"LEASE\",\"error\":\"e\",\"retry\":false}]", "failed"),
        ("cancel", "", "cancelled"),
    ] {
        let accepted = server.post(JOB, r#"{"jobType":"a","data":1,"options":{"retention":0}}"#).await;
        let id = accepted.body.split("\"jobId\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let request = format!("GET {JOB}/{id}/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut events = server.send(&request).await;
        let mut all = String::new();
        while !all.contains("\"status\":\"queued\"") {
            let mut piece = [0; 4096];
            let read = timeout(HANG, events.read(&mut piece)).await.expect("the first frame comes").unwrap();
            all.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        if verb == "cancel" {
            server.call(&format!("DELETE {JOB}/{id}"), "", "").await;
        } else {
            let claimed = server.post("/api/queues/default/claim", r#"{"worker":"w"}"#).await;
            let lease = claimed.body.split("\"lease\":\"").nth(1).unwrap().split('"').next().unwrap();
            let body = format!("{{{}}}", item.replace("LEASE", lease));
            server.post(&format!("/api/queues/default/{verb}"), &body).await;
        }
        timeout(HANG, events.read_to_string(&mut all)).await.expect("the stream ends").unwrap();
        let last = all.rsplit("event: ").next().unwrap();
        assert!(last.starts_with("state") && last.contains(&format!("\"status\":\"{end}\"")), "{verb}: {all}");
        assert!(last.contains("\"finishedAt\":\""), "{verb}: {last}");
    }
}

#[tokio::test]
async fn a_follower_sees_a_large_result_in_the_last_frame() {
    let server = start(&[]).await;
    let accepted = server.post(JOB, r#"{"jobType":"a","data":1}"#).await;
    let id = accepted.body.split("\"jobId\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let request = format!("GET {JOB}/{id}/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut events = server.send(&request).await;
    let claimed = server.post("/api/queues/default/claim", r#"{"worker":"w"}"#).await;
    let lease = claimed.body.split("\"lease\":\"").nth(1).unwrap().split('"').next().unwrap();
    let result = "x".repeat(100_000);
    let body = format!(r#"{{"results":[{{"lease":"{lease}","result":"{result}"}}]}}"#);
    server.post("/api/queues/default/complete", &body).await;
    let mut all = String::new();
    timeout(HANG, events.read_to_string(&mut all)).await.expect("the stream ends").unwrap();
    assert!(all.rsplit("event: ").next().unwrap().contains(&result), "{} bytes", all.len());
}

#[tokio::test]
async fn a_handler_of_ours_computes_and_bad_data_fails_without_a_retry() {
    let server = start(&[]).await;
    for (data, end, told) in [
        (
            r#"{"matrixA":[[1,2]],"matrixB":[[3],[4]]}"#,
            "completed",
            r#""result":{"matrix":[[11.0]],"rows":1,"columns":1}"#,
        ),
        (r#"{"matrixA":[[1,2]],"matrixB":[[3]]}"#, "failed", "multiply a matrix of 2 columns by one of 1 rows"),
        (r#""nonsense""#, "failed", "invalid type: string"),
    ] {
        let accepted = server.post(JOB, &format!(r#"{{"jobType":"matrix_multiplication","data":{data}}}"#)).await;
        let id = accepted.body.split("\"jobId\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let mut events = server
            .send(&format!("GET {JOB}/{id}/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
            .await;
        let mut all = String::new();
        timeout(HANG, events.read_to_string(&mut all)).await.expect("the job ends").unwrap();
        assert!(all.contains(&format!("\"status\":\"{end}\"")) && all.contains(told), "{all}");
        assert!(all.contains("\"attempt\":1,"), "{all}");
    }
}

#[tokio::test]
async fn above_the_rate_requests_are_refused_but_probes_are_not() {
    let server = start(&[("requests_per_second_max", "1")]).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let reply = server.get("/api/queues").await;
        assert!(reply.status == 200 || reply.head.contains("retry-after: "), "{}", reply.head);
        statuses.push(reply.status);
        assert_eq!(server.get("/livez").await.status, 200);
    }
    assert_eq!(statuses[0], 200);
    assert!(statuses.contains(&429), "{statuses:?}");
}
