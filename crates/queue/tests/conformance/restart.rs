//! Stopping and starting again.

use tidegate_queue::{Config, JobFilter, NewJob, Outcome, Retry, State, Worker};

use super::{LEASE, Opening, World, job, kinds, secs, with};

pub async fn everything_accepted_is_there_after_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let full =
        NewJob { expires_in: Some(secs(1000)), ..job("full").priority(3).key("k").dedup_key("d").delay(secs(5)) };
    let id = world.push(full).await;
    world.push(job("plain")).await;
    let before = world.queue.jobs(JobFilter { limit: 10, ..JobFilter::default() }).await.unwrap();
    world.restart().await;
    assert_eq!(world.queue.jobs(JobFilter { limit: 10, ..JobFilter::default() }).await.unwrap(), before);
    assert!(world.queue.push(job("again").dedup_key("d")).await.unwrap().duplicate);
    world.clock.advance(secs(5));
    assert_eq!(kinds(&world.claim(5).await), ["full", "plain"]);
    assert_eq!(world.state(&id).await, State::Running);
}

pub async fn a_remote_worker_keeps_its_lease_over_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, with(|queue| queue.key_limit = Some(1))).await;
    let id = world.push(job("k").key("a").delay(secs(1))).await;
    world.push(job("next").key("a").delay(secs(1))).await;
    world.clock.advance(secs(1));
    let lease = world.one().await.lease;
    world.clock.advance(LEASE / 2);
    world.restart().await;
    assert_eq!(world.state(&id).await, State::Running);
    assert!(world.claim(1).await.is_empty(), "its key is still at the limit");
    world.clock.advance(LEASE / 2);
    assert!(
        world.queue.beat(&Worker::remote("w"), &[lease]).await.unwrap().stale.is_empty(),
        "a full lease from the start"
    );
    assert_eq!(world.complete(lease).await, Outcome::Ok);
    assert_eq!(kinds(&world.claim(1).await), ["next"]);
}

pub async fn a_local_worker_does_not(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    world.push(job("k")).await;
    let lease = world.claim_as(Worker::local("w"), 1).await[0].lease;
    world.restart().await;
    let again = world.one().await;
    assert_eq!(again.attempt, 2, "rescued at once");
    assert_eq!(world.complete(lease).await, Outcome::Stale);
}

pub async fn a_lease_of_before_a_restart_is_stale_once_rescued(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    world.push(job("k")).await;
    let old = world.one().await.lease;
    world.restart().await;
    world.pass(LEASE).await;
    let new = world.one().await.lease;
    assert_eq!(world.complete(old).await, Outcome::Stale);
    world.restart().await;
    assert_eq!(world.complete(old).await, Outcome::Stale);
    assert_eq!(world.complete(new).await, Outcome::Ok);
}

pub async fn attempts_are_counted_over_restarts(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let id = world.push(job("k").max_attempts(3)).await;
    world.one().await;
    world.restart().await;
    world.pass(LEASE).await;
    world.restart().await;
    assert_eq!(world.one().await.attempt, 2);
    let lease = {
        world.pass(LEASE).await;
        world.one().await.lease
    };
    world.restart().await;
    world.fail(lease, Retry::Backoff).await;
    assert_eq!(world.state(&id).await, State::Discarded);
}

pub async fn pause_and_cancel_survive_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    world.queues.cancel(&id.parse().unwrap()).await.unwrap();
    world.queue.pause().await.unwrap();
    world.restart().await;
    let beat = world.queue.beat(&Worker::remote("w"), &[lease]).await.unwrap();
    assert_eq!((beat.cancelled, beat.paused), (vec![lease], true));
    world.pass(LEASE).await;
    world.pass(LEASE).await;
    assert_eq!(world.state(&id).await, State::Cancelled);
}

pub async fn a_job_retried_by_hand_holds_its_dedup_key_over_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let first = world.push(job("k").dedup_key("d")).await;
    world.queues.cancel(&first.parse().unwrap()).await.unwrap();
    world.push(NewJob { dedup_window: Some(secs(5)), ..job("k").dedup_key("d") }).await;
    world.pass(secs(5)).await;
    world.queues.retry(&first.parse().unwrap()).await.unwrap();
    world.restart().await;
    let again = world.queue.push(job("k").dedup_key("d")).await.unwrap();
    assert_eq!((again.id.to_string(), again.duplicate), (first, true), "not the younger one, whose window is over");
}

pub async fn numbers_are_never_used_again(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let first = world.push(job("k")).await;
    world.queue.purge(State::Available).await.unwrap();
    world.restart().await;
    assert_ne!(world.push(job("k")).await, first);
}

pub async fn the_dead_letter_set_survives_a_restart(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let id = world.push(job("k").max_attempts(1)).await;
    let lease = world.one().await.lease;
    world.fail(lease, Retry::Backoff).await;
    world.restart().await;
    let dead = world.queues.job(&id.parse().unwrap()).await.unwrap();
    assert_eq!((dead.state, dead.error.as_deref(), dead.attempt), (State::Discarded, Some("no luck"), 1));
    world.queues.retry(&id.parse().unwrap()).await.unwrap();
    world.restart().await;
    assert_eq!((world.one().await.attempt, world.state(&id).await), (1, State::Running));
}

pub async fn a_start_that_forgot_others_uses_none_of_their_numbers(open: impl Fn(Config) -> Opening + 'static) {
    // Two histories that know nothing of each other, as before and after a backup was put back.
    let mut world = World::new(open, |_| {}).await;
    let first = world.push(job("k")).await;
    let lease = world.one().await.lease;
    world.clock.advance(secs(1));
    world.restart().await;
    world.switch("q2").await;
    let second = world.push(job("k")).await;
    let number = |id: &str| id.rsplit_once('-').map(|(_, hex)| u64::from_str_radix(hex, 16).unwrap()).unwrap();
    assert!(number(&second) > number(&first) + 1000, "numbers start above those of any earlier second");
    let number_of_grant = |lease: tidegate_queue::Lease| lease.to_string().rsplit_once('.').unwrap().1.to_owned();
    assert_ne!(number_of_grant(world.one().await.lease), number_of_grant(lease));
}
