//! Looking at jobs, numbers and the log.

use tidegate_queue::{Change, Config, Error, JobFilter, NewJob, Retry, State};

use super::{Opening, World, job, secs};

pub async fn a_list_pages_through_a_state(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut pushed = Vec::new();
    for _ in 0..25 {
        pushed.push(world.push(job("k")).await);
    }
    for claimed in world.claim(5).await {
        world.complete(claimed.lease).await;
    }
    for (state, expected) in
        [(Some(State::Available), &pushed[5..]), (Some(State::Completed), &pushed[..5]), (None, &pushed[..])]
    {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let filter = JobFilter { state, after, limit: 7, ..JobFilter::default() };
            let page = world.queue.jobs(filter).await.unwrap();
            assert!(page.jobs.len() <= 7);
            listed.extend(page.jobs.iter().map(|job| job.id.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected);
    }
    for limit in [0, 1001] {
        let filter = JobFilter { limit, ..JobFilter::default() };
        assert!(matches!(world.queue.jobs(filter).await, Err(Error::Invalid { field: "limit", .. })));
    }
}

pub async fn a_list_filters_by_kind_and_key(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.push(job("a").key("x")).await;
    world.push(job("b").key("x")).await;
    world.push(job("a")).await;
    let lease = world.one().await.lease;
    world.complete(lease).await;
    let count = async |kind: Option<&str>, key: Option<&str>| {
        let filter =
            JobFilter { kind: kind.map(Into::into), key: key.map(Into::into), limit: 10, ..JobFilter::default() };
        world.queue.jobs(filter).await.unwrap().jobs.len()
    };
    assert_eq!(count(Some("a"), None).await, 2);
    assert_eq!(count(None, Some("x")).await, 2);
    assert_eq!(count(Some("a"), Some("x")).await, 1);
    assert_eq!(count(Some("c"), None).await, 0);
}

pub async fn the_log_can_be_replayed(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let id = world.push(job("k").max_attempts(2)).await;
    let lease = world.one().await.lease;
    world.fail(lease, Retry::In(secs(1))).await;
    world.pass(secs(1)).await;
    let lease = world.one().await.lease;
    world.complete(lease).await;
    world.restart().await;
    let log = world.queue.history(0, 100).await.unwrap();
    assert!(log.iter().all(|entry| entry.id.to_string() == id));
    let changes: Vec<_> = log.iter().map(|entry| (entry.place, entry.attempt, entry.change.clone())).collect();
    let expected = [
        (1, 0, Change::Enqueued),
        (2, 1, Change::Claimed),
        (3, 1, Change::Retrying),
        (4, 1, Change::Promoted),
        (5, 2, Change::Claimed),
        (6, 2, Change::Completed),
    ];
    assert_eq!(changes, expected);
    let tail = world.queue.history(4, 1).await.unwrap();
    assert_eq!((tail.len(), tail[0].place), (1, 5));
    world.push(job("k")).await;
    assert_eq!(world.queue.history(6, 10).await.unwrap()[0].place, 7, "places go on after a restart");
}

pub async fn stats_count_every_state(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for _ in 0..6 {
        world.push(job("k")).await;
    }
    world.push(job("k").delay(secs(60))).await;
    let claimed = world.claim(4).await;
    world.complete(claimed[0].lease).await;
    world.fail(claimed[1].lease, Retry::Never).await;
    world.fail(claimed[2].lease, Retry::In(secs(60))).await;
    let waiting = world.push(job("k")).await;
    world.queues.cancel(&waiting.parse().unwrap()).await.unwrap();
    world.clock.advance(secs(3));
    let stats = world.queue.stats().await.unwrap();
    for (state, count) in State::ALL.into_iter().zip([1, 2, 1, 1, 1, 1, 1]) {
        assert_eq!(stats.counts.of(state), count, "{state:?}");
    }
    assert_eq!(stats.oldest_wait, Some(secs(3)));
    assert!((stats.enqueued_per_second - 8.0 / 60.0).abs() < 1e-9);
    assert!((stats.finished_per_second - 3.0 / 60.0).abs() < 1e-9);
    assert_eq!(stats.bytes, 5 * 3);
}

pub async fn subscribers_see_what_happens(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut events = world.queue.subscribe().await.unwrap();
    let id = world.push(job("k")).await;
    let lease = world.one().await.lease;
    let update = tidegate_queue::Progress { lease, progress: 0.5, note: None };
    world.queue.progress(vec![update]).await.unwrap();
    world.queues.cancel(&id.parse().unwrap()).await.unwrap();
    world.fail(lease, Retry::Never).await;
    let expected = [
        Change::Enqueued,
        Change::Claimed,
        Change::Progress { progress: 0.5, note: None },
        Change::CancelRequested,
        Change::Cancelled,
    ];
    for change in expected {
        let event = events.recv().await.unwrap();
        assert_eq!((event.id.to_string(), event.change), (id.clone(), change));
    }
}

pub async fn a_follower_hears_of_its_job_only(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mine = world.queue.push(job("k").priority(1)).await.unwrap().id;
    world.push(job("other")).await;
    let mut follower = world.queue.follow(&mine).await.unwrap();
    for claimed in world.claim(2).await {
        world.complete(claimed.lease).await;
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&Change::Completed) {
        let event = follower.recv().await.unwrap();
        assert_eq!(event.id, mine);
        heard.push(event.change);
    }
    // In a cluster what happened just before may be heard as well.
    heard.retain(|change| *change != Change::Enqueued);
    assert_eq!(heard, [Change::Claimed, Change::Completed]);
    assert!(follower.try_recv().is_err());
}

pub async fn unknown_jobs_are_not_found(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for id in ["q-1", "other-1", "q-ffffffffffffffff"] {
        let id = id.parse().unwrap();
        assert!(matches!(world.queues.job(&id).await, Err(Error::JobNotFound { .. })));
        assert!(matches!(world.queues.cancel(&id).await, Err(Error::JobNotFound { .. })));
        assert!(matches!(world.queues.retry(&id).await, Err(Error::JobNotFound { .. })));
    }
    assert_eq!(
        world.queue.push(NewJob::new("k", "")).await.unwrap().state,
        State::Available,
        "an empty payload is one"
    );
}
