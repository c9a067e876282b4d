//! The worker pool: grows, shrinks, drains, costs nothing while idle.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use common::{Bench, LIMIT, until_stats, within};
use tidegate_queue::{NewJob, State};
use tidegate_scheduler::{Config, Context, CpuContext, HandlerError};
use tokio::sync::{Notify, Semaphore};

const MS: Duration = Duration::from_millis(1);

/// A handler that waits for a permit of the gate.
fn gated(
    gate: &Arc<Semaphore>,
) -> impl Fn(Context, ()) -> futures_util::future::BoxFuture<'static, Result<(), HandlerError>> + use<> {
    let gate = Arc::clone(gate);
    move |context, ()| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            tokio::select! {
                permit = gate.acquire() => permit?.forget(),
                () = context.token().cancelled() => return Err(HandlerError::cancelled()),
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn the_pool_grows_with_the_work_to_its_bound_and_shrinks_when_it_is_done() {
    let bench = Bench::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let config = Config { permits_min: 2, permits_max: 8, ..bench.config() };
    let scheduler = bench.scheduler(config).handle("gated", gated(&gate)).start().await.unwrap();
    until_stats(&scheduler, |stats| stats.pools[0].permits == 2).await;
    for _ in 0..20 {
        bench.queue.push(NewJob::new("gated", "")).await.unwrap();
    }
    let stats = until_stats(&scheduler, |stats| stats.active_tokens() == 8).await;
    assert_eq!(stats.pools[0].permits, 8);
    assert_eq!(bench.queue.stats().await.unwrap().counts.of(State::Available), 12);
    gate.add_permits(20);
    until_stats(&scheduler, |stats| stats.kinds[0].runs.count == 20).await;
    until_stats(&scheduler, |stats| stats.active_tokens() == 0 && stats.pools[0].permits == 2).await;
}

#[tokio::test]
async fn one_long_job_does_not_hold_up_short_ones() {
    let bench = Bench::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let scheduler = bench
        .scheduler(bench.config())
        .handle("gated", gated(&gate))
        .handle("short", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
        .start()
        .await
        .unwrap();
    let short = bench.queue.push(NewJob::new("short", "")).await.unwrap().id;
    bench.until(&short, State::Completed).await;
    let jobs = vec![NewJob::new("gated", ""), NewJob::new("short", ""), NewJob::new("short", "")];
    let pushed = bench.queue.push_many(jobs, None).await.unwrap();
    for short in &pushed[1..] {
        bench.until(&short.as_ref().unwrap().id, State::Completed).await;
    }
    assert_eq!(scheduler.stats().active_tokens(), 1);
    gate.add_permits(1);
    bench.until(&pushed[0].as_ref().unwrap().id, State::Completed).await;
}

#[tokio::test]
async fn a_drain_lets_running_jobs_finish_and_claims_no_more() {
    let bench = Bench::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let config = Config { permits_max: 2, ..bench.config() };
    let scheduler = bench.scheduler(config).handle("gated", gated(&gate)).start().await.unwrap();
    for _ in 0..5 {
        bench.queue.push(NewJob::new("gated", "")).await.unwrap();
    }
    until_stats(&scheduler, |stats| stats.active_tokens() == 2).await;
    let drain = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.drain(LIMIT).await }
    });
    until_stats(&scheduler, |stats| stats.draining).await;
    gate.add_permits(5);
    let report = within(drain).await.unwrap().unwrap();
    assert_eq!((report.finished, report.handed_back, report.interrupted, report.stuck), (2, 0, 0, 0));
    let counts = bench.queue.stats().await.unwrap().counts;
    assert_eq!((counts.of(State::Completed), counts.of(State::Available)), (2, 3));
    assert_eq!(scheduler.drain(Duration::ZERO).await, report, "a second drain answers the same");
}

