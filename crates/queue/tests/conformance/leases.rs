//! The right to run a job, and how it ends.

use std::time::Duration;

use tidegate_queue::{Claim, Config, Error, Finish, NewJob, Outcome, Progress, Queue, Queues, Retry, State, Worker};

use super::{LEASE, Opening, World, ids, job, kinds, secs};

const TICK: Duration = Duration::from_millis(1);

pub async fn a_lease_is_good_once(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    assert_eq!(world.complete(lease).await, Outcome::Ok);
    assert_eq!(world.complete(lease).await, Outcome::Stale);
    assert_eq!(world.fail(lease, Retry::Never).await, Outcome::Stale);
    assert_eq!(world.state(&id).await, State::Completed);
}

pub async fn a_lease_named_twice_in_one_call_ends_its_job_once(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    let finish = |result: &'static str| Finish::Complete { lease, result: Some(result.into()) };
    let outcomes = world.queue.finish(vec![finish("first"), finish("second")]).await.unwrap();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Stale]);
    let done = world.queues.job(&id.parse().unwrap()).await.unwrap();
    assert_eq!(done.result.as_deref(), Some(&b"first"[..]));
    assert_eq!(world.queue.stats().await.unwrap().counts.live(), 0);
}

pub async fn a_lease_of_another_queue_opens_nothing(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let mine = world.push(job("k")).await;
    world.one().await;
    world.switch("other").await;
    world.push(job("k")).await;
    let theirs = world.one().await.lease;
    world.switch("q").await;
    assert_eq!(world.complete(theirs).await, Outcome::Stale);
    assert_eq!(world.queue.beat(&Worker::remote("w"), &[theirs]).await.unwrap().stale, [theirs]);
    assert_eq!(world.state(&mine).await, State::Running);
}

pub async fn an_expired_lease_is_rescued_at_its_old_place(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let first = world.push(job("first")).await;
    world.push(job("second")).await;
    let old = world.one().await;
    world.clock.advance(LEASE - TICK);
    assert_eq!(world.queue.beat(&Worker::remote("x"), &[]).await.unwrap().lease, LEASE);
    assert_eq!(kinds(&world.claim(1).await), ["second"], "not a moment before it expires");
    world.clock.advance(TICK);
    assert_eq!(world.complete(old.lease).await, Outcome::Stale, "expired is stale, rescued or not");
    let again = world.one().await;
    assert_eq!((again.id.to_string(), again.attempt), (first, 2));
    assert_eq!(world.complete(old.lease).await, Outcome::Stale);
    assert_eq!(world.complete(again.lease).await, Outcome::Ok);
}

pub async fn a_beat_keeps_a_job_for_as_long_as_it_takes(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.push(job("k")).await;
    let (lease, worker) = (world.one().await.lease, Worker::remote("w"));
    for _ in 0..20 {
        world.pass(LEASE / 2).await;
        let beat = world.queue.beat(&worker, &[lease]).await.unwrap();
        assert!(beat.stale.is_empty() && beat.cancelled.is_empty());
        assert!(world.claim(1).await.is_empty(), "nobody else gets it");
    }
    assert_eq!(world.complete(lease).await, Outcome::Ok);
}

pub async fn a_job_that_kills_its_workers_runs_out_of_attempts(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("poison").max_attempts(3)).await;
    for attempt in 1..=3 {
        assert_eq!(world.one().await.attempt, attempt);
        world.pass(LEASE).await;
    }
    assert!(world.claim(1).await.is_empty());
    let dead = world.queues.job(&id.parse().unwrap()).await.unwrap();
    assert_eq!(dead.state, State::Discarded);
    assert!(dead.error.unwrap().contains("attempt 3 of 3"));
}

