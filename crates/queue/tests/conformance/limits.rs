//! Every growth has a bound.

use std::time::Duration;

use tidegate_queue::{Claim, Config, Error, Idempotency, NewJob, Overflow, QueueName, Rejected, Retry, State, Worker};

use super::{Opening, World, job, kinds, secs, with};

pub async fn a_full_queue_says_so_and_when_to_come_back(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.jobs_max = 2)).await;
    world.push(job("a")).await;
    world.push(job("b").delay(secs(60))).await;
    match world.queue.push(job("c")).await {
        Err(Error::Rejected(Rejected::Full { depth: 2, capacity: 2, retry_after })) => {
            assert!((secs(1)..=secs(60)).contains(&retry_after));
        }
        other => panic!("{other:?}"),
    }
    let lease = world.one().await.lease;
    assert!(world.queue.push(job("c")).await.is_err(), "a running job is live");
    world.complete(lease).await;
    world.push(job("c")).await;
}

pub async fn bytes_are_bounded_too(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.bytes_max = 1000)).await;
    world.push(NewJob::new("k", vec![b'x'; 600])).await;
    let refused = world.queue.push(NewJob::new("k", vec![b'x'; 600])).await;
    assert!(
        matches!(refused, Err(Error::Rejected(Rejected::FullBytes { bytes: 601, capacity: 1000, .. }))),
        "{refused:?}"
    );
    let lease = world.one().await.lease;
    world.complete(lease).await;
    world.push(NewJob::new("k", vec![b'x'; 600])).await;
}

pub async fn the_oldest_gives_way_by_policy(open: impl Fn(Config) -> Opening + 'static) {
    let tune = with(|queue| (queue.jobs_max, queue.overflow) = (3, Overflow::DropOldest));
    let world = World::new(open, tune).await;
    let first = world.push(job("a")).await;
    world.push(job("b")).await;
    world.push(job("urgent").priority(1)).await;
    world.push(job("c")).await;
    let shed = world.queues.job(&first.parse().unwrap()).await.unwrap();
    assert_eq!(shed.state, State::Discarded);
    assert!(shed.error.unwrap().starts_with("shed"));
    assert!(world.queue.push(job("lowest").priority(200)).await.is_err(), "nothing less urgent is there to go");
    assert_eq!(kinds(&world.claim(10).await), ["urgent", "b", "c"]);
    assert!(world.queue.push(job("d")).await.is_err(), "running jobs are never dropped");
}

pub async fn the_newest_gives_way_by_policy(open: impl Fn(Config) -> Opening + 'static) {
    let tune = with(|queue| (queue.jobs_max, queue.overflow) = (2, Overflow::DropNewest));
    let world = World::new(open, tune).await;
    for kind in ["a", "b", "c"] {
        world.push(job(kind)).await;
    }
    assert_eq!(kinds(&world.claim(10).await), ["a", "c"]);
}

pub async fn a_retry_that_does_not_fit_loses_nobody(open: impl Fn(Config) -> Opening + 'static) {
    let tune = with(|queue| (queue.bytes_max, queue.overflow) = (100, Overflow::DropOldest));
    let world = World::new(open, tune).await;
    let large = world.push(NewJob::new("k", vec![b'x'; 80])).await.parse().unwrap();
    world.queues.cancel(&large).await.unwrap();
    world.push(NewJob::new("k", vec![b'x'; 40]).priority(200)).await;
    world.push(NewJob::new("k", vec![b'x'; 40]).priority(0)).await;
    let refused = world.queues.retry(&large).await;
    assert!(matches!(refused, Err(Error::Rejected(Rejected::FullBytes { .. }))), "{refused:?}");
    let counts = world.queue.stats().await.unwrap().counts;
    assert_eq!(
        (counts.of(State::Available), counts.of(State::Discarded)),
        (1, 1),
        "what went is among the dead letters"
    );
    assert_eq!(world.claim(10).await.len(), 1);
}

pub async fn finished_jobs_are_bounded_beside_cancelled_ones(open: impl Fn(Config) -> Opening + 'static) {
    let tune = with(|queue| (queue.finished_max, queue.finished_bytes_max) = (5, 4000));
    let world = World::new(open, tune).await;
    let id = world.push(job("k")).await.parse().unwrap();
    world.queues.cancel(&id).await.unwrap();
    let finished = async || {
        let counts = world.queue.stats().await.unwrap().counts;
        State::ALL.iter().filter(|state| state.is_finished()).map(|state| counts.of(*state)).sum::<u64>()
    };
    for large in [false, true] {
        for _ in 0..12 {
            world.push(NewJob::new("k", if large { vec![b'x'; 1500] } else { vec![b'x'] })).await;
            let lease = world.one().await.lease;
            world.complete(lease).await;
        }
        assert!(finished().await <= if large { 3 } else { 5 }, "{} are kept", finished().await);
    }
}

pub async fn finished_jobs_are_kept_for_their_retention(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let kept = world.push(NewJob { retention: secs(60), ..job("kept") }).await;
    let gone = world.push(NewJob { retention: Duration::ZERO, ..job("gone") }).await;
    for claimed in world.claim(2).await {
        world.complete(claimed.lease).await;
    }
    assert!(matches!(world.queues.job(&gone.parse().unwrap()).await, Err(Error::JobNotFound { .. })));
    world.pass(secs(60) - Duration::from_millis(1)).await;
    assert_eq!(world.state(&kept).await, State::Completed);
    world.pass(Duration::from_millis(1)).await;
    assert!(matches!(world.queues.job(&kept.parse().unwrap()).await, Err(Error::JobNotFound { .. })));
}

