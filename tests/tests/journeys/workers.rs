//! The worker protocol: claims, leases and what fences them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::{Server, eventually, within};

use super::{builder, start};

/// A lease of 1 s keeps waiting short; nothing here depends on more.
async fn short_leases() -> Server {
    builder().await.env("TIDEGATE_LEASE", "1s").start().await
}

#[tokio::test]
async fn a_waiting_claim_is_woken_by_a_submission() {
    let server = start().await;
    let (client, submitter) = (server.client(), server.client());
    let waiting = tokio::spawn(async move { client.claim("default", "w", 5, 30_000).await });
    // Give the claim time to be waiting; were it not, the job would be claimed all the same.
    let counts = async || submitter.get("/api/queues").await.status;
    assert_eq!(counts().await, 200);
    let job = submitter.enqueue("default", "a", json!(1)).await;
    let began = Instant::now();
    let claims = within("the claim is woken", Duration::from_secs(20), waiting).await.expect("no panic");
    assert!(began.elapsed() < Duration::from_secs(15), "it did not wait for its 30 s");
    assert_eq!(claims.jobs.len(), 1);
    assert_eq!(claims.jobs[0].job_id, job.job_id);
    assert_eq!(claims.lease_ms, 10_000);
}

#[tokio::test]
async fn an_empty_queue_answers_with_an_empty_list_after_the_wait() {
    let server = start().await;
    let began = Instant::now();
    assert!(server.client().claim("nothing-here", "w", 1, 300).await.jobs.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn one_job_is_handed_to_one_of_many_waiting_workers() {
    let server = start().await;
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let client = server.client();
            tokio::spawn(async move { client.claim("race", &format!("w{n}"), 3, 2000).await.jobs })
        })
        .collect();
    let jobs: Vec<Value> = (0..10).map(|n| json!({"jobType": "a", "data": n, "options": {"queue": "race"}})).collect();
    server.client().submit_all(&jobs).await;
    let (mut ids, mut count) = (HashSet::new(), 0);
    for claim in waiting {
        for job in claim.await.expect("no panic") {
            count += 1;
            ids.insert(job.job_id);
        }
    }
    assert_eq!((count, ids.len()), (10, 10));
}

#[tokio::test]
async fn a_completion_can_fetch_the_next_jobs_in_the_same_call() {
    let server = start().await;
    let client = server.client();
    for n in 0..3 {
        client.enqueue("default", "a", json!(n)).await;
    }
    let first = client.claim_one("default", "w").await;
    let body = json!({"results": [{"lease": first.lease, "result": 1}], "claim": {"limit": 5, "waitMs": 0}});
    let reply = client.post("/api/queues/default/complete", body).await.expect(200).value();
    assert_eq!(reply["outcomes"], json!(["ok"]));
    let jobs = reply["jobs"].as_array().expect("the next jobs");
    assert_eq!(jobs.len(), 2);
    let failures: Vec<Value> =
        jobs.iter().map(|job| json!({"lease": job["lease"], "error": "x", "retryIn": 0})).collect();
    let body = json!({"failures": failures, "claim": {"limit": 5, "waitMs": 10_000}});
    let reply = client.post("/api/queues/default/fail", body).await.expect(200).value();
    assert_eq!(reply["outcomes"], json!(["ok", "ok"]));
    let again = reply["jobs"].as_array().expect("the retried jobs");
    assert!(!again.is_empty());
    assert_eq!(again[0]["attempt"], 2);
}

