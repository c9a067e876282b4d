//! Servers that share their queues.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_test_redis::Server as Redis;
use tidegate_tests::{Server, endless_job, eventually, within};

use super::{PATIENCE, on};

const JOB: &str = "/api/performance/async/job";
const JOBS: &str = "/api/performance/async/jobs";

/// Two servers on a Redis of their own.
async fn pair() -> (Redis, Server, Server) {
    let redis = Redis::start().await;
    let (first, second) = (on(&redis).start().await, on(&redis).start().await);
    (redis, first, second)
}

#[tokio::test]
async fn a_job_submitted_here_wakes_a_claim_there_and_is_completed_here() {
    let (_redis, here, there) = pair().await;
    let waiting = tokio::spawn({
        let client = there.client();
        async move { client.claim_one("mail", "w").await }
    });
    let client = here.client();
    eventually("the claim waits", PATIENCE, || async {
        let queue = there.client().get("/api/queues/mail").await;
        (queue.status == 200 && queue.value()["waitingClaims"] == 1).then_some(())
    })
    .await;
    let job = client.enqueue("mail", "a", json!(1)).await;
    let claimed = within("the claim is woken", PATIENCE, waiting).await.expect("no panic");
    assert_eq!(claimed.job_id, job.job_id);
    assert_eq!(client.complete("mail", &claimed.lease, "\"done\"").await, "ok");
    assert_eq!(there.client().complete("mail", &claimed.lease, "1").await, "stale", "it is done once");
    let seen = there.client().job(&job.job_id).await;
    assert_eq!((seen.status.as_str(), seen.result.expect("a result").get()), ("completed", "\"done\""));
}

#[tokio::test]
async fn a_cancel_here_reaches_the_worker_there() {
    let (_redis, here, there) = pair().await;
    let job = here.client().enqueue("default", "a", json!(1)).await;
    let claimed = there.client().claim_one("default", "w").await;
    assert_eq!(here.client().cancel(&job.job_id).await, "cancelling");
    assert_eq!(there.client().beat("default", "w", &[&claimed.lease]).await["cancelled"], json!([claimed.lease]));
    assert_eq!(there.client().fail("default", &claimed.lease, "as told", json!({})).await, "ok");
    assert_eq!(here.client().job(&job.job_id).await.status, "cancelled");
}

#[tokio::test]
async fn a_built_in_job_is_cancelled_whichever_server_runs_it() {
    let (_redis, here, there) = pair().await;
    let job = here.client().submit(endless_job()).await;
    for server in [&here, &there] {
        server.client().job_at_work(&job.job_id).await;
        server.client().cancel(&job.job_id).await;
        let ended = server.client().job_in(&job.job_id, &["cancelled", "failed"]).await;
        assert_eq!((ended.status.as_str(), ended.attempt), ("cancelled", 1));
        if std::ptr::eq(server, &here) {
            here.client().retry(&job.job_id).await.expect(202);
        }
    }
}

#[tokio::test]
async fn events_of_a_job_are_streamed_by_a_server_that_has_no_part_in_it() {
    let (_redis, here, there) = pair().await;
    let job = here.client().enqueue("default", "a", json!(1)).await;
    let mut events = there.client().events(&format!("{JOB}/{}/events", job.job_id)).await;
    let claimed = here.client().claim_one("default", "w").await;
    assert_eq!(here.client().progress("default", &claimed.lease, 0.5, Some("half")).await, "ok");
    assert_eq!(here.client().complete("default", &claimed.lease, "42").await, "ok");
    let mut seen = Vec::new();
    while let Some(event) = events.next(Duration::from_secs(30)).await {
        seen.push(event.data);
    }
    let last: Value = serde_json::from_str(seen.last().expect("events came")).expect("data are JSON");
    assert_eq!((&last["status"], &last["result"]), (&json!("completed"), &json!(42)), "{seen:?}");
}

#[tokio::test]
async fn a_repeated_submission_finds_its_jobs_on_another_server() {
    let (_redis, here, there) = pair().await;
    let body = json!({"jobs": [{"jobType": "a", "data": 1}, {"jobType": "a", "data": 2, "options": {"queue": "b"}}]});
    let submit = async |server: &Server| {
        server.client().call("POST", JOBS).header("idempotency-key", "k").json(body.clone()).send().await.expect(202)
    };
    assert_eq!(submit(&here).await.value(), submit(&there).await.value());
    assert_eq!(there.client().jobs("limit=10").await.jobs.len(), 2, "all queues are listed by every server");

    let once = json!({"jobType": "a", "data": 1, "options": {"dedupKey": "d", "dedupWindow": 3_600_000}});
    let first = here.client().submit(once.clone()).await;
    let again = there.client().post(JOB, once).await.expect(200).value();
    assert_eq!((&again["jobId"], &again["duplicate"]), (&json!(first.job_id), &json!(true)));
}

