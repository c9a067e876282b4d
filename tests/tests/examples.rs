//! The example workers, run as their README says.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_tests::{Process, Server, repository};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts an example worker on queue `default`.
fn worker(file: &str, server: &Server, more: &[&str]) -> Process {
    let program = if file.ends_with(".py") { "python3" } else { "node" };
    let mut command = Command::new(program);
    command.arg(repository().join("examples/workers").join(file)).args(["--url", &server.url()]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Process::start(command)
}

async fn works(file: &str) {
    let server = Server::start().await;
    let client = server.client();
    let jobs: Vec<Value> = (0..50).map(|n| json!({"jobType": "sum", "data": {"numbers": [n, 1]}})).collect();
    let sums = client.submit_all(&jobs).await;
    let mut process = worker(file, &server, &["--lanes", "3"]);
    assert!(process.line("works on default", LIMIT).await.is_some());
    let email = client.submit(json!({"jobType": "email", "data": {"to": "a@b.c"}})).await;
    for (n, sum) in sums.iter().enumerate() {
        let job = client.job_in(&sum.job_id, &["completed", "failed"]).await;
        let result: Value = serde_json::from_str(job.result.expect("a result").get()).expect("JSON");
        assert_eq!(result, json!({"sum": n + 1}));
    }
    client.job_in(&email.job_id, &["completed"]).await;

    let bad = client.submit(json!({"jobType": "unheard-of", "data": 1, "options": {"maxAttempts": 1}})).await;
    let bad = client.job_in(&bad.job_id, &["failed"]).await;
    assert!(bad.error.is_some_and(|error| error.to_string().contains("unheard-of")), "the reason arrives");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(LIMIT).await.code(), Some(0), "{}", process.said());
}

#[tokio::test]
async fn the_python_worker_completes_and_fails_jobs_and_ends_on_sigterm() {
    works("worker.py").await;
}

#[tokio::test]
async fn the_javascript_worker_completes_and_fails_jobs_and_ends_on_sigterm() {
    works("worker.mjs").await;
}

async fn hears_of_cancellation(file: &str) {
    let server = Server::builder().env("TIDEGATE_LEASE", "1s").start().await;
    let client = server.client();
    let mut process = worker(file, &server, &["--lanes", "1"]);
    let nap = client.submit(json!({"jobType": "nap", "data": {"ms": 300_000}})).await;
    client.job_in(&nap.job_id, &["running"]).await;
    assert_eq!(client.cancel(&nap.job_id).await, "cancelling");
    let ended = client.job_in(&nap.job_id, &["cancelled", "completed", "failed"]).await;
    assert_eq!((ended.status.as_str(), ended.attempt), ("cancelled", 1), "it kept its lease by beats until then");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(LIMIT).await.code(), Some(0), "{}", process.said());
}

#[tokio::test]
async fn the_python_worker_interrupts_a_cancelled_handler() {
    hears_of_cancellation("worker.py").await;
}

#[tokio::test]
async fn the_javascript_worker_interrupts_a_cancelled_handler() {
    hears_of_cancellation("worker.mjs").await;
}

async fn survives_a_kill_of_the_server(file: &str) {
    let server = Server::start().await;
    let address = server.address().to_string();
    let mut process = worker(file, &server, &["--lanes", "2"]);
    assert!(process.line("works on default", LIMIT).await.is_some());
    let first = server.client().submit(json!({"jobType": "sum", "data": {"numbers": [1]}})).await;
    server.client().job_in(&first.job_id, &["completed"]).await;
    let builder = server.kill().await;
    assert!(process.line("cannot claim", LIMIT).await.is_some());
    let server = builder.listen(&address).start().await;
    let second = server.client().submit(json!({"jobType": "sum", "data": {"numbers": [2]}})).await;
    server.client().job_in(&second.job_id, &["completed"]).await;
}

#[tokio::test]
async fn the_python_worker_comes_back_when_the_server_does() {
    survives_a_kill_of_the_server("worker.py").await;
}

#[tokio::test]
async fn the_javascript_worker_comes_back_when_the_server_does() {
    survives_a_kill_of_the_server("worker.mjs").await;
}

#[tokio::test]
async fn a_worker_frozen_past_its_lease_is_refused_as_stale_when_it_wakes() {
    let server = Server::builder().env("TIDEGATE_LEASE", "1s").start().await;
    let client = server.client();
    let mut process = worker("worker.py", &server, &["--lanes", "1"]);
    let nap = client.submit(json!({"jobType": "nap", "data": {"ms": 1500}})).await;
    client.job_in(&nap.job_id, &["running"]).await;
    process.freeze();
    let ours = client.claim_one("default", "healthy").await;
    assert_eq!((&ours.job_id, ours.attempt), (&nap.job_id, 2));
    assert_eq!(client.complete("default", &ours.lease, "\"healthy\"").await, "ok");
    process.thaw();
    let line = process.line(&nap.job_id, LIMIT).await.expect("the worker tells the outcome");
    assert!(line.ends_with(" stale"), "{line}");
    let job = client.job(&nap.job_id).await;
    assert_eq!((job.status.as_str(), job.attempt), ("completed", 2));
    assert_eq!(job.result.expect("a result").get(), "\"healthy\"");
}

#[tokio::test]
async fn a_worker_killed_with_its_hands_full_loses_nothing() {
    let server = Server::builder().env("TIDEGATE_LEASE", "1s").start().await;
    let client = server.client();
    let mut process = worker("worker.py", &server, &["--lanes", "8"]);
    let jobs: Vec<Value> = (0..8).map(|_| json!({"jobType": "nap", "data": {"ms": 60_000}})).collect();
    let naps = client.submit_all(&jobs).await;
    for nap in &naps {
        client.job_in(&nap.job_id, &["running"]).await;
    }
    process.kill().await;
    for _ in &naps {
        let claimed = client.claim_one("default", "heir").await;
        assert_eq!(claimed.attempt, 2);
        assert_eq!(client.complete("default", &claimed.lease, "null").await, "ok");
    }
}

#[tokio::test]
async fn the_python_consumer_acknowledges_fails_leaves_alone_what_it_does_not_know_and_ends_on_sigterm() {
    let server = Server::start().await;
    let client = server.client();
    let mut command = Command::new("python3");
    command.arg(repository().join("examples/streams/worker.py"));
    command.args(["--url", &server.url(), "--stream", "shop/orders", "--group", "mail"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = Process::start(command);
    assert!(process.line("consumes shop/orders", LIMIT).await.is_some());
    let events = [
        json!({"type": "order.created", "data": {"order": 7}}),
        json!({"type": "order.created", "data": "without an order"}),
        json!({"data": "of no type"}),
    ];
    let ids = client.publish_all("shop/orders", &events).await;
    for (id, outcome) in [(&ids[0], "ok"), (&ids[1], "dead"), (&ids[2], "ok")] {
        assert!(process.line(&format!("{id} {outcome}"), LIMIT).await.is_some(), "{}", process.said());
    }
    assert!(process.said().contains("mail about order 7"), "{}", process.said());
    assert_eq!(client.stream("shop/orders.dead.mail").await.length, 1);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(LIMIT).await.code(), Some(0), "{}", process.said());
    assert!(client.group_pending("shop/orders", "mail").await.is_empty());
}