#[tokio::test]
async fn outcomes_come_one_per_item_and_in_order() {
    let server = start().await;
    let client = server.client();
    for n in 0..2 {
        client.enqueue("default", "a", json!(n)).await;
    }
    let claims = client.claim("default", "w", 2, 0).await;
    let results = json!([
        {"lease": claims.jobs[0].lease, "result": 1}, {"lease": "not-a-lease"}, {"lease": claims.jobs[1].lease},
        {"lease": claims.jobs[0].lease, "result": 2},
    ]);
    let reply = client.post("/api/queues/default/complete", json!({"results": results})).await.expect(200).value();
    let outcomes = &reply["outcomes"];
    assert_eq!((&outcomes[0], &outcomes[2]), (&json!("ok"), &json!("ok")), "{outcomes}");
    assert_ne!(outcomes[1], "ok");
    assert_ne!(outcomes[3], "ok", "a job is completed once");
    let first = client.job(&claims.jobs[0].job_id).await;
    assert_eq!(first.result.expect("a result").get(), "1");
    assert!(client.job(&claims.jobs[1].job_id).await.result.is_none_or(|result| result.get() == "null"));
}

#[tokio::test]
async fn a_failed_job_is_tried_again_until_its_attempts_are_used_up() {
    let server = start().await;
    let client = server.client();
    let options = json!({"maxAttempts": 3, "backoff": {"base": 10, "cap": 20}});
    let job = client.submit(json!({"jobType": "a", "data": 1, "options": options})).await;
    for attempt in 1..=3 {
        let claimed = client.claim_one("default", "w").await;
        assert_eq!(claimed.attempt, attempt);
        assert_eq!(client.fail("default", &claimed.lease, &format!("attempt {attempt}"), json!({})).await, "ok");
    }
    let view = client.job(&job.job_id).await;
    assert_eq!((view.status.as_str(), view.attempt), ("failed", 3));
    assert!(view.error.is_some_and(|error| error.to_string().contains("attempt 3")));
    assert!(client.claim("default", "w", 1, 100).await.jobs.is_empty());
}

