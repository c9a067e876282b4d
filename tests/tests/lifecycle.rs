//! Start, health and idleness of a server with the embedded store; drain and restart are in `journeys/lifecycle.rs`.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{Server, run, within};

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
