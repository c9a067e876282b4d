//! Workers of servers that share a Redis: killed with their hands full, cancelled from another server, left alone by
//! Redis for a while.
//!
//! `TIDEGATE_CANCELS=200` makes the measured cancels as many; a few otherwise.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_test_redis::{Fsync, Persistence, Server as Redis};
use tidegate_tests::{Builder, Client, Process, Server, Worked, comparing_job, endless_job, eventually, within};

/// Far above anything that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of most tests here; short, so that they are.
const LEASE: Duration = Duration::from_secs(2);

const JOB: &str = "/api/performance/async/job";

fn on(redis: &Redis) -> Builder {
    Server::builder().redis(&redis.url()).env("TIDEGATE_LEASE", "2s")
}

/// Two servers on a Redis of their own.
async fn pair() -> (Redis, Server, Server) {
    let redis = Redis::start().await;
    let (first, second) = (on(&redis).start().await, on(&redis).start().await);
    (redis, first, second)
}

/// A worker process at this server that wants 100 jobs.
fn worker(server: &Server) -> Process {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_soak_worker"));
    command.args([&server.address().to_string(), "default", "100"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Process::start(command)
}

#[tokio::test]
async fn a_hundred_jobs_of_a_killed_worker_are_restarted_by_a_process_at_another_server_in_lease_and_a_second() {
    for its_server_dies_too in [false, true] {
        let (_redis, here, there) = pair().await;
        let jobs: Vec<Value> = (0..100).map(|n| json!({"jobType": "a", "data": n})).collect();
        here.client().submit_all(&jobs).await;
        let mut doomed = worker(&here);
        doomed.line("holds 100", PATIENCE).await.expect("it runs");
        let mut heir = worker(&there);
        eventually("the heir waits", PATIENCE, || async {
            (there.client().get("/api/queues/default").await.value()["waitingClaims"] == 1).then_some(())
        })
        .await;
        let last = doomed.said().lines().filter(|line| line.contains("beats")).count() + 2;
        doomed.line(&format!("beats {last}"), PATIENCE).await.expect("it beats");

        let killed = Instant::now();
        doomed.kill().await;
        if its_server_dies_too {
            here.kill().await;
        }
        heir.line("holds 100", PATIENCE).await.expect("it runs");
        let taken = killed.elapsed();
        println!("its server dies too: {its_server_dies_too}; all restarted after {taken:?}, lease {LEASE:?}");
        assert!(taken <= LEASE + Duration::from_secs(1), "restarted after {taken:?}, lease {LEASE:?}");
        let view = there.client().get("/api/queues/default").await.value();
        assert_eq!((&view["counts"]["running"], &view["counts"]["queued"]), (&json!(100), &json!(0)), "{view}");
    }
}

/// Enough to see that they arrive; the benchmark of the queue measures how long they take.
const CANCELS: usize = 8;

/// Prints the distribution.
fn told(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what}: {} cancels, p50 {:?}, p99 {:?}, longest {:?}", times.len(), at(50), at(99), at(100));
}

#[tokio::test]
async fn a_cancel_here_is_told_by_the_next_beat_there() {
    let (_redis, here, there) = pair().await;
    let mut times = Vec::new();
    for n in 0..CANCELS {
        let job = here.client().enqueue("default", "a", json!(n)).await;
        let claimed = there.client().claim_one("default", "w").await;
        let began = Instant::now();
        assert_eq!(here.client().cancel(&job.job_id).await, "cancelling");
        let told = there.client().beat("default", "w", &[&claimed.lease]).await;
        times.push(began.elapsed());
        assert_eq!(told["cancelled"], json!([claimed.lease]));
        assert_eq!(there.client().fail("default", &claimed.lease, "as told", json!({})).await, "ok");
    }
    told("HTTP worker, cancel to the answer of the next beat", &mut times);
}

/// How many handlers this server runs.
async fn at_work(server: &Server) -> f64 {
    let metrics = server.client().get("/metrics").await.expect(200);
    let values = metrics.text().lines().filter(|line| line.starts_with("tidegate_scheduler_active_runs"));
    values.filter_map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok())).sum()
}

/// A built-in job that goes on for long, at work, and the server that does not run it.
async fn running_elsewhere<'a>(here: &'a Server, there: &'a Server, job: &Value) -> (String, &'a Server) {
    let job = here.client().submit(job.clone()).await.job_id;
    let view = here.client().job_at_work(&job).await;
    assert_eq!(view.status, "running");
    // The run before may still be leaving the other one.
    let other = eventually("one of the two runs it", PATIENCE, || async {
        match (at_work(here).await > 0.0, at_work(there).await > 0.0) {
            (true, false) => Some(there),
            (false, true) => Some(here),
            _ => None,
        }
    })
    .await;
    (job, other)
}

#[tokio::test]
async fn a_built_in_job_stops_when_it_is_cancelled_at_a_server_that_does_not_run_it() {
    let (_redis, here, there) = pair().await;
    let endless = endless_job();
    let mut times = Vec::new();
    for _ in 0..CANCELS {
        let (job, other) = running_elsewhere(&here, &there, &endless).await;
        let client = other.client();
        let mut events = client.events(&format!("{JOB}/{job}/events")).await;
        events.next(PATIENCE).await.expect("its state");
        let began = Instant::now();
        assert_eq!(client.cancel(&job).await, "cancelling");
        let mut last = String::new();
        while let Some(event) = events.next(PATIENCE).await {
            last = event.data;
        }
        times.push(began.elapsed());
        assert!(last.contains("cancelled"), "{last}");
    }
    told("built-in handler, cancel to the event of its end at the other server", &mut times);
}