#[tokio::test]
async fn what_a_drain_interrupts_is_handed_back_uncounted_and_resumed_by_the_next_start() {
    let bench = Bench::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let config = Config { drain_grace: 20 * MS, ..bench.config() };
    let polite = bench.scheduler(config.clone()).handle("job", gated(&gate)).start().await.unwrap();
    let id = bench.queue.push(NewJob::new("job", "")).await.unwrap().id;
    until_stats(&polite, |stats| stats.active_tokens() == 1).await;
    let report = polite.drain(MS).await;
    assert_eq!((report.interrupted, report.handed_back, report.stuck), (1, 1, 0));

    let deaf = |_: Context, (): ()| std::future::pending::<Result<(), HandlerError>>();
    let deaf = bench.scheduler(config.clone()).handle("job", deaf).start().await.unwrap();
    until_stats(&deaf, |stats| stats.active_tokens() == 1).await;
    let report = deaf.drain(MS).await;
    assert_eq!((report.interrupted, report.handed_back, report.stuck), (1, 1, 0));
    assert_eq!(bench.queues.job(&id).await.unwrap().attempt, 0, "neither counted");

    gate.add_permits(1);
    let _next = bench.scheduler(config).handle("job", gated(&gate)).start().await.unwrap();
    assert_eq!(bench.until(&id, State::Completed).await.attempt, 1);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_every_task() {
    let bench = Bench::new().await;
    let ended = Arc::new(Notify::new());
    struct Bell(Arc<Notify>);
    impl Drop for Bell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let bell = Arc::clone(&ended);
    let scheduler = bench
        .scheduler(bench.config())
        .handle("job", move |_: Context, (): ()| {
            let bell = Bell(Arc::clone(&bell));
            async move {
                let _bell = bell;
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
        .start()
        .await
        .unwrap();
    bench.queue.push(NewJob::new("job", "")).await.unwrap();
    until_stats(&scheduler, |stats| stats.active_tokens() == 1).await;
    drop(scheduler);
    within(ended.notified()).await.unwrap();
    let waiting = async {
        while bench.queue.stats().await.unwrap().waiting_claims > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(waiting).await.unwrap();
}

/// How often the runtime of the test wakes up while it sleeps ten times for an hour. Its clock is paused, so it jumps
/// from timer to timer and every timer of anybody shows as a wake-up.
async fn wakes_in_ten_hours() -> u64 {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_park_count(0);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    metrics.worker_park_count(0) - before
}

#[tokio::test(start_paused = true)]
async fn an_idle_scheduler_has_no_timers() {
    let alone = wakes_in_ten_hours().await;
    let bench = Bench::new().await;
    let scheduler = bench
        .scheduler(bench.config())
        .handle("job", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
        .start()
        .await
        .unwrap();
    // Idle after work, not only before it.
    let id = bench.queue.push(NewJob { retention: Duration::ZERO, ..NewJob::new("job", "") }).await.unwrap().id;
    until_stats(&scheduler, |stats| stats.kinds[0].runs.count == 1 && stats.pools[0].leases == 0).await;
    assert!(bench.queues.job(&id).await.is_err());
    wakes_in_ten_hours().await;
    let idle = wakes_in_ten_hours().await;
    // Sleeps of an hour take 41 to 53 wake-ups, by how they fall into the levels of the timer wheel; a timer of ten
    // minutes would add 60.
    assert!(idle < alone + 20, "{idle} wake-ups in ten idle hours, {alone} without a scheduler");
    assert_eq!(scheduler.stats().beats, 0);
}

#[tokio::test]
async fn a_closed_queue_does_not_make_the_scheduler_spin() {
    let bench = Bench::new().await;
    let scheduler = bench
        .scheduler(bench.config())
        .handle("job", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
        .start()
        .await
        .unwrap();
    bench.queues.drain();
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_park_count(0);
    tokio::time::sleep(300 * MS).await;
    let parks = metrics.worker_park_count(0) - before;
    assert!(parks < 100, "{parks} wake-ups");
    let report = within(scheduler.drain(LIMIT)).await.unwrap();
    assert_eq!(report.stuck, 0);
}

#[tokio::test(flavor = "current_thread")]
async fn a_computing_handler_never_blocks_the_runtime() {
    let bench = Bench::new().await;
    let (computing, enough) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, stop) = (Arc::clone(&computing), Arc::clone(&enough));
    let scheduler = bench
        .scheduler(bench.config())
        .handle_cpu("compute", move |context: CpuContext, data| {
            seen.store(true, SeqCst);
            while !stop.load(SeqCst) && !context.is_cancelled() {
                std::hint::spin_loop();
            }
            Ok::<_, HandlerError>(Some(data))
        })
        .start()
        .await
        .unwrap();
    let id = bench.queue.push(NewJob::new("compute", "42")).await.unwrap().id;
    // Each tick runs on the one thread of the runtime while the handler computes.
    let ticks = Arc::new(AtomicU32::new(0));
    while ticks.load(SeqCst) < 50 {
        tokio::time::sleep(MS).await;
        ticks.fetch_add(u32::from(computing.load(SeqCst)), SeqCst);
    }
    assert_eq!((scheduler.stats().active_tokens(), scheduler.stats().cpu_running), (1, 1));
    enough.store(true, SeqCst);
    assert_eq!(bench.until(&id, State::Completed).await.result.as_deref(), Some(&b"42"[..]));
}

#[tokio::test]
async fn cancelling_a_computing_job_raises_its_flag() {
    let bench = Bench::new().await;
    let scheduler = bench
        .scheduler(bench.config())
        .handle_cpu("compute", |context: CpuContext, _| {
            while !context.is_cancelled() {
                std::hint::spin_loop();
            }
            Err(HandlerError::cancelled())
        })
        .start()
        .await
        .unwrap();
    let id = bench.queue.push(NewJob::new("compute", "")).await.unwrap().id;
    until_stats(&scheduler, |stats| stats.cpu_running == 1).await;
    bench.queues.cancel(&id).await.unwrap();
    bench.until(&id, State::Cancelled).await;
    until_stats(&scheduler, |stats| stats.cpu_running == 0).await;
}
