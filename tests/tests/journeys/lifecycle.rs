//! Drain and restart.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_tests::{comparing_job, endless_job, eventually, within};

use super::{builder, start};

#[tokio::test]
async fn a_drained_server_finishes_its_running_job_and_ends_with_0() {
    let server = start().await;
    let client = server.client();
    let job = client.submit(comparing_job(15_000)).await;
    client.job_at_work(&job.job_id).await;
    let server = server.stop().await.start().await;
    let job = server.client().job(&job.job_id).await;
    assert_eq!((job.status.as_str(), job.attempt), ("completed", 1), "it was finished, not started again");
}

#[tokio::test]
async fn a_draining_server_says_so_and_still_takes_what_workers_finished() {
    let mut server = start().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    let claimed = client.claim_one("default", "w").await;
    // A waiting claim is a request in flight: it is answered early rather than holding up the end.
    let waiting = tokio::spawn({
        let client = server.client();
        async move { client.claim("empty", "w", 1, 30_000).await.jobs.len() }
    });
    eventually("the claim has been sent", Duration::from_secs(10), || async {
        (client.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let stalled = client.complete("default", &claimed.lease, "7");
    assert_eq!(stalled.await, "ok");
    server.process().signal(Signal::TERM);
    let status = server.process().wait(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0));
    let _ = waiting.await;
    let server = server.rebuilder().start().await;
    assert_eq!(server.client().job(&job.job_id).await.result.expect("a result").get(), "7");
}

#[tokio::test]
async fn a_second_sigterm_stops_at_once_and_the_running_job_is_not_lost() {
    let mut server = builder().await.env("TIDEGATE_DRAIN_TIMEOUT", "600s").start().await;
    let client = server.client();
    let job = client.submit(endless_job()).await;
    client.job_at_work(&job.job_id).await;
    server.process().signal(Signal::TERM);
    eventually("the server says that it drains, or takes no more connections", Duration::from_secs(20), || async {
        let reply = client.call("GET", "/readyz").attempt().await;
        reply.map_or(true, |reply| reply.status == 503).then_some(())
    })
    .await;
    assert!(server.process().is_alive(), "the drain waits for the running job");
    server.process().signal(Signal::TERM);
    server.process().wait(Duration::from_secs(10)).await;
    let server = server.rebuilder().start().await;
    let again = server.client().job_in(&job.job_id, &["queued", "running"]).await;
    assert!(again.finished_at.is_none());
    server.kill().await;
}

#[tokio::test]
async fn a_drain_deadline_is_kept_and_the_running_job_is_not_lost() {
    let server = builder().await.env("TIDEGATE_DRAIN_TIMEOUT", "1s").start().await;
    let client = server.client();
    let job = client.submit(endless_job()).await;
    client.job_at_work(&job.job_id).await;
    let server = within("the drain ends at its deadline", Duration::from_secs(30), server.stop()).await.start().await;
    server.client().job_in(&job.job_id, &["queued", "running", "retrying"]).await;
    server.kill().await;
}

#[tokio::test]
async fn a_restart_keeps_jobs_of_every_state() {
    let server = start().await;
    let client = server.client();
    let later = client.submit(json!({"jobType": "a", "data": 1, "options": {"queue": "q", "delay": 600_000}})).await;
    let ids: Vec<String> = {
        let jobs: Vec<Value> = (0..6).map(|n| json!({"jobType": "a", "data": n, "options": {"queue": "q"}})).collect();
        client.submit_all(&jobs).await.into_iter().map(|answer| answer.job_id).collect()
    };
    let claims = client.claim("q", "w", 4, 0).await;
    client.complete("q", &claims.jobs[0].lease, "{\"done\":1.0}").await;
    client.fail("q", &claims.jobs[1].lease, "no", json!({"retry": false})).await;
    client.fail("q", &claims.jobs[2].lease, "wait", json!({"retryIn": 600_000})).await;
    client.cancel(&ids[4]).await;
    client.post("/api/queues/q/pause", json!({})).await.expect(200);

    let server = server.stop().await.start().await;
    let server = server.kill().await.start().await;
    let client = server.client();
    let states = [(0, "completed"), (1, "failed"), (2, "retrying"), (4, "cancelled"), (5, "queued")];
    for (index, status) in states {
        assert_eq!(client.job(&ids[index]).await.status, status, "job {index}");
    }
    assert_eq!(client.job(&later.job_id).await.status, "scheduled");
    assert_eq!(client.job(&ids[0]).await.result.expect("a result").get(), "{\"done\":1.0}");
    assert_eq!(client.get("/api/queues/q").await.value()["paused"], true, "a pause is kept");
}