pub async fn an_attempt_past_its_deadline_is_told_and_then_failed(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let quick = job("k").timeout(secs(15)).backoff(Duration::ZERO, Duration::ZERO).max_attempts(2);
    let id = world.push(quick).await;
    let (first, worker) = (world.one().await, Worker::remote("w"));
    assert_eq!(first.deadline_at, world.clock.now().after(secs(15)));
    world.pass(secs(8)).await;
    assert!(world.queue.beat(&worker, &[first.lease]).await.unwrap().cancelled.is_empty());
    world.pass(secs(8)).await;
    assert_eq!(world.queue.beat(&worker, &[first.lease]).await.unwrap().cancelled, [first.lease], "told to stop");
    world.pass(secs(9)).await;
    assert_eq!(
        world.queue.beat(&worker, &[first.lease]).await.unwrap().stale,
        [first.lease],
        "beating on does not help"
    );
    let second = world.one().await;
    assert_eq!(second.attempt, 2);
    assert!(world.queues.job(&id.parse().unwrap()).await.unwrap().error.unwrap().contains("timed out after 15000 ms"));
}

pub async fn a_released_job_keeps_its_attempt_and_its_place(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for kind in ["a", "b", "c"] {
        world.push(job(kind)).await;
    }
    let claimed = world.claim(2).await;
    for job in &claimed {
        assert_eq!(world.finish(Finish::Release { lease: job.lease }).await, Outcome::Ok);
    }
    let again = world.claim(3).await;
    assert_eq!(kinds(&again), ["a", "b", "c"]);
    assert!(again.iter().all(|job| job.attempt == 1));
    assert_eq!(world.complete(claimed[0].lease).await, Outcome::Stale, "a lease is never granted twice");
}

pub async fn a_failed_job_waits_between_zero_and_its_backoff(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let id = world.push(job("k").backoff(secs(1), secs(300)).max_attempts(9)).await;
        let lease = world.one().await.lease;
        world.fail(lease, Retry::Backoff).await;
        let failed = world.queues.job(&id.parse().unwrap()).await.unwrap();
        assert_eq!((failed.state, failed.error.as_deref()), (State::Retryable, Some("no luck")));
        let wait = failed.run_at.unwrap().since(world.clock.now());
        assert!(wait <= secs(1));
        seen.insert(wait);
        world.queues.cancel(&id.parse().unwrap()).await.unwrap();
    }
    assert!(seen.len() > 20, "waits are spread out: {seen:?}");
}

pub async fn retry_in_is_exact(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.push(job("k")).await;
    let lease = world.one().await.lease;
    world.fail(lease, Retry::In(secs(7))).await;
    world.pass(secs(7) - TICK).await;
    assert!(world.claim(1).await.is_empty());
    world.pass(TICK).await;
    assert_eq!(world.one().await.attempt, 2);
}

pub async fn a_failure_for_good_is_discarded(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let never = world.push(job("never")).await;
    let last = world.push(job("last").max_attempts(1)).await;
    let claimed = world.claim(2).await;
    world.fail(claimed[0].lease, Retry::Never).await;
    world.fail(claimed[1].lease, Retry::Backoff).await;
    assert_eq!((world.state(&never).await, world.state(&last).await), (State::Discarded, State::Discarded));
}

pub async fn cancelling_a_running_job_reaches_its_worker(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    let told = world.queues.cancel(&id.parse().unwrap()).await.unwrap();
    assert_eq!((told.state, told.cancelling), (State::Running, true));
    assert_eq!(world.queue.beat(&Worker::remote("w"), &[lease]).await.unwrap().cancelled, [lease]);
    // However the worker stops, and even when it just dies, the job ends as cancelled and is not tried again.
    assert_eq!(world.fail(lease, Retry::Backoff).await, Outcome::Ok);
    assert_eq!(world.state(&id).await, State::Cancelled);
    let dies = world.push(job("dies")).await;
    world.one().await;
    world.queues.cancel(&dies.parse().unwrap()).await.unwrap();
    world.pass(LEASE).await;
    assert_eq!(world.state(&dies).await, State::Cancelled);
}

pub async fn a_cancel_is_answered_although_nothing_is_kept(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("k").retention(Duration::ZERO)).await.parse().unwrap();
    assert_eq!(world.queues.cancel(&id).await.unwrap().state, State::Cancelled);
    assert!(matches!(world.queues.cancel(&id).await, Err(Error::JobNotFound { .. })));
}

pub async fn a_cancelled_job_that_completes_is_completed(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    world.queues.cancel(&id.parse().unwrap()).await.unwrap();
    assert_eq!(world.complete(lease).await, Outcome::Ok);
    let done = world.queues.job(&id.parse().unwrap()).await.unwrap();
    assert_eq!((done.state, done.cancelling), (State::Completed, false));
}

