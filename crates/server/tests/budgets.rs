//! Budgets over real sockets: unread answers, waiting claims, event streams, queues made by mistake, long errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_server::Server;
use tidegate_server::config::{Flags, resolve};
use tidegate_server::env::Environment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(20);
const JOB: &str = "/api/performance/async/job";

struct Running(SocketAddr);

/// Starts a server that keeps nothing, with these settings.
async fn start(settings: &[(&'static str, &str)]) -> Running {
    let mut flags: Flags = BTreeMap::from([("listen", "127.0.0.1:0".to_owned()), ("durability", "memory".to_owned())]);
    flags.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let server = Server::start(resolve(&flags, &Environment::default(), None).unwrap().config).await.unwrap();
    let address = server.address();
    tokio::spawn(server.run(CancellationToken::new(), CancellationToken::new()));
    Running(address)
}

impl Running {
    /// Sends a request and leaves the answer to be read.
    async fn send(&self, line: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    /// The whole answer, head and body.
    async fn call(&self, line: &str, body: &str) -> String {
        let mut stream = self.send(line, body).await;
        let mut answer = String::new();
        timeout(HANG, stream.read_to_string(&mut answer)).await.expect("the server answers").unwrap();
        answer
    }

    /// Asks until the answer is what it should become.
    async fn until(&self, line: &str, is_so: impl Fn(&str) -> bool) {
        timeout(HANG, async {
            while !is_so(&self.call(line, "").await) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it comes to be so");
    }

    async fn submit(&self, data: &str) -> String {
        member(&self.call(&format!("POST {JOB}"), &format!(r#"{{"jobType":"a","data":{data}}}"#)).await, "jobId")
    }
}

fn member(json: &str, name: &str) -> String {
    let at = json.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("no {name} in {json}")).1;
    at.split('"').next().unwrap().to_owned()
}

fn assert_overloaded(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 "), "{}", &answer[..answer.len().min(500)]);
    assert!(answer.contains("\r\nretry-after: ") && answer.contains("\"code\":\"overloaded\""), "{answer}");
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

/// Takes the first byte of an answer and leaves the rest.
async fn begin_to_read(stream: &mut TcpStream) {
    timeout(HANG, stream.read_exact(&mut [0])).await.expect("the server answers").unwrap();
}

/// More than the buffers of a socket take on their own.
const MUCH: usize = 15 << 20;

#[tokio::test]
async fn an_answer_over_the_budget_is_refused_while_another_is_not_read() {
    let server = start(&[("answers_bytes_max", "20MiB")]).await;
    let id = server.submit(&format!("\"{}\"", "x".repeat(MUCH))).await;
    let get = format!("GET {JOB}/{id}");
    let mut unread = server.send(&get, "").await;
    begin_to_read(&mut unread).await;
    assert_overloaded(&server.call(&get, "").await);
    let metrics = server.call("GET /metrics", "").await;
    let held = metrics.lines().find(|line| line.starts_with("tidegate_http_answers_bytes ")).unwrap();
    assert!(held.split(' ').nth(1).unwrap().parse::<f64>().unwrap() >= MUCH as f64, "{held}");

    drop(unread);
    server.until(&get, is_ok).await;
}

#[tokio::test]
async fn with_the_budget_used_up_only_probes_are_answered() {
    let server = start(&[("answers_bytes_max", "1MiB")]).await;
    let id = server.submit(&format!("\"{}\"", "x".repeat(MUCH))).await;
    let mut unread = server.send(&format!("GET {JOB}/{id}"), "").await;
    begin_to_read(&mut unread).await;
    assert_overloaded(&server.call("GET /api/queues", "").await);
    assert_overloaded(&server.call(&format!("POST {JOB}"), r#"{"jobType":"a","data":1}"#).await);
    assert!(is_ok(&server.call("GET /livez", "").await) && is_ok(&server.call("GET /readyz", "").await));

    let mut rest = Vec::new();
    timeout(HANG, unread.read_to_end(&mut rest)).await.expect("it is sent to its end").unwrap();
    assert!(rest.len() > MUCH);
    server.until("GET /api/queues", is_ok).await;
    assert!(server.call("GET /api/queues/default", "").await.contains("\"queued\":1"), "the refused one was not taken");
}

#[tokio::test]
async fn a_name_written_wrongly_makes_no_queue() {
    let server = start(&[]).await;
    let lease = "9.1.1.1";
    for (verb, body, told) in [
        ("complete", format!(r#"{{"results":[{{"lease":"{lease}"}},{{"lease":"x"}}]}}"#), r#"["stale","stale"]"#),
        ("fail", format!(r#"{{"failures":[{{"lease":"{lease}","error":"e"}}]}}"#), r#"["stale"]"#),
        ("release", format!(r#"{{"leases":["{lease}"]}}"#), r#"["stale"]"#),
        ("progress", format!(r#"{{"updates":[{{"lease":"{lease}","progress":0.5}}]}}"#), r#"["stale"]"#),
        ("beat", format!(r#"{{"worker":"w","leases":["{lease}"]}}"#), r#""stale":["#),
    ] {
        let answer = server.call(&format!("POST /api/queues/typo/{verb}"), &body).await;
        assert!(is_ok(&answer) && answer.contains(told), "{verb}: {answer}");
    }
    for verb in ["pause", "resume"] {
        let answer = server.call(&format!("POST /api/queues/typo/{verb}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("queue_not_found"), "{answer}");
    }
    let queues = server.call("GET /api/queues", "").await;
    assert_eq!(queues.matches("\"queue\":").count() + queues.matches("\"name\":").count(), 2, "{queues}");
    assert!(queues.contains("\"default\"") && queues.contains("\"builtin\"") && !queues.contains("typo"), "{queues}");

    let next = server.call("POST /api/queues/new/complete", r#"{"results":[],"claim":{"worker":"w"}}"#).await;
    assert!(is_ok(&next) && next.contains("\"jobs\":[]"), "{next}");
    assert!(is_ok(&server.call("GET /api/queues/new", "").await), "claiming makes a queue, after completing too");
}

#[tokio::test]
async fn a_claim_without_a_place_to_wait_is_answered_at_once() {
    let server = start(&[("requests_max", "2"), ("waiting_claims_max", "1")]).await;
    let claim = r#"{"worker":"w","waitMs":30000}"#;
    let _waiting = server.send("POST /api/queues/q/claim", claim).await;
    server.until("GET /metrics", |metrics| metrics.contains("\ntidegate_http_waiting_claims 1\n")).await;
    let answer = server.call("POST /api/queues/q/claim", claim).await;
    assert!(is_ok(&answer) && answer.contains("\"jobs\":[]"), "{answer}");
    let next = server.call("POST /api/queues/q/complete", r#"{"results":[],"claim":{"waitMs":30000}}"#).await;
    assert!(is_ok(&next) && next.contains("\"jobs\":[]"), "{next}");
}

#[tokio::test]
async fn event_streams_over_their_limit_are_refused_until_one_ends() {
    let server = start(&[("sse_max", "1")]).await;
    let events = format!("GET {JOB}/{}/events", server.submit("1").await);
    let mut first = server.send(&events, "").await;
    begin_to_read(&mut first).await;
    assert_overloaded(&server.call(&events, "").await);
    assert!(server.call("GET /metrics", "").await.contains("\ntidegate_http_listeners 1\n"));
    drop(first);
    server.until("GET /metrics", |metrics| metrics.contains("\ntidegate_http_listeners 0\n")).await;
}

#[tokio::test]
async fn event_streams_over_the_limit_of_their_address_are_refused_with_429() {
    let server = start(&[("sse_per_address_max", "1")]).await;
    let events = format!("GET {JOB}/{}/events", server.submit("1").await);
    let mut first = server.send(&events, "").await;
    begin_to_read(&mut first).await;
    let refused = server.call(&events, "").await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("\r\nretry-after: "), "{refused}");
    assert!(refused.contains("\"code\":\"too_many_listeners\""), "{refused}");
    drop(first);
    server.until("GET /metrics", |metrics| metrics.contains("\ntidegate_http_listeners 0\n")).await;
}

#[tokio::test]
async fn ten_thousand_bad_items_make_a_short_answer_and_each_has_its_code() {
    let server = start(&[]).await;
    let options: Vec<_> = (0..20).map(|n| format!("\"unknown{n}\":1")).collect();
    let bad = format!("{{\"jobType\":\"a\",\"data\":1,\"options\":{{{}}}}}", options.join(","));
    let answer = server
        .call("POST /api/performance/async/jobs", &format!("{{\"jobs\":[{}]}}", vec![bad; 10_000].join(",")))
        .await;
    assert_eq!(answer.matches("\"code\":\"invalid_request\"").count(), 10_000);
    assert_eq!(answer.matches("See the errors before.").count(), 9_900);
    assert!(answer.len() < 4 << 20, "{} bytes", answer.len());

    let long = format!("{{\"jobs\":[{{\"jobType\":\"a\",\"data\":1,\"{}\":1}}]}}", "x".repeat(1 << 20));
    let answer = server.call("POST /api/performance/async/jobs", &long).await;
    assert!(answer.contains("unknown field `xxx") && answer.len() < 4000, "{} bytes", answer.len());
}

#[tokio::test]
async fn a_retry_beyond_ten_years_is_refused() {
    let server = start(&[]).await;
    let id = server.submit("1").await;
    let lease = member(&server.call("POST /api/queues/default/claim", r#"{"worker":"w"}"#).await, "lease");
    let fail = |ms: &str| format!(r#"{{"failures":[{{"lease":"{lease}","error":"e","retryIn":{ms}}}]}}"#);
    for ms in ["315360000001", "18446744073709551615", "-1"] {
        let answer = server.call("POST /api/queues/default/fail", &fail(ms)).await;
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("failures[0].retryIn"), "{ms}: {answer}");
    }
    let answer = server.call("POST /api/queues/default/fail", &fail("315360000000")).await;
    assert!(answer.contains("[\"ok\"]"), "{answer}");
    assert!(server.call(&format!("GET {JOB}/{id}"), "").await.contains("\"status\":\"retrying\""));
}
