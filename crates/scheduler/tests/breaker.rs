//! The circuit breaker with real jobs: it saves attempts, holds back only its own kind, and lets go again.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{Bench, until_stats};
use tidegate_queue::{NewJob, State};
use tidegate_scheduler::{BreakerConfig, BreakerState, Builder, Config, Context, HandlerError};

const MS: Duration = Duration::from_millis(1);

fn config(bench: &Bench, open: Duration) -> Config {
    let breaker = BreakerConfig { consecutive: 3, open, open_max: open, ..BreakerConfig::default() };
    Config { breaker, ..bench.config() }
}

/// `mail` fails until `up`; `other` always works.
fn handlers(builder: Builder, up: &Arc<AtomicBool>) -> Builder {
    let up = Arc::clone(up);
    builder
        .handle("mail", move |_: Context, (): ()| {
            let up = up.load(SeqCst);
            async move { if up { Ok(()) } else { Err(HandlerError::retry("connection refused")) } }
        })
        .handle("other", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
}

async fn trip(bench: &Bench) {
    let job = || NewJob::new("mail", "").max_attempts(1);
    for _ in 0..3 {
        let id = bench.queue.push(job()).await.expect("room").id;
        bench.until(&id, State::Discarded).await;
    }
}

#[tokio::test]
async fn jobs_of_an_open_kind_wait_without_costing_attempts_and_run_when_it_closes() {
    let bench = Bench::new().await;
    let up = Arc::new(AtomicBool::new(false));
    let scheduler = handlers(bench.scheduler(config(&bench, 200 * MS)), &up).start().await.unwrap();
    trip(&bench).await;
    assert_eq!(scheduler.stats().kinds[0].breaker, BreakerState::Open);
    let jobs = vec![NewJob::new("mail", "").max_attempts(1); 20];
    let pushed = bench.queue.push_many(jobs, None).await.unwrap();
    // The probes of meanwhile may fail; those waiting behind it must not.
    up.store(true, SeqCst);
    for pushed in pushed {
        let job = bench.until(&pushed.unwrap().id, State::Completed).await;
        assert_eq!(job.attempt, 1);
    }
    let stats = until_stats(&scheduler, |stats| stats.pools[0].leases == 0).await;
    assert_eq!((stats.kinds[0].breaker, stats.pools[0].held), (BreakerState::Closed, 0));
}

#[tokio::test]
async fn an_open_kind_does_not_hold_up_the_others_nor_spin() {
    let bench = Bench::new().await;
    let up = Arc::new(AtomicBool::new(false));
    let scheduler = handlers(bench.scheduler(config(&bench, Duration::from_secs(3600))), &up).start().await.unwrap();
    trip(&bench).await;
    bench.queue.push_many(vec![NewJob::new("mail", ""); 50], None).await.unwrap();
    let other = bench.queue.push(NewJob::new("other", "").priority(200)).await.unwrap().id;
    bench.until(&other, State::Completed).await;
    let stats = until_stats(&scheduler, |stats| stats.pools[0].held == 50).await;
    assert_eq!((stats.kinds[0].runs.count, stats.pools[0].released), (3, 0));
    let report = scheduler.drain(Duration::from_secs(5)).await;
    assert_eq!((report.handed_back, report.stuck), (50, 0));
    assert_eq!(bench.queue.stats().await.unwrap().counts.of(State::Available), 50);
}

#[tokio::test]
async fn beyond_the_bound_jobs_are_put_off_and_a_last_attempt_is_never_wasted() {
    let bench = Bench::new().await;
    let up = Arc::new(AtomicBool::new(false));
    let config = Config { held_max: 2, ..config(&bench, Duration::from_secs(3600)) };
    let scheduler = handlers(bench.scheduler(config), &up).start().await.unwrap();
    trip(&bench).await;
    let hold = bench.queue.push_many(vec![NewJob::new("mail", ""); 2], None).await.unwrap();
    until_stats(&scheduler, |stats| stats.pools[0].held == 2).await;
    let spare = bench.queue.push(NewJob::new("mail", "")).await.unwrap().id;
    let job = bench.until(&spare, State::Retryable).await;
    assert_eq!(job.error.as_deref(), Some(r#"circuit breaker of kind "mail" is open"#));
    let last = bench.queue.push(NewJob::new("mail", "").max_attempts(1)).await.unwrap().id;
    let job = bench.until(&last, State::Discarded).await;
    assert_eq!(job.error.as_deref(), Some("connection refused"), "it was tried");
    assert_eq!(scheduler.stats().kinds[0].deferred, 1);
    // A held job can be cancelled like any running one.
    let held = &hold[0].as_ref().unwrap().id;
    bench.queues.cancel(held).await.unwrap();
    bench.until(held, State::Cancelled).await;
}

#[tokio::test]
async fn a_held_job_goes_back_before_its_own_timeout() {
    let bench = Bench::new().await;
    let up = Arc::new(AtomicBool::new(false));
    let scheduler = handlers(bench.scheduler(config(&bench, Duration::from_secs(3600))), &up).start().await.unwrap();
    trip(&bench).await;
    bench.queue.push(NewJob::new("mail", "").timeout(400 * MS)).await.unwrap();
    let stats = until_stats(&scheduler, |stats| stats.pools[0].released >= 2).await;
    assert_eq!((stats.kinds[0].runs.count, stats.kinds[0].timeouts), (3, 0));
}
