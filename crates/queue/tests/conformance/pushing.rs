//! What goes in.

use std::time::Duration;

use tidegate_queue::{Config, Error, Finish, Idempotency, NewJob, Rejected, State, UnixMillis};

use super::{Opening, World, ids, job, kinds, secs};

pub async fn a_job_comes_back_byte_for_byte(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let data = r#"{"b": 1.0,"a":1e400 , "a":"\u00e9"}"#;
    let id = world.push(NewJob::new("k", data).key("customer")).await;
    let claimed = world.one().await;
    assert_eq!(claimed.data, data.as_bytes());
    assert_eq!(claimed.key.as_deref(), Some("customer"));
    assert_eq!((claimed.attempt, claimed.max_attempts), (1, 4));
    let result = Some(bytes::Bytes::from_static(b"[ 1.50 ]"));
    world.finish(Finish::Complete { lease: claimed.lease, result: result.clone() }).await;
    let done = world.queues.job(&id.parse().unwrap()).await.unwrap();
    assert_eq!((done.state, done.result, done.data.as_deref()), (State::Completed, result, Some(data.as_bytes())));
    assert!(done.started_at.is_some() && done.finished_at.is_some());
}

pub async fn large_payloads_and_results_come_back_byte_for_byte(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let large = bytes::Bytes::from((0..300_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let id = world.push(NewJob::new("k", large.clone())).await;
    let retried = world.one().await;
    assert_eq!(retried.data, large);
    world.fail(retried.lease, tidegate_queue::Retry::In(Duration::ZERO)).await;
    world.restart().await;
    let claimed = world.one().await;
    assert_eq!(claimed.data, large);
    world.finish(Finish::Complete { lease: claimed.lease, result: Some(large.clone()) }).await;
    let done = world.queues.job(&id.parse().unwrap()).await.unwrap();
    assert_eq!((done.data, done.result), (Some(large.clone()), Some(large)));
}

pub async fn more_urgent_jobs_run_first_and_equals_in_order(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for (kind, priority) in [("c", 100), ("e", 255), ("a", 0), ("d", 100), ("b", 1)] {
        world.push(job(kind).priority(priority)).await;
    }
    assert_eq!(kinds(&world.claim(10).await), ["a", "b", "c", "d", "e"]);
}

pub async fn a_delayed_job_waits_for_its_time(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("later").delay(secs(60))).await;
    world.push(job("now")).await;
    assert_eq!(world.state(&id).await, State::Scheduled);
    let now = world.claim(10).await;
    assert_eq!(kinds(&now), ["now"]);
    world.complete(now[0].lease).await;
    world.clock.advance(secs(60) - Duration::from_millis(1));
    assert!(world.claim(10).await.is_empty());
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(kinds(&world.claim(10).await), ["later"]);
}

pub async fn the_later_of_run_at_and_delay_counts(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let past = UnixMillis(world.clock.now().0 - 1000);
    assert_eq!(world.queue.push(NewJob { run_at: Some(past), ..job("past") }).await.unwrap().state, State::Available);
    let soon = NewJob { run_at: Some(world.clock.now().after(secs(5))), delay: secs(2), ..job("soon") };
    let pushed = world.queue.push(soon).await.unwrap();
    let run_at = world.queues.job(&pushed.id).await.unwrap().run_at;
    assert_eq!(run_at, Some(world.clock.now().after(secs(5))));
}

pub async fn a_job_that_does_not_start_in_time_expires(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let short = || NewJob { expires_in: Some(secs(5)), ..job("short") };
    let (late, started) = (world.push(short()).await, world.one());
    // Started in time: expiry no longer concerns it, not even when it comes back.
    let started = started.await;
    assert_eq!(started.id.to_string(), late);
    let waiting = world.push(short()).await;
    world.pass(secs(5)).await;
    assert!(world.claim(10).await.is_empty(), "an expired job is never handed out");
    let expired = world.queues.job(&waiting.parse().unwrap()).await.unwrap();
    assert_eq!(expired.state, State::Discarded);
    assert!(expired.error.unwrap().contains("expired"));
    assert_eq!(world.state(&late).await, State::Running);
    let never = NewJob { expires_in: Some(secs(5)), delay: secs(6), ..job("never") };
    assert!(matches!(world.queue.push(never).await, Err(Error::Rejected(Rejected::Expired))));
}

pub async fn a_live_duplicate_is_answered_with_the_first(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let first = world.push(job("k").dedup_key("d")).await;
    let again = world.queue.push(job("k").dedup_key("d")).await.unwrap();
    assert_eq!((again.id.to_string(), again.duplicate), (first.clone(), true));
    let claimed = world.one().await;
    assert!(world.queue.push(job("k").dedup_key("d")).await.unwrap().duplicate, "a running job is live");
    world.complete(claimed.lease).await;
    let next = world.queue.push(job("k").dedup_key("d")).await.unwrap();
    assert!(!next.duplicate && next.id.to_string() != first);
}

pub async fn a_dedup_window_ends_before_the_job_does(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let windowed = || NewJob { dedup_window: Some(secs(5)), ..job("k").dedup_key("d") };
    world.push(windowed()).await;
    world.pass(secs(5) - Duration::from_millis(1)).await;
    assert!(world.queue.push(windowed()).await.unwrap().duplicate);
    world.pass(Duration::from_millis(1)).await;
    assert!(!world.queue.push(windowed()).await.unwrap().duplicate);
}

pub async fn a_repeated_submission_answers_with_the_first(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let once = |fingerprint| Some(Idempotency { key: "order-7".into(), fingerprint });
    let two = || vec![job("a"), job("b").delay(secs(1))];
    let first = world.queue.push_many(two(), once(1)).await.unwrap();
    assert_eq!(world.queue.push_many(two(), once(1)).await.unwrap(), first);
    assert!(matches!(world.queue.push_many(two(), once(2)).await, Err(Error::IdempotencyMismatch)));
    world.restart().await;
    assert_eq!(world.queue.push_many(two(), once(1)).await.unwrap(), first, "remembered over a restart");
    assert_eq!(world.queue.stats().await.unwrap().counts.live(), 2);
    world.pass(secs(86_400)).await;
    assert_ne!(world.queue.push_many(two(), once(2)).await.unwrap(), first, "forgotten after a day");
}

pub async fn values_out_of_range_are_refused_by_name(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.payload_max = 1000).await;
    let day = secs(86_400);
    let long = "x".repeat(513);
    let bad = [
        ("jobType", NewJob::new("", "{}")),
        ("jobType", NewJob::new("k".repeat(201), "{}")),
        ("data", NewJob::new("k", "x".repeat(1001))),
        ("key", job("k").key(long.as_str())),
        ("key", job("k").key("")),
        ("dedupKey", job("k").dedup_key(long.as_str())),
        ("dedupWindow", NewJob { dedup_window: Some(day), ..job("k") }),
        ("dedupWindow", NewJob { dedup_window: Some(Duration::ZERO), ..job("k").dedup_key("d") }),
        ("delay", job("k").delay(day * 4000)),
        ("runAt", NewJob { run_at: Some(UnixMillis(i64::MAX)), ..job("k") }),
        ("expiresIn", NewJob { expires_in: Some(Duration::ZERO), ..job("k") }),
        ("timeout", job("k").timeout(Duration::ZERO)),
        ("timeout", job("k").timeout(day * 31)),
        ("retention", NewJob { retention: day * 366, ..job("k") }),
        ("maxAttempts", job("k").max_attempts(0)),
        ("maxAttempts", job("k").max_attempts(1001)),
        ("backoff.cap", job("k").backoff(secs(1), day * 8)),
        ("backoff.base", job("k").backoff(secs(2), secs(1))),
    ];
    for (field, job) in bad {
        match world.queue.push(job).await {
            Err(Error::Rejected(Rejected::Invalid { field: named, .. })) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(world.queue.stats().await.unwrap().counts.live(), 0);
}

pub async fn many_are_judged_each_on_its_own(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let many = vec![job("a"), job("bad").max_attempts(0), job("c")];
    let answers = world.queue.push_many(many, None).await.unwrap();
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok());
    let claimed = world.claim(10).await;
    assert_eq!(kinds(&claimed), ["a", "c"]);
    assert_eq!(ids(&claimed)[0], answers[0].as_ref().unwrap().id.to_string());
}
