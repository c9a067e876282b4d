//! Jobs over HTTP: what a caller may rely on from submission to result.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{Server, within};

use super::{DURABILITY, builder, start};

const JOB: &str = "/api/performance/async/job";
const JOBS: &str = "/api/performance/async/jobs";

#[tokio::test]
async fn a_submitted_job_is_queued_and_can_be_asked_for() {
    let server = start().await;
    let client = server.client();
    let reply = client.post(JOB, json!({"jobType": "email", "data": {"to": "a@b.c"}})).await.expect(202);
    let answer = reply.value();
    assert_eq!(answer["status"], "queued");
    let job = client.job(answer["jobId"].as_str().expect("an id")).await;
    assert_eq!((job.job_type.as_str(), job.queue.as_str(), job.status.as_str()), ("email", "default", "queued"));
    assert_eq!((job.priority, job.attempt, job.max_attempts), (100, 0, 4));
    assert_eq!(job.durability.as_deref(), Some(DURABILITY));
    assert!(job.progress.is_none() && job.started_at.is_none() && job.finished_at.is_none());
    let created = job.created_at.as_bytes();
    assert_eq!((created.len(), created[10], created[19], created[23]), (24, b'T', b'.', b'Z'), "{}", job.created_at);
}

#[tokio::test]
async fn every_option_is_honoured() {
    let server = start().await;
    let client = server.client();
    let options = json!({
        "queue": "mail", "priority": 7, "timeout": 5000, "maxAttempts": 9, "backoff": {"base": 50, "cap": 60},
        "key": "customer-1", "dedupKey": "once", "dedupWindow": 60_000, "expiresIn": 600_000, "retention": 120_000,
    });
    let job = client.submit(json!({"jobType": "email", "data": null, "options": options})).await;
    let view = client.job(&job.job_id).await;
    assert_eq!((view.queue.as_str(), view.priority, view.max_attempts), ("mail", 7, 9));
    let claimed = client.claim_one("mail", "w").await;
    assert_eq!((claimed.key.as_deref(), claimed.attempt, claimed.max_attempts), (Some("customer-1"), 1, 9));
    assert_eq!(claimed.data.get(), "null");
    assert!(claimed.deadline_at.ends_with('Z'), "{}", claimed.deadline_at);
}

