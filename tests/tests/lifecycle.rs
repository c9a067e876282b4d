//! Start, health, idleness, drain and restart.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_tests::{Server, comparing_job, endless_job, eventually, run, within};

#[tokio::test]
async fn the_ready_line_names_address_backend_and_durability() {
    let server = Server::start().await;
    let line = server.banner();
    assert!(line.starts_with("tidegate listening on http://127.0.0.1:"), "{line}");
    assert!(line.contains("embedded") && line.contains("durability") && line.contains("sync"), "{line}");
}

#[tokio::test]
async fn health_and_documentation_are_served() {
    let server = Server::start().await;
    let client = server.client();
    assert_eq!(client.get("/livez").await.status, 200);
    let ready = client.get("/readyz").await.expect(200);
    assert!(ready.text().contains("embedded") && ready.text().contains("sync"), "{}", ready.text());
    client.enqueue("metered", "a", json!(1)).await;
    let metrics = client.get("/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain"), "{:?}", metrics.headers);
    assert!(metrics.text().contains("# TYPE tidegate_"), "{}", metrics.text());
    assert!(metrics.text().contains("queue=\"metered\""), "{}", metrics.text());
    let json = client.call("GET", "/metrics").header("accept", "application/json").send().await.expect(200);
    let json: Value = serde_json::from_slice(&json.body).expect("JSON");
    assert!(json.to_string().contains("timestamp"), "{json}");
    let api = client.get("/openapi.json").await.expect(200);
    let api: Value = serde_json::from_slice(&api.body).expect("JSON");
    assert!(api["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for path in [
        "/api/performance/async/job",
        "/api/performance/async/jobs",
        "/api/queues/{queue}/claim",
        "/api/queues/{queue}/complete",
        "/readyz",
    ] {
        let plain = |path: &str| {
            path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
        };
        let known = api["paths"].as_object().expect("paths").keys().any(|key| plain(key) == plain(path));
        assert!(known, "{path} is documented");
    }
}

#[tokio::test]
async fn a_drained_server_finishes_its_running_job_and_ends_with_0() {
    let server = Server::start().await;
    let client = server.client();
    let job = client.submit(comparing_job(15_000)).await;
    client.job_at_work(&job.job_id).await;
    let server = server.stop().await.start().await;
    let job = server.client().job(&job.job_id).await;
    assert_eq!((job.status.as_str(), job.attempt), ("completed", 1), "it was finished, not started again");
}

#[tokio::test]
async fn a_draining_server_says_so_and_still_takes_what_workers_finished() {
    let mut server = Server::start().await;
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
    let mut server = Server::builder().env("TIDEGATE_DRAIN_TIMEOUT", "600s").start().await;
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
    let server = Server::builder().env("TIDEGATE_DRAIN_TIMEOUT", "1s").start().await;
    let client = server.client();
    let job = client.submit(endless_job()).await;
    client.job_at_work(&job.job_id).await;
    let server = within("the drain ends at its deadline", Duration::from_secs(30), server.stop()).await.start().await;
    server.client().job_in(&job.job_id, &["queued", "running", "retrying"]).await;
    server.kill().await;
}

#[tokio::test]
async fn a_restart_keeps_jobs_of_every_state() {
    let server = Server::start().await;
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

#[tokio::test]
async fn an_idle_server_uses_no_cpu_and_fires_no_timers() {
    let mut server = Server::start().await;
    let client = server.client();
    // Work has been done, a delayed job and an idle connection wait: this is an idle server, not a fresh one.
    let jobs: Vec<Value> = (0..100).map(|n| json!({"jobType": "a", "data": n})).collect();
    client.submit_all(&jobs).await;
    for job in client.claim("default", "w", 100, 0).await.jobs {
        client.complete("default", &job.lease, "1").await;
    }
    client.submit(json!({"jobType": "a", "data": 1, "options": {"delay": 3_600_000}})).await;
    // Five seconds without a change of anything that moves: then the measured five.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (wakeups, ticks) = (server.process().wakeups(), server.process().cpu_ticks());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (wakeups, ticks) = (server.process().wakeups() - wakeups, server.process().cpu_ticks() - ticks);
    assert!(wakeups <= 10, "{wakeups} wake-ups in 5 s of idleness");
    assert!(ticks <= 2, "{ticks} ticks of 10 ms CPU in 5 s of idleness");
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused_and_the_first_unharmed() {
    let server = Server::start().await;
    let job = server.client().enqueue("default", "a", json!(1)).await;
    let exit = server.rebuilder().refusal().await;
    assert_eq!(exit.code, Some(69), "{}", exit.said());
    let folder = server.rebuilder().data_folder().display().to_string();
    assert!(exit.said().contains(&folder), "the folder is named: {}", exit.said());
    assert_eq!(server.client().claim_one("default", "w").await.job_id, job.job_id);
    within("the first can still be stopped", Duration::from_secs(60), server.stop()).await;
}

#[tokio::test]
async fn the_command_line_explains_itself() {
    let help = run(&["--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    for word in ["serve", "config", "token", "--listen", "--data"] {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
    let version = run(&["--version"], &[]).await;
    assert!(version.stdout.starts_with("tidegate "), "{}", version.said());
    let print = run(&["config", "print", "--origin"], &[("TIDEGATE_LISTEN", "127.0.0.1:7799")]).await;
    assert_eq!(print.code, Some(0), "{}", print.said());
    assert!(print.stdout.contains("127.0.0.1:7799") && print.stdout.contains("TIDEGATE_LISTEN"), "{}", print.stdout);
    assert_eq!(run(&["config", "check"], &[]).await.code, Some(0));
}