pub async fn progress_is_seen_and_clamped(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    for (reported, shown) in [(0.25, 0.25), (7.0, 1.0), (-1.0, 0.0), (f64::NAN, 0.0)] {
        let update = Progress { lease, progress: reported, note: Some("half way".into()) };
        assert_eq!(world.queue.progress(vec![update]).await.unwrap(), [Outcome::Ok]);
        let job = world.queues.job(&id.parse().unwrap()).await.unwrap();
        assert_eq!((job.progress, job.progress_note.as_deref()), (Some(shown), Some("half way")));
    }
    world.complete(lease).await;
    let late = Progress { lease, progress: 0.5, note: None };
    assert_eq!(world.queue.progress(vec![late]).await.unwrap(), [Outcome::Stale]);
}

pub async fn setting_the_clock_neither_ends_nor_stretches_a_lease(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for hour in [3_600_000, -3_600_000] {
        world.push(job("k").max_attempts(1)).await;
        let lease = world.one().await.lease;
        world.clock.advance(LEASE - TICK);
        world.clock.step(hour);
        assert!(world.queue.beat(&Worker::remote("w"), &[lease]).await.unwrap().stale.is_empty());
        world.pass(LEASE).await;
        assert_eq!(world.complete(lease).await, Outcome::Stale, "and not a moment longer");
    }
}

pub async fn a_waiting_claim_wakes_for_a_job(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let claims: Vec<_> = (0..3)
        .map(|_| {
            let queue = Queue::clone(&world.queue);
            tokio::spawn(
                async move { queue.claim(Claim { worker: Worker::remote("w"), limit: 1, wait: secs(30) }).await },
            )
        })
        .collect();
    while world.queue.stats().await.unwrap().waiting_claims < 3 {
        tokio::task::yield_now().await;
    }
    let many: Vec<NewJob> = (0..3).map(|_| job("k")).collect();
    world.queue.push_many(many, None).await.unwrap();
    for claim in claims {
        assert_eq!(claim.await.unwrap().unwrap().len(), 1);
    }
    assert_eq!(world.queue.stats().await.unwrap().waiting_claims, 0);
}

pub async fn a_dropped_claim_leaves_nothing_behind(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let claim = Claim { worker: Worker::remote("w"), limit: 10, wait: secs(30) };
    let waiting = tokio::spawn({
        let (queue, claim) = (Queue::clone(&world.queue), claim.clone());
        async move { queue.claim(claim).await }
    });
    while world.queue.stats().await.unwrap().waiting_claims < 1 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    world.push(NewJob::new("large", vec![7; 100_000])).await;
    // Polled once, a claim of a payload that must be read is still on its way when it is dropped.
    let mut dropped = 0;
    for _ in 0..20 {
        let mut reading = Box::pin(world.queue.claim(claim.clone()));
        match futures_poll_once(&mut reading).await {
            None => dropped += 1,
            Some(ready) => _ = world.finish(Finish::Release { lease: ready.unwrap()[0].lease }).await,
        }
    }
    assert!(dropped > 0, "reading was quicker than asking, every time");
    let claimed = world.claim(10).await;
    assert_eq!((claimed.len(), claimed[0].attempt), (1, 1));
}

/// Polls a future once.
async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    use std::task::Poll;
    std::future::poll_fn(|context| {
        Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

pub async fn draining_answers_waiting_claims(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let claim = Claim { worker: Worker::remote("w"), limit: 1, wait: secs(3600) };
    let queues = Queues::clone(&world.queues);
    let (claimed, ()) = tokio::join!(world.queue.claim(claim.clone()), async move {
        tokio::task::yield_now().await;
        queues.drain();
    });
    assert!(claimed.unwrap().is_empty());
    world.push(job("k")).await;
    let left = world.queue.claim(claim).await.unwrap();
    assert_eq!(left.len(), 1, "what is there is still handed out");
    assert_eq!(ids(&left).len(), 1);
    let bad = Claim { worker: Worker::remote(""), limit: 1, wait: Duration::ZERO };
    assert!(matches!(world.queue.claim(bad).await, Err(Error::Invalid { field: "worker", .. })));
}