pub async fn too_many_finished_push_out_completed_before_dead_letters(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.finished_max = 3)).await;
    let dead = world.push(job("dead")).await;
    let lease = world.one().await.lease;
    world.fail(lease, Retry::Never).await;
    let mut done = Vec::new();
    for _ in 0..5 {
        done.push(world.push(job("k")).await);
        let lease = world.one().await.lease;
        world.complete(lease).await;
    }
    let counts = world.queue.stats().await.unwrap().counts;
    assert_eq!((counts.of(State::Completed), counts.of(State::Discarded)), (2, 1));
    assert_eq!(world.state(&dead).await, State::Discarded);
    assert_eq!(world.state(&done[4]).await, State::Completed);
    assert!(world.queues.job(&done[2].parse().unwrap()).await.is_err());
}

pub async fn paused_queues_hand_out_nothing(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.push(job("k")).await;
    world.queue.pause().await.unwrap();
    assert!(world.claim(1).await.is_empty());
    world.push(job("k")).await;
    let beat = world.queue.beat(&tidegate_queue::Worker::remote("w"), &[]).await.unwrap();
    assert!(beat.paused && world.queue.stats().await.unwrap().paused);
    world.queue.resume().await.unwrap();
    assert_eq!(world.claim(5).await.len(), 2);
}

pub async fn a_purge_deletes_one_state_and_counts(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let many: Vec<NewJob> = (0..1234).map(|_| job("k").key("a").dedup_key("d")).collect();
    world.queue.push_many(many, None).await.unwrap();
    let many: Vec<NewJob> = (0..1234).map(|_| job("k").key("a")).collect();
    world.queue.push_many(many, None).await.unwrap();
    let running = world.one().await;
    assert!(matches!(world.queue.purge(State::Running).await, Err(Error::Invalid { field: "status", .. })));
    assert_eq!(world.queue.purge(State::Available).await.unwrap(), 1234);
    assert_eq!(world.queue.purge(State::Available).await.unwrap(), 0);
    world.complete(running.lease).await;
    assert_eq!(world.queue.purge(State::Completed).await.unwrap(), 1);
    let stats = world.queue.stats().await.unwrap();
    assert_eq!((stats.counts.live(), stats.bytes), (0, 0));
    assert!(!world.queue.push(job("k").dedup_key("d")).await.unwrap().duplicate);
}

pub async fn there_are_only_so_many_queues(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.queues_max = 2).await;
    world.queues.queue(&QueueName::new("second").unwrap()).await.unwrap();
    let third = world.queues.queue(&QueueName::new("third").unwrap()).await;
    assert!(matches!(third, Err(Error::TooManyQueues { capacity: 2 })));
    assert!(world.queues.queue(&QueueName::new("q").unwrap()).await.is_ok());
    assert_eq!(world.queues.list().await.unwrap().len(), 2);
}

pub async fn history_is_bounded(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| (config.history_max, config.history_age) = (10, secs(60))).await;
    for _ in 0..30 {
        world.push(job("k")).await;
    }
    let log = world.queue.history(0, 1000).await.unwrap();
    assert_eq!((log.len(), log.last().unwrap().place), (10, 30));
    world.pass(secs(60)).await;
    assert!(world.queue.history(0, 1000).await.unwrap().is_empty());
}

pub async fn a_claim_hands_out_only_so_many_bytes(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let large = bytes::Bytes::from(vec![b'x'; 12 << 20]);
    for _ in 0..3 {
        world.push(NewJob::new("k", large.clone())).await;
    }
    assert_eq!(world.claim(10).await.len(), 2, "the third would make it more than 32 MiB");
    assert_eq!(world.claim(10).await.len(), 1);
}

pub async fn a_claim_cut_by_its_bytes_does_not_put_the_next_to_sleep(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let large = bytes::Bytes::from(vec![b'x'; 12 << 20]);
    for _ in 0..3 {
        world.push(NewJob::new("k", large.clone())).await;
    }
    for expected in [2, 1] {
        let claim = Claim { worker: Worker::remote("w"), limit: 10, wait: secs(30) };
        let claimed = tokio::time::timeout(secs(20), world.queue.claim(claim)).await.expect("at once").unwrap();
        assert_eq!(claimed.len(), expected);
    }
}

pub async fn idempotency_keys_are_bounded_by_their_jobs_too(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |config| config.idempotency_max = 3).await;
    let submit = async |key: &str, count: usize| {
        let jobs: Vec<NewJob> = (0..count).map(|_| job("k")).collect();
        let idempotency = Idempotency { key: key.into(), fingerprint: 1 };
        world.queue.push_many(jobs, Some(idempotency)).await.unwrap()
    };
    let (first, second) = (submit("first", 20).await, submit("second", 11).await);
    assert_eq!(submit("second", 11).await, second);
    assert_ne!(submit("first", 20).await, first, "31 jobs were one too many for the older key");
    let third = submit("third", 1).await;
    submit("fourth", 1).await;
    submit("fifth", 1).await;
    assert_eq!(submit("third", 1).await, third);
}

pub async fn all_queues_together_are_bounded(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |config| config.jobs_max = 3).await;
    world.push(job("k")).await;
    world.restart().await;
    world.switch("other").await;
    for _ in 0..2 {
        world.push(job("k")).await;
    }
    let refused = world.queue.push(job("k")).await;
    assert!(matches!(refused, Err(Error::Rejected(Rejected::Full { depth: 3, capacity: 3, .. }))), "{refused:?}");
    let lease = world.one().await.lease;
    world.complete(lease).await;
    world.push(job("k")).await;
}