#[tokio::test]
async fn a_failure_can_ask_for_a_time_and_for_no_retry() {
    let server = start().await;
    let client = server.client();
    let later = client.enqueue("default", "a", json!(1)).await;
    let never = client.enqueue("default", "a", json!(2)).await;
    let claims = client.claim("default", "w", 2, 0).await;
    client.fail("default", &claims.jobs[0].lease, "later", json!({"retryIn": 600_000})).await;
    client.fail("default", &claims.jobs[1].lease, "never", json!({"retry": false})).await;
    assert_eq!(client.job(&later.job_id).await.status, "retrying");
    assert_eq!(client.job(&never.job_id).await.status, "failed");
    assert!(client.claim("default", "w", 2, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn progress_is_shown_and_refused_outside_its_range() {
    let server = start().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(client.progress("default", &claimed.lease, 0.25, Some("a quarter")).await, "ok");
    let view = client.job(&job.job_id).await;
    assert_eq!((view.progress, view.progress_note.as_deref()), (Some(0.25), Some("a quarter")));
    assert_eq!((view.status.as_str(), view.attempt), ("running", 1));
    assert!(view.started_at.is_some());
    let body = json!({"updates": [{"lease": claimed.lease, "progress": 1.5}]});
    let reply = client.post("/api/queues/default/progress", body).await;
    if reply.status == 200 {
        assert_ne!(reply.value()["outcomes"][0], "ok");
    } else {
        reply.problem_in(&[400, 422]);
    }
}

#[tokio::test]
async fn a_released_job_is_handed_out_at_once_without_losing_an_attempt() {
    let server = start().await;
    let client = server.client();
    let job = client.submit(json!({"jobType": "a", "data": 1, "options": {"maxAttempts": 1}})).await;
    for _ in 0..3 {
        let claimed = client.claim_one("default", "w").await;
        assert_eq!(client.release("default", &claimed.lease).await, "ok");
    }
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(client.complete("default", &claimed.lease, "1").await, "ok");
    assert_eq!(client.job(&job.job_id).await.status, "completed");
}

#[tokio::test]
async fn every_verb_refuses_a_lease_that_another_worker_has_by_now() {
    let server = short_leases().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    let old = client.claim_one("default", "first").await;
    let new = client.claim_one("default", "second").await;
    assert_eq!((&new.job_id, new.attempt), (&job.job_id, 2));
    assert_ne!(old.lease, new.lease);
    assert_eq!(client.beat("default", "first", &[&old.lease]).await["stale"], json!([old.lease]));
    assert_eq!(client.progress("default", &old.lease, 0.5, None).await, "stale");
    assert_eq!(client.release("default", &old.lease).await, "stale");
    assert_eq!(client.fail("default", &old.lease, "x", json!({})).await, "stale");
    assert_eq!(client.complete("default", &old.lease, "\"old\"").await, "stale");
    assert_eq!(client.complete("default", &new.lease, "\"new\"").await, "ok");
    assert_eq!(client.complete("default", &old.lease, "\"old\"").await, "stale");
    assert_eq!(client.job(&job.job_id).await.result.expect("a result").get(), "\"new\"");
}

#[tokio::test]
async fn a_lease_does_not_open_another_queue() {
    let server = start().await;
    let client = server.client();
    let mut running = Vec::new();
    for queue in ["mine", "yours"] {
        let job = client.enqueue(queue, "a", json!(1)).await;
        running.push((job.job_id, client.claim_one(queue, "w").await.lease));
    }
    for (verb, body) in [
        ("complete", json!({"results": [{"lease": running[0].1}]})),
        ("fail", json!({"failures": [{"lease": running[0].1, "error": "x"}]})),
        ("release", json!({"leases": [running[0].1]})),
        ("progress", json!({"updates": [{"lease": running[0].1, "progress": 0.9}]})),
    ] {
        let reply = client.post(&format!("/api/queues/yours/{verb}"), body).await.expect(200);
        assert_eq!(reply.value()["outcomes"], json!(["stale"]), "{verb} with a lease of another queue");
    }
    for (id, _) in &running {
        let job = client.job(id).await;
        assert_eq!((job.status.as_str(), job.progress), ("running", None));
    }
}

#[tokio::test]
async fn a_job_three_leases_long_with_beats_starts_exactly_once() {
    let server = short_leases().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    let claimed = client.claim_one("default", "busy").await;
    let thief = tokio::spawn({
        let client = server.client();
        async move { client.claim("default", "idle", 1, 4000).await.jobs }
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3200) {
        let beat = client.beat("default", "busy", &[&claimed.lease]).await;
        assert_eq!(beat["stale"], json!([]), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(client.complete("default", &claimed.lease, "1").await, "ok");
    assert!(thief.await.expect("no panic").is_empty());
    assert_eq!(client.job(&job.job_id).await.attempt, 1);
}

#[tokio::test]
async fn jobs_of_a_worker_that_died_are_claimable_within_a_lease_and_a_second() {
    let server = builder().await.env("TIDEGATE_LEASE", "2s").start().await;
    let client = server.client();
    let jobs: Vec<Value> = (0..100).map(|n| json!({"jobType": "a", "data": n})).collect();
    client.submit_all(&jobs).await;
    let dead = client.claim("default", "dead", 100, 0).await;
    let claimed = Instant::now();
    assert_eq!(dead.jobs.len(), 100);
    let (mut back, mut waited) = (HashSet::new(), Duration::ZERO);
    while back.len() < 100 {
        let claims = client.claim("default", "alive", 1000, 5000).await;
        waited = claimed.elapsed();
        assert!(!claims.jobs.is_empty(), "only {} came back in {waited:?}", back.len());
        for job in claims.jobs {
            assert_eq!(job.attempt, 2);
            assert!(back.insert(job.job_id), "handed out twice");
        }
    }
    let limit = Duration::from_millis(dead.lease_ms) + Duration::from_secs(1);
    assert!(waited <= limit, "all restarted after {waited:?}, promised {limit:?}");
}

#[tokio::test]
async fn claims_of_a_killed_server_are_void_and_their_jobs_run_again() {
    let server = start().await;
    let job = server.client().enqueue("default", "a", json!(1)).await;
    let before = server.client().claim_one("default", "w").await;
    let server = server.kill().await.start().await;
    let client = server.client();
    let after = within("the job is handed out again", Duration::from_secs(15), client.claim_one("default", "v")).await;
    assert_eq!(after.job_id, job.job_id);
    assert_ne!(after.lease, before.lease);
    assert_eq!(client.complete("default", &before.lease, "\"old\"").await, "stale");
    assert_eq!(client.complete("default", &after.lease, "\"new\"").await, "ok");
}

/// The second claim is answered while the disk is busy with submissions, and the server dies at once: whatever of it was
/// written down, the first lease had been told to be over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_was_handed_on_stays_stale_when_the_server_is_killed_right_after() {
    let mut server = short_leases().await;
    for round in 0..3 {
        let queue = format!("handed-on-{round}");
        let client = server.client();
        let jobs: Vec<Value> =
            (0..100).map(|n| json!({"jobType": "a", "data": n, "options": {"queue": queue}})).collect();
        client.submit_all(&jobs).await;
        let first = client.claim(&queue, "first", 100, 0).await.jobs;
        assert_eq!(first.len(), 100);
        let noise: Vec<_> = (0..8)
            .map(|n| {
                let client = server.client();
                let body =
                    json!({"jobType": "a", "data": "x".repeat(10_000), "options": {"queue": format!("noise-{n}")}});
                tokio::spawn(async move {
                    let call = || client.call("POST", "/api/performance/async/job").json(body.clone()).attempt();
                    while call().await.is_ok_and(|reply| reply.status == 202) {}
                })
            })
            .collect();
        let second = client.claim(&queue, "second", 100, 10_000).await.jobs;
        server = server.kill().await.start().await;
        for noise in noise {
            noise.await.expect("no panic");
        }
        let client = server.client();
        let handed_on: HashSet<&str> = second.iter().map(|job| job.job_id.as_str()).collect();
        assert!(!handed_on.is_empty(), "the first leases ran out");
        let late: Vec<Value> = first
            .iter()
            .filter(|job| handed_on.contains(job.job_id.as_str()))
            .map(|job| json!({"lease": job.lease, "result": "late"}))
            .collect();
        let reply = client.post(&format!("/api/queues/{queue}/complete"), json!({"results": late})).await.expect(200);
        let outcomes = reply.value()["outcomes"].clone();
        let believed = outcomes.as_array().expect("outcomes").iter().filter(|outcome| **outcome == "ok").count();
        assert_eq!(believed, 0, "completions from leases that others had been given (round {round})");
    }
}

#[tokio::test]
async fn one_key_with_many_jobs_does_not_starve_the_others() {
    let server = start().await;
    let client = server.client();
    let mut jobs: Vec<Value> = Vec::new();
    for n in 0..300 {
        jobs.push(json!({"jobType": "a", "data": n, "options": {"queue": "fair", "key": "hot"}}));
    }
    for n in 0..10 {
        jobs.push(json!({"jobType": "a", "data": n, "options": {"queue": "fair", "key": format!("cold-{n}")}}));
    }
    client.submit_all(&jobs).await;
    let first = client.claim("fair", "w", 40, 0).await;
    let cold = first.jobs.iter().filter(|job| job.key.as_deref() != Some("hot")).count();
    assert!(cold >= 8, "only {cold} of the ten other keys are among the first forty");
}

#[tokio::test]
async fn a_job_that_outlives_its_timeout_is_taken_from_its_worker() {
    let server = short_leases().await;
    let client = server.client();
    let options = json!({"timeout": 1500, "maxAttempts": 1});
    let job = client.submit(json!({"jobType": "a", "data": 1, "options": options})).await;
    let claimed = client.claim_one("default", "w").await;
    eventually("the timeout ends the attempt although beats go on", Duration::from_secs(20), || async {
        client.beat("default", "w", &[&claimed.lease]).await;
        (client.job(&job.job_id).await.status == "failed").then_some(())
    })
    .await;
    assert_ne!(client.complete("default", &claimed.lease, "1").await, "ok");
}
