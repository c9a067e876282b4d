//! Redis gone, frozen, full; and a server told to stop meanwhile.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tidegate_test_redis::{Fsync, Persistence, Proxy, Server as Redis};
use tidegate_tests::{Server, endless_job, eventually, within};

use super::{PATIENCE, on, ready_is, works};

const JOB: &str = "/api/performance/async/job";

/// A Redis that has everything again after a `kill -9`.
async fn durable() -> Redis {
    Redis::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await
}

#[tokio::test]
async fn while_redis_is_gone_callers_are_told_when_to_come_back_and_then_everything_works_again() {
    let redis = durable().await;
    let server = on(&redis).start().await;
    assert!(server.banner().contains("(redis, durability: everysec)"), "{}", server.banner());
    let client = server.client();
    let waits = client.enqueue("default", "a", json!(1)).await;
    let mut events = client.events(&format!("{JOB}/{}/events", waits.job_id)).await;
    assert!(events.next(PATIENCE).await.expect("its state").data.contains("queued"));
    redis.kill();

    ready_is(&server, 503).await;
    let problem = client.get("/readyz").await.problem(503);
    assert_eq!(problem["code"], "redis_unavailable", "{problem}");
    assert_eq!(client.get("/livez").await.status, 200);
    for reply in [
        client.try_submit(json!({"jobType": "a", "data": 2})).await,
        client.claim_reply("default").await,
        client.job_reply(&waits.job_id).await,
        client.get("/api/queues").await,
    ] {
        assert_eq!(reply.problem(503)["code"], "redis_unavailable");
    }
    within("figures come without Redis", PATIENCE, client.get("/metrics")).await.expect(200);
    within("the page comes without Redis", PATIENCE, client.get("/")).await.expect(200);

    redis.restart().await;
    ready_is(&server, 200).await;
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(claimed.job_id, waits.job_id);
    assert_eq!(client.complete("default", &claimed.lease, "1").await, "ok");
    let mut last = String::new();
    while let Some(event) = events.next(PATIENCE).await {
        last = event.data;
    }
    assert!(last.contains("completed"), "the stream went on: {last}");
    works(&server).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_told_as_such_and_repeating_the_call_is_safe() {
    let redis = Redis::start().await;
    let server = on(&redis).env("REDIS_POOL_ACQUIRE_TIMEOUT", "1000").start().await;
    let client = server.client();
    client.enqueue("default", "a", json!(1)).await;
    let submit =
        || client.call("POST", JOB).header("idempotency-key", "k").json(json!({"jobType": "a", "data": 2})).send();
    redis.pause();
    let reply = within("a frozen Redis holds nobody up for long", PATIENCE, submit()).await;
    let problem = reply.problem(503);
    assert_eq!(problem["code"], "redis_outcome_unknown", "{problem}");
    assert!(problem["detail"].as_str().expect("a detail").contains("Idempotency-Key"), "{problem}");
    within("probes are answered", Duration::from_secs(10), client.get("/livez")).await.expect(200);
    within("probes are answered", Duration::from_secs(10), client.get("/readyz")).await;
    redis.resume();
    ready_is(&server, 200).await;
    submit().await.expect(202);
    assert_eq!(client.claim("default", "w", 10, 0).await.jobs.len(), 2, "one job for one key");
}

#[tokio::test]
async fn a_connection_cut_again_and_again_loses_and_doubles_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.addr());
    let server = Server::builder().redis(&redis.url_through(&proxy)).start().await;
    let client = server.client();
    for n in 0..40 {
        if n % 2 == 0 {
            proxy.kill_all();
        }
        let body = json!({"jobType": "a", "data": n});
        eventually("the job is accepted", PATIENCE, || async {
            let call = client.call("POST", JOB).header("idempotency-key", &format!("k{n}")).json(body.clone());
            (call.send().await.status == 202).then_some(())
        })
        .await;
    }
    let mut data: Vec<u32> = Vec::new();
    while data.len() < 40 {
        let claims = client.claim("default", "w", 100, 5000).await;
        assert!(!claims.jobs.is_empty(), "{} of 40 came", data.len());
        data.extend(claims.jobs.iter().map(|job| job.data.get().parse::<u32>().expect("a number")));
    }
    data.sort_unstable();
    assert_eq!(data, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_redis_refuses_new_jobs_and_still_takes_completions() {
    let redis = Redis::start().await;
    let server = on(&redis).env("TIDEGATE_LEASE", "60s").start().await;
    let client = server.client();
    for n in 0..5 {
        client.enqueue("default", "a", json!(n)).await;
    }
    let mut claimed = client.claim("default", "w", 2, 0).await.jobs;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let reply = client.try_submit(json!({"jobType": "a", "data": "x".repeat(5000)})).await;
    assert_eq!(reply.problem(503)["code"], "redis_out_of_memory");
    let many = json!({"jobs": [{"jobType": "a", "data": 1}, {"jobType": "a", "data": 2}]});
    let reply = client.post("/api/performance/async/jobs", many).await;
    assert_eq!(reply.problem(503)["code"], "redis_out_of_memory");
    assert_eq!(client.get("/readyz").await.status, 200, "work goes on");

    claimed.append(&mut client.claim("default", "w", 10, 0).await.jobs);
    assert_eq!(claimed.len(), 5, "what is there can be claimed");
    let leases: Vec<&str> = claimed.iter().map(|job| job.lease.as_str()).collect();
    assert_eq!(client.beat("default", "w", &leases).await["stale"], json!([]));
    for job in &claimed {
        assert_eq!(client.complete("default", &job.lease, "1").await, "ok");
        assert_eq!(client.job(&job.job_id).await.status, "completed");
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    works(&server).await;
}

#[tokio::test]
async fn a_server_told_to_stop_while_redis_is_gone_keeps_its_deadline() {
    for frozen in [false, true] {
        let redis = durable().await;
        let mut server = on(&redis).env("TIDEGATE_DRAIN_TIMEOUT", "3s").start().await;
        let client = server.client();
        let job = client.submit(endless_job()).await;
        client.job_at_work(&job.job_id).await;
        let waiting: Vec<_> = (0..5)
            .map(|n| {
                let client = server.client();
                tokio::spawn(async move {
                    let body = json!({"worker": format!("w{n}"), "limit": 1, "waitMs": 30_000});
                    let _ = client.call("POST", "/api/queues/empty/claim").json(body).attempt().await;
                })
            })
            .collect();
        match frozen {
            true => redis.pause(),
            false => {
                redis.kill();
                ready_is(&server, 503).await;
            }
        }
        server.process().signal(Signal::TERM);
        // Twice the deadline: what hangs on Redis hangs longer.
        let status = server.process().wait(Duration::from_secs(6)).await;
        assert_eq!(status.code(), Some(0), "frozen: {frozen}; it said:\n{}", server.process().said());
        for claim in waiting {
            claim.await.expect("no panic");
        }
        if frozen {
            redis.resume();
        } else {
            redis.restart().await;
        }
        let again = server.rebuilder().start().await;
        let job = again.client().job_in(&job.job_id, &["queued", "running"]).await;
        assert!(job.finished_at.is_none());
        again.kill().await;
    }
}