#[tokio::test]
async fn a_pause_and_a_purge_here_hold_there() {
    let (_redis, here, there) = pair().await;
    for n in 0..3 {
        here.client().enqueue("mail", "a", json!(n)).await;
    }
    here.client().post("/api/queues/mail/pause", json!({})).await.expect(200);
    assert_eq!(there.client().get("/api/queues/mail").await.value()["paused"], true);
    assert!(there.client().claim("mail", "w", 1, 0).await.jobs.is_empty());
    there.client().post("/api/queues/mail/resume", json!({})).await.expect(200);
    let claimed = here.client().claim_one("mail", "w").await;
    let purged = there.client().delete("/api/queues/mail/jobs?status=queued").await.expect(200);
    assert_eq!(purged.value()["deleted"], 2);
    assert_eq!(there.client().complete("mail", &claimed.lease, "1").await, "ok");
}

#[tokio::test]
async fn what_a_killed_server_had_begun_others_finish() {
    let redis = Redis::start().await;
    let doomed = on(&redis).start().await;
    let client = doomed.client();
    let jobs: Vec<Value> = (0..20).map(|n| json!({"jobType": "a", "data": n})).collect();
    client.submit_all(&jobs).await;
    let lost = client.claim("default", "goes-down-too", 19, 0).await.jobs;
    let kept = client.claim_one("default", "lives-on").await;
    let computing = client.submit(endless_job()).await;
    client.job_at_work(&computing.job_id).await;
    doomed.kill().await;

    let heir = on(&redis).start().await;
    let client = heir.client();
    assert_eq!(client.beat("default", "lives-on", &[&kept.lease]).await["stale"], json!([]), "its lease is good here");
    let mut attempts = BTreeMap::new();
    while attempts.len() < lost.len() {
        client.beat("default", "lives-on", &[&kept.lease]).await;
        for job in client.claim("default", "heir", 100, 500).await.jobs {
            assert_eq!(attempts.insert(job.job_id, job.attempt), None, "handed out once");
            assert_eq!(client.complete("default", &job.lease, "1").await, "ok");
        }
    }
    assert!(lost.iter().all(|job| attempts.get(&job.job_id) == Some(&2)), "{attempts:?}");
    assert_eq!(client.complete("default", &lost[0].lease, "\"late\"").await, "stale");
    assert_eq!(client.complete("default", &kept.lease, "1").await, "ok");
    let again = async || Some(client.job(&computing.job_id).await).filter(|job| job.attempt == 2);
    eventually("it is begun again", PATIENCE, again).await;
    client.cancel(&computing.job_id).await;
    let stopped = client.job_in(&computing.job_id, &["cancelled"]).await;
    assert_eq!(stopped.attempt, 2);
}

#[tokio::test]
async fn servers_with_another_prefix_share_nothing() {
    let (redis, here, _there) = pair().await;
    let other = on(&redis).env("TIDEGATE_REDIS_PREFIX", "other").start().await;
    let job = here.client().enqueue("default", "a", json!(1)).await;
    assert!(other.client().claim("default", "w", 1, 0).await.jobs.is_empty());
    other.client().job_reply(&job.job_id).await.problem(404);
}

#[tokio::test]
async fn idle_servers_with_waiting_claims_send_nothing_but_signs_of_life() {
    let redis = Redis::start().await;
    let servers = [on(&redis).start().await, on(&redis).start().await, on(&redis).start().await];
    super::works(&servers[0]).await;
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let client = servers[n % 3].client();
            tokio::spawn(async move { client.claim("idle", &format!("w{n}"), 1, 30_000).await.jobs.len() })
        })
        .collect();
    let sent = async || {
        let mut commands = redis.commands_by_name().await;
        commands.remove("ping");
        commands
    };
    let settled = async {
        let mut before = sent().await;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = sent().await;
            if now == before {
                return now;
            }
            before = now;
        }
    };
    let before = within("everything settles", PATIENCE, settled).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(sent().await, before, "commands were sent in 6 s of idleness");
    // They were waiting all the while.
    let jobs: Vec<Value> = (0..20).map(|n| json!({"jobType": "a", "data": n, "options": {"queue": "idle"}})).collect();
    servers[1].client().submit_all(&jobs).await;
    for claim in waiting {
        assert_eq!(claim.await.expect("no panic"), 1);
    }
}