#[tokio::test]
async fn ten_thousand_jobs_in_one_call_are_answered_in_order_and_handed_out_in_order() {
    let server = start().await;
    let client = server.client();
    let jobs: Vec<Value> =
        (0..10_000).map(|n| json!({"jobType": "n", "data": n, "options": {"queue": "bulk"}})).collect();
    let answers = client.submit_all(&jobs).await;
    let ids: HashSet<&str> = answers.iter().map(|answer| answer.job_id.as_str()).collect();
    assert_eq!(ids.len(), 10_000);
    let mut next = 0;
    while next < 10_000 {
        let claims = client.claim("bulk", "w", 1000, 0).await;
        assert!(!claims.jobs.is_empty(), "all are claimable at once, {next} came");
        for job in claims.jobs {
            assert_eq!(job.data.get(), next.to_string());
            assert_eq!(job.job_id, answers[next].job_id, "answer {next} belongs to job {next}");
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_batch_with_a_bad_item_accepts_the_good_ones_in_their_places() {
    let server = start().await;
    let client = server.client();
    let good = json!({"jobType": "a", "data": 1});
    let bad = json!({"jobType": "a", "data": 1, "options": {"priority": 256}});
    let reply = client.post(JOBS, json!({"jobs": [good, bad, good]})).await.expect(202);
    let jobs = reply.value()["jobs"].clone();
    assert!(jobs[0]["jobId"].is_string() && jobs[2]["jobId"].is_string(), "{jobs}");
    assert!(jobs[1]["jobId"].is_null() && !jobs[1]["error"].is_null(), "{jobs}");
    assert_eq!(client.claim("default", "w", 10, 0).await.jobs.len(), 2);
}

#[tokio::test]
async fn a_live_duplicate_is_answered_with_the_existing_job() {
    let server = start().await;
    let client = server.client();
    let job = json!({"jobType": "a", "data": 1, "options": {"dedupKey": "invoice-7", "dedupWindow": 3_600_000}});
    let first = client.submit(job.clone()).await;
    let second = client.post(JOB, job.clone()).await.expect(200).value();
    assert_eq!((&second["jobId"], &second["duplicate"]), (&json!(first.job_id), &json!(true)));
    let other = json!({"jobType": "a", "data": 1, "options": {"dedupKey": "invoice-8", "dedupWindow": 3_600_000}});
    assert_ne!(client.submit(other).await.job_id, first.job_id);

    let claimed = client.claim_one("default", "w").await;
    assert_eq!(
        client.post(JOB, job.clone()).await.expect(200).value()["jobId"],
        json!(first.job_id),
        "running is live"
    );
    assert_eq!(client.complete("default", &claimed.lease, "1").await, "ok");
    let third = client.submit(job).await;
    assert_ne!(third.job_id, first.job_id, "an ended job is not live");
}

#[tokio::test]
async fn duplicates_inside_one_batch_and_across_a_kill_are_found() {
    let server = start().await;
    let job = json!({"jobType": "a", "data": 1, "options": {"dedupKey": "x", "dedupWindow": 3_600_000}});
    let answers = server.client().submit_all(&[job.clone(), job.clone()]).await;
    assert_eq!(answers[0].job_id, answers[1].job_id);
    assert!(!answers[0].duplicate && answers[1].duplicate);
    let server = server.kill().await.start().await;
    let again = server.client().post(JOB, job).await.expect(200).value();
    assert_eq!(again["jobId"], json!(answers[0].job_id));
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_answer_also_after_a_kill_and_refuses_another_body() {
    let server = start().await;
    let body = json!({"jobType": "a", "data": {"n": 1}});
    let submit = async |server: &Server, key: &str, body: &Value| {
        server.client().call("POST", JOB).header("idempotency-key", key).json(body.clone()).send().await
    };
    let first = submit(&server, "k-1", &body).await.expect(202);
    let second = submit(&server, "k-1", &body).await;
    assert_eq!((second.status, second.text()), (first.status, first.text()));
    let problem = submit(&server, "k-1", &json!({"jobType": "a", "data": {"n": 2}})).await.problem_in(&[409, 422]);
    assert_eq!(problem["code"], "idempotency_mismatch");

    let server = server.kill().await.start().await;
    let third = submit(&server, "k-1", &body).await;
    assert_eq!(third.value()["jobId"], first.value()["jobId"]);
    assert_ne!(submit(&server, "k-2", &body).await.value()["jobId"], first.value()["jobId"]);
    assert_eq!(server.client().claim("default", "w", 10, 0).await.jobs.len(), 2, "one job per key");
}

#[tokio::test]
async fn an_idempotency_key_covers_a_batch() {
    let server = start().await;
    let body = json!({"jobs": [{"jobType": "a", "data": 1}, {"jobType": "a", "data": 2}]});
    let submit = async |server: &Server| {
        server.client().call("POST", JOBS).header("idempotency-key", "b").json(body.clone()).send().await.expect(202)
    };
    let first = submit(&server).await.value();
    assert_eq!(submit(&server).await.value(), first);
    let server = server.kill().await.start().await;
    assert_eq!(submit(&server).await.value(), first);
    assert_eq!(server.client().claim("default", "w", 10, 0).await.jobs.len(), 2);
}

#[tokio::test]
async fn lower_priority_numbers_are_handed_out_first_and_equal_ones_in_order() {
    let server = start().await;
    let client = server.client();
    let order = [(200, "e"), (0, "a"), (100, "c"), (50, "b"), (100, "d"), (255, "f")];
    for (priority, name) in order {
        client.submit(json!({"jobType": "a", "data": name, "options": {"priority": priority}})).await;
    }
    let claimed = client.claim("default", "w", 10, 0).await;
    let names: Vec<&str> = claimed.jobs.iter().map(|job| job.data.get()).collect();
    assert_eq!(names, ["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\"", "\"f\""]);
}

#[tokio::test]
async fn a_delayed_job_waits_for_its_time_and_then_wakes_a_waiting_worker() {
    let server = start().await;
    let client = server.client();
    let job = client.submit(json!({"jobType": "a", "data": 1, "options": {"delay": 1500}})).await;
    assert_eq!(client.job(&job.job_id).await.status, "scheduled");
    assert!(client.claim("default", "w", 1, 0).await.jobs.is_empty());
    let claimed = within("the job comes due", Duration::from_secs(20), client.claim_one("default", "w")).await;
    assert_eq!(claimed.job_id, job.job_id);

    let long_ago =
        client.submit(json!({"jobType": "a", "data": 2, "options": {"runAt": "2020-01-01T00:00:00Z"}})).await;
    assert_eq!(client.claim_one("default", "w").await.job_id, long_ago.job_id);
    let next_year = client.job(&job.job_id).await.created_at[..4].parse::<u32>().expect("a year") + 1;
    let run_at = format!("{next_year}-01-01T00:00:00.000Z");
    let later = client.submit(json!({"jobType": "a", "data": 3, "options": {"runAt": run_at}})).await;
    assert_eq!(client.job(&later.job_id).await.status, "scheduled");
    assert!(client.claim("default", "w", 1, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn a_job_that_expired_is_never_handed_out() {
    let server = start().await;
    let client = server.client();
    let job = client.submit(json!({"jobType": "a", "data": 1, "options": {"expiresIn": 200}})).await;
    let ended = client.job_in(&job.job_id, &["failed", "cancelled"]).await;
    assert!(ended.error.is_some_and(|error| error.to_string().contains("expired")), "the reason is given");
    assert!(client.claim("default", "w", 1, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_for_good() {
    let server = start().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    assert_eq!(client.cancel(&job.job_id).await, "cancelled");
    assert_eq!(client.job(&job.job_id).await.status, "cancelled");
    assert!(client.claim("default", "w", 1, 0).await.jobs.is_empty());
    let server = server.kill().await.start().await;
    assert_eq!(server.client().job(&job.job_id).await.status, "cancelled");
}

#[tokio::test]
async fn a_running_job_hears_of_its_cancellation_by_its_beat() {
    let server = start().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(client.cancel(&job.job_id).await, "cancelling");
    let beat = client.beat("default", "w", &[&claimed.lease]).await;
    assert_eq!(beat["cancelled"], json!([claimed.lease]));
    assert_eq!(client.fail("default", &claimed.lease, "stopped as told", json!({})).await, "ok");
    assert_eq!(client.job(&job.job_id).await.status, "cancelled", "a cancelled job is not tried again");
}

#[tokio::test]
async fn failed_and_cancelled_jobs_can_be_retried_by_hand_and_others_cannot() {
    let server = start().await;
    let client = server.client();
    let failed = client.enqueue("default", "a", json!(1)).await;
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(client.fail("default", &claimed.lease, "no", json!({"retry": false})).await, "ok");
    assert_eq!(client.job(&failed.job_id).await.status, "failed");
    assert!((200..300).contains(&client.retry(&failed.job_id).await.status));
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(claimed.job_id, failed.job_id);
    client.retry(&failed.job_id).await.problem(409);
    assert_eq!(client.complete("default", &claimed.lease, "2").await, "ok");
    client.retry(&failed.job_id).await.problem(409);

    let cancelled = client.enqueue("default", "a", json!(1)).await;
    client.cancel(&cancelled.job_id).await;
    assert!((200..300).contains(&client.retry(&cancelled.job_id).await.status));
    assert_eq!(client.claim_one("default", "w").await.job_id, cancelled.job_id);
    client.retry("0198c0de-0000-7000-8000-000000000000").await.problem(404);
}

#[tokio::test]
async fn a_list_is_filtered_and_its_pages_hold_each_job_once() {
    let server = start().await;
    let client = server.client();
    let jobs: Vec<Value> = (0..250)
        .map(|n| {
            let (kind, key) = (if n % 2 == 0 { "even" } else { "odd" }, format!("k{}", n % 5));
            json!({"jobType": kind, "data": n, "options": {"queue": "list", "key": key}})
        })
        .collect();
    let mut wanted: Vec<String> = client.submit_all(&jobs).await.into_iter().map(|answer| answer.job_id).collect();
    client.enqueue("other", "even", json!(0)).await;

    let ids = async |query: &str, limit: usize| {
        let mut ids: Vec<String> = client.all_jobs(query, limit).await.into_iter().map(|job| job.job_id).collect();
        ids.sort_unstable();
        ids
    };
    wanted.sort_unstable();
    assert_eq!(ids("queue=list", 30).await, wanted);
    assert_eq!(ids("queue=list", 1000).await, wanted);
    assert_eq!(ids("queue=list&jobType=even", 40).await.len(), 125);
    assert_eq!(ids("queue=list&key=k1", 7).await.len(), 50);
    assert_eq!(ids("queue=list&key=k1&jobType=even", 7).await.len(), 25);
    assert_eq!(ids("queue=list&status=completed", 10).await.len(), 0);
    assert_eq!(ids("jobType=even", 1000).await.len(), 126);

    let claims = client.claim("list", "w", 20, 0).await;
    for job in &claims.jobs[..10] {
        client.complete("list", &job.lease, "null").await;
    }
    assert_eq!(ids("queue=list&status=completed", 3).await.len(), 10);
    assert_eq!(ids("queue=list&status=running", 3).await.len(), 10);
    assert_eq!(ids("queue=list&status=queued", 100).await.len(), 230);
    client.get(&format!("{JOBS}?queue=list&limit=1001")).await.problem_in(&[400, 422]);
    client.get(&format!("{JOBS}?queue=list&status=sleeping")).await.problem_in(&[400, 422]);
    client.get(&format!("{JOBS}?queue=list&cursor=garbage")).await.problem_in(&[400, 422]);
}

#[tokio::test]
async fn data_and_result_come_back_byte_for_byte_also_after_a_kill() {
    let server = start().await;
    let client = server.client();
    let payloads = [
        r#"{"b":1.0,"a":1e400,"a":  2}"#,
        r#"[1.10,-0.0,123456789012345678901234567890,0.1e-7]"#,
        "\"\\u00e9\u{e9}\\/\\ud83d\\ude00\"",
        "{ \"spaces\" :\t[ ] ,\n\"n\":null}",
        "true",
    ];
    let mut ids = Vec::new();
    for payload in payloads {
        let body = format!(r#"{{"jobType":"echo","data":{payload},"options":{{"queue":"echo"}}}}"#);
        ids.push(client.submit(body).await.job_id);
    }
    let server = server.kill().await.start().await;
    let client = server.client();
    let claims = client.claim("echo", "w", 10, 0).await;
    assert_eq!(claims.jobs.len(), payloads.len());
    for (job, payload) in claims.jobs.iter().zip(payloads) {
        assert_eq!(job.data.get(), payload);
        assert_eq!(client.complete("echo", &job.lease, payload).await, "ok");
    }
    let server = server.kill().await.start().await;
    for (id, payload) in ids.iter().zip(payloads) {
        let job = server.client().job(id).await;
        assert_eq!(job.status, "completed");
        assert_eq!(job.result.expect("a result").get(), payload);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_with_429_and_says_when_to_come_back() {
    let server = builder().await.env("TIDEGATE_QUEUE_JOBS_MAX", "3").start().await;
    let client = server.client();
    for n in 0..3 {
        client.enqueue("small", "a", json!(n)).await;
    }
    let reply = client.try_submit(json!({"jobType": "a", "data": 4, "options": {"queue": "small"}})).await;
    assert_eq!(reply.problem(429)["code"], "queue_full");
    client.enqueue("another", "a", json!(1)).await;
    let item = json!({"jobType": "a", "data": 5, "options": {"queue": "small"}});
    let batch = client.post(JOBS, json!({"jobs": [item]})).await;
    if batch.status == 202 {
        assert!(!batch.value()["jobs"][0]["error"].is_null(), "{}", batch.text());
    } else {
        batch.problem(429);
    }
    let claimed = client.claim_one("small", "w").await;
    client.complete("small", &claimed.lease, "1").await;
    client.enqueue("small", "a", json!(6)).await;
}

#[tokio::test]
async fn events_of_a_job_are_streamed_until_its_end() {
    let server = start().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    let mut events = client.events(&format!("{JOB}/{}/events", job.job_id)).await;
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(client.progress("default", &claimed.lease, 0.5, Some("half")).await, "ok");
    assert_eq!(client.complete("default", &claimed.lease, "42").await, "ok");
    let mut seen = Vec::new();
    while let Some(event) = events.next(Duration::from_secs(30)).await {
        seen.push(event.data);
    }
    let last: Value = serde_json::from_str(seen.last().expect("events came")).expect("data are JSON");
    assert_eq!(last["status"], "completed", "{seen:?}");
    assert!(seen.iter().any(|data| data.contains("0.5")), "progress is told: {seen:?}");

    let mut late = client.events(&format!("{JOB}/{}/events", job.job_id)).await;
    let only = late.next(Duration::from_secs(30)).await.expect("the end is told to late listeners");
    assert!(only.data.contains("completed"), "{only:?}");
    assert_eq!(late.next(Duration::from_secs(30)).await, None);
    client.get(&format!("{JOB}/0198c0de-0000-7000-8000-000000000000/events")).await.problem(404);
}

#[tokio::test]
async fn a_paused_queue_hands_out_nothing_until_it_is_resumed() {
    let server = start().await;
    let client = server.client();
    client.enqueue("mail", "a", json!(1)).await;
    client.post("/api/queues/mail/pause", json!({})).await.expect(200);
    assert_eq!(client.get("/api/queues/mail").await.expect(200).value()["paused"], true);
    assert!(client.claim("mail", "w", 1, 0).await.jobs.is_empty());
    client.enqueue("mail", "a", json!(2)).await;
    let waiting = tokio::spawn({
        let client = server.client();
        async move { client.claim("mail", "w", 10, 20_000).await }
    });
    client.post("/api/queues/mail/resume", json!({})).await.expect(200);
    assert!(!waiting.await.expect("no panic").jobs.is_empty());
    let queues = client.get("/api/queues").await.expect(200);
    assert!(queues.text().contains("\"mail\""), "{}", queues.text());
}

#[tokio::test]
async fn a_purge_removes_what_it_names_and_counts_it() {
    let server = start().await;
    let client = server.client();
    for n in 0..5 {
        client.enqueue("purge", "a", json!(n)).await;
    }
    let claimed = client.claim_one("purge", "w").await;
    client.fail("purge", &claimed.lease, "no", json!({"retry": false})).await;
    let reply = client.delete("/api/queues/purge/jobs?status=failed").await.expect(200);
    assert!(reply.value().as_object().is_some_and(|data| data.values().any(|count| *count == 1)), "{}", reply.text());
    let reply = client.delete("/api/queues/purge/jobs?status=queued").await.expect(200);
    assert!(reply.value().as_object().is_some_and(|data| data.values().any(|count| *count == 4)), "{}", reply.text());
    assert!(client.jobs("queue=purge").await.jobs.is_empty());
    assert!(client.claim("purge", "w", 10, 0).await.jobs.is_empty());
}

#[tokio::test]
async fn counts_of_a_queue_follow_its_jobs() {
    let server = start().await;
    let client = server.client();
    for n in 0..6 {
        client.enqueue("counts", "a", json!(n)).await;
    }
    client.submit(json!({"jobType": "a", "data": 1, "options": {"queue": "counts", "delay": 600_000}})).await;
    let claims = client.claim("counts", "w", 3, 0).await;
    client.complete("counts", &claims.jobs[0].lease, "1").await;
    client.fail("counts", &claims.jobs[1].lease, "x", json!({"retry": false})).await;
    let queue = client.get("/api/queues/counts").await.expect(200).value();
    for (state, count) in [("queued", 3), ("scheduled", 1), ("running", 1), ("completed", 1), ("failed", 1)] {
        let found = [&queue[state], &queue["counts"][state], &queue["jobs"][state]];
        assert!(found.iter().any(|number| **number == count), "{state} should be {count}: {queue}");
    }
}