#[tokio::test]
async fn with_messages_cut_a_cancel_takes_a_beat_at_most() {
    let redis = Redis::start().await;
    // The defaults: a lease of 10 s, a beat every 2 s.
    let builder = Server::builder().redis(&redis.url());
    let (here, there) = (builder.start().await, builder.start().await);
    let endless = endless_job();
    let cut = async {
        loop {
            // Subscriptions come back at once, and are cut again.
            redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let cancel = async {
        let mut times = Vec::new();
        for _ in 0..CANCELS.min(20) / 2 {
            let (job, other) = running_elsewhere(&here, &there, &endless).await;
            let began = Instant::now();
            other.client().cancel(&job).await;
            assert_eq!(other.client().job_in(&job, &["cancelled", "failed", "completed"]).await.status, "cancelled");
            times.push(began.elapsed());
        }
        told("built-in handler, messages cut", &mut times);
        // One beat, and a second for a busy machine to do what it says.
        assert!(times.iter().all(|time| *time <= Duration::from_secs(3)), "{times:?}");
    };
    tokio::select! {
        () = cut => {}
        () = cancel => {}
    }
}

/// Works at one server, whatever happens to it, until told to stop; tells each job's accepted completions.
async fn work(client: Client, accepted: Arc<Mutex<BTreeMap<String, u32>>>, stop: tokio::sync::watch::Receiver<bool>) {
    while !*stop.borrow() {
        let claim = json!({"worker": "w", "limit": 3, "waitMs": 500});
        let claim = client.call("POST", "/api/queues/default/claim").json(claim).attempt().await;
        let Some(claims) = claim.ok().filter(|reply| reply.status == 200) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        for job in claims.data::<tidegate_tests::Claims>().jobs {
            // The handler; then its end is told until somebody answers.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let body = json!({"results": [{"lease": job.lease, "result": 1}]});
            let outcome = eventually("the end of a handler is answered", PATIENCE, || async {
                let call = client.call("POST", "/api/queues/default/complete").json(body.clone());
                let reply = call.attempt().await.ok().filter(|reply| reply.status == 200)?;
                reply.data::<Worked>().outcomes.pop()
            })
            .await;
            match outcome.as_str() {
                "ok" => *accepted.lock().expect("no panic").entry(job.job_id).or_default() += 1,
                other => assert_eq!(other, "stale"),
            }
        }
    }
}

#[tokio::test]
async fn when_redis_was_gone_for_long_workers_go_on_by_themselves_and_nothing_is_lost_or_done_twice() {
    let redis = Redis::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
    let (here, there) = (on(&redis).start().await, on(&redis).start().await);
    let batch = |from: u32| (from..from + 40).map(|n| json!({"jobType": "a", "data": n})).collect::<Vec<_>>();
    let mut jobs = here.client().submit_all(&batch(0)).await;
    let computing = here.client().submit(comparing_job(20_000)).await;
    here.client().job_at_work(&computing.job_id).await;

    let accepted: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let workers: Vec<_> = [&here, &there, &here, &there]
        .map(|server| tokio::spawn(work(server.client(), Arc::clone(&accepted), stopped.clone())))
        .into_iter()
        .collect();
    eventually("work has begun", PATIENCE, || async { (accepted.lock().expect("no panic").len() > 4).then_some(()) })
        .await;
    redis.kill();
    // Six leases: what is to be seen is what comes after a long outage.
    tokio::time::sleep(LEASE * 6).await;
    redis.restart().await;

    let back = Instant::now();
    let more = eventually("a submission is accepted", PATIENCE, || async {
        let call = there.client();
        let call = call.call("POST", "/api/performance/async/jobs").header("idempotency-key", "more");
        let reply = call.json(json!({"jobs": batch(40)})).attempt().await.ok()?;
        (reply.status == 202).then(|| reply.value()["jobs"].clone())
    })
    .await;
    println!("a submission was accepted {:?} after Redis was back", back.elapsed());
    for server in [&here, &there] {
        let client = server.client();
        eventually("each server serves again", PATIENCE, || async {
            (client.get("/api/queues/default").await.status == 200).then_some(())
        })
        .await;
    }
    println!("both servers served {:?} after Redis was back", back.elapsed());
    jobs.extend(serde_json::from_value::<Vec<_>>(more).expect("one answer per job"));
    for job in &jobs {
        assert_eq!(here.client().job_in(&job.job_id, &["completed", "failed"]).await.status, "completed");
    }
    let computed = here.client().job_in(&computing.job_id, &["completed", "failed"]).await;
    assert_eq!(computed.status, "completed", "{computed:?}");
    stop.send_replace(true);
    for worker in workers {
        within("workers end", PATIENCE, worker).await.expect("no panic");
    }
    let accepted = std::mem::take(&mut *accepted.lock().expect("no panic"));
    assert!(accepted.values().all(|times| *times == 1), "{accepted:?}");
    let counts = here.client().get("/api/queues/default").await.value()["counts"].clone();
    assert_eq!((&counts["completed"], &counts["running"]), (&json!(80), &json!(0)), "{counts}");
}
