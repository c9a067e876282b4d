//! Schedules with real queues: each instant once, however many processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::time::Duration;

use common::{Bench, until_stats};
use tidegate_queue::{Clock, JobFilter, NewJob, State};
use tidegate_scheduler::{Context, Cron, Error, HandlerError, Missed, Scheduler};

async fn start(bench: &Bench) -> Scheduler {
    bench
        .scheduler(bench.config())
        .handle("tick", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
        .start()
        .await
        .unwrap()
}

async fn jobs(bench: &Bench) -> Vec<tidegate_queue::Job> {
    bench.queue.jobs(JobFilter { limit: 1000, ..JobFilter::default() }).await.unwrap().jobs
}

#[tokio::test]
async fn two_schedulers_fire_each_instant_once_although_its_job_is_long_done() {
    let bench = Bench::new().await;
    let (one, two) = (start(&bench).await, start(&bench).await);
    let cron = || Cron::new("every-second", "* * * * * *", bench.name.clone(), NewJob::new("tick", ""));
    one.cron(cron()).await.unwrap();
    two.cron(cron()).await.unwrap();
    until_stats(&one, |stats| stats.schedules[0].fired >= 2).await;
    until_stats(&two, |stats| stats.schedules[0].fired >= 2).await;
    one.remove_cron("every-second");
    two.remove_cron("every-second");
    let mut instants: Vec<_> = jobs(&bench).await.into_iter().filter_map(|job| job.dedup_key).collect();
    let fires = instants.len();
    instants.sort();
    instants.dedup();
    assert_eq!(instants.len(), fires, "an instant fired twice: {instants:?}");
    assert!(fires >= 2, "{instants:?}");
    assert!(instants.iter().all(|key| key.starts_with("cron:every-second:") && key.ends_with("000")), "{instants:?}");
}

#[tokio::test]
async fn a_missed_instant_is_caught_up_once_by_all_starts_together() {
    let (bench, _clock) = Bench::with_clock().await;
    let daily =
        |name: &str, missed| Cron::new(name, "0 3 * * *", bench.name.clone(), NewJob::new("tick", "")).missed(missed);
    let within = Missed::FireOnce(Duration::from_secs(23 * 3600));
    for start_no in 1..=3u64 {
        let scheduler = start(&bench).await;
        scheduler.cron(daily("caught-up", within)).await.unwrap();
        scheduler.cron(daily("skipped", Missed::Skip)).await.unwrap();
        let stats = until_stats(&scheduler, |stats| stats.schedules[0].fired == 1).await;
        assert_eq!((&*stats.schedules[1].name, stats.schedules[1].fired), ("skipped", 0), "start {start_no}");
        let next = stats.schedules[1].next.unwrap().since(bench.clock.now());
        assert!(next <= Duration::from_secs(86_400), "{next:?}");
        scheduler.drain(Duration::from_secs(5)).await;
    }
    assert_eq!(jobs(&bench).await.len(), 1);
}

#[tokio::test]
async fn bad_schedules_are_refused_when_they_are_made() {
    let bench = Bench::new().await;
    let scheduler = start(&bench).await;
    let cron = |expression: &str| Cron::new("x", expression, bench.name.clone(), NewJob::new("tick", ""));
    assert!(matches!(scheduler.cron(cron("every day")).await, Err(Error::BadCron { .. })));
    let nowhere = cron("@daily").timezone("Nowhere/Land");
    assert!(matches!(scheduler.cron(nowhere).await, Err(Error::BadTimezone { .. })));
    assert!(scheduler.stats().schedules.is_empty());
    assert!(!scheduler.remove_cron("x"));
}

#[tokio::test]
async fn a_fire_that_is_refused_is_pushed_when_there_is_room_again() {
    let limits = tidegate_queue::QueueConfig { jobs_max: 1, ..tidegate_queue::QueueConfig::default() };
    let config = tidegate_queue::Config { default: limits, clock: Clock::System, ..tidegate_queue::Config::default() };
    let bench = Bench::open(config).await;
    bench.queue.pause().await.unwrap();
    let blocker = bench.queue.push(NewJob::new("tick", "")).await.unwrap().id;
    let scheduler = start(&bench).await;
    scheduler.cron(Cron::new("often", "* * * * * *", bench.name.clone(), NewJob::new("tick", ""))).await.unwrap();
    // The first is replaced by the next while the queue is full.
    until_stats(&scheduler, |stats| stats.schedules[0].missed >= 1).await;
    assert_eq!(scheduler.stats().schedules[0].fired, 0);
    bench.queues.cancel(&blocker).await.unwrap();
    until_stats(&scheduler, |stats| stats.schedules[0].fired == 1).await;
    assert_eq!(bench.queue.stats().await.unwrap().counts.of(State::Available), 1);
}
