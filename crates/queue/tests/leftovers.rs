//! What has ended and been forgotten leaves nothing in the store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_queue::{
    Claim, Clock, Config, Finish, Idempotency, ManualClock, NewJob, QueueConfig, QueueName, Queues, Retry, State,
    TABLES, UnixMillis, Worker,
};
use tidegate_store::{Error, Store, Table};

fn keys(store: &Store, table: usize) -> usize {
    let mut count = 0;
    let each = |_: &[u8], _: &[u8]| {
        count += 1;
        Ok::<_, Error>(true)
    };
    store.scan(Table(u8::try_from(table).unwrap()), b"", each).unwrap();
    count
}

/// Jobs that end in every way, with large payloads and results, keys and idempotency keys.
async fn live_and_end(queues: &Queues, clock: &ManualClock) {
    let queue = queues.queue(&QueueName::new("q").unwrap()).await.unwrap();
    let large = vec![b'x'; 10_000];
    for round in 0..10 {
        let job =
            NewJob::new("k", large.clone()).max_attempts(2).timeout(Duration::from_secs(5)).key("a").dedup_key("d");
        let jobs = vec![job.clone(), NewJob { dedup_key: None, ..job.clone() }, NewJob { dedup_key: None, ..job }];
        let idempotency = Idempotency { key: format!("i{round}").into(), fingerprint: 1 };
        let pushed = queue.push_many(jobs, Some(idempotency)).await.unwrap();
        let claim = Claim { worker: Worker::remote("w"), limit: 3, wait: Duration::ZERO };
        let claimed = queue.claim(claim.clone()).await.unwrap();
        let result = Some(large.clone().into());
        queue.finish(vec![Finish::Complete { lease: claimed[0].lease, result }]).await.unwrap();
        let error = "no".into();
        queue.finish(vec![Finish::Fail { lease: claimed[1].lease, error, retry: Retry::Never }]).await.unwrap();
        // The third loses its lease, is claimed again, and is called off.
        clock.advance(Duration::from_secs(10));
        queue.upkeep().await.unwrap();
        clock.advance(Duration::from_secs(10));
        let again = queue.claim(claim).await.unwrap();
        queues.cancel(&pushed[2].as_ref().unwrap().id).await.unwrap();
        queue.finish(vec![Finish::Release { lease: again[0].lease }]).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_that_is_forgotten_leaves_no_record_in_any_table() {
    let (store, clock) = (Store::memory(TABLES), ManualClock::new(UnixMillis(1_700_000_000_000)));
    let config = Config { clock: Clock::Manual(clock.clone()), ..Config::default() };
    let queues = Queues::open(store.clone(), config, &Registry::new()).await.unwrap();
    live_and_end(&queues, &clock).await;
    assert!(TABLES.iter().enumerate().filter(|(_, name)| **name != "claims").all(|(table, _)| keys(&store, table) > 0));
    clock.advance(Duration::from_secs(8 * 86_400));
    queues.list().await.unwrap()[0].upkeep().await.unwrap();
    for (table, name) in TABLES.iter().enumerate().filter(|(_, name)| !matches!(**name, "queues" | "history")) {
        assert_eq!(keys(&store, table), 0, "{name}");
    }
    assert!(keys(&store, 4) <= 1, "only what the last look noted");
}

#[tokio::test]
async fn finished_jobs_are_bounded_in_bytes() {
    let (store, clock) = (Store::memory(TABLES), ManualClock::new(UnixMillis(1_700_000_000_000)));
    let default = QueueConfig { finished_bytes_max: 65_000, ..QueueConfig::default() };
    let config = Config { clock: Clock::Manual(clock.clone()), default, ..Config::default() };
    let queues = Queues::open(store.clone(), config, &Registry::new()).await.unwrap();
    live_and_end(&queues, &clock).await;
    let counts = queues.list().await.unwrap()[0].stats().await.unwrap().counts;
    let kept = State::ALL.iter().filter(|state| state.is_finished()).map(|state| counts.of(*state)).sum::<u64>();
    assert!((4..=6).contains(&kept), "each is 10 to 20 KB: {kept}");
}
