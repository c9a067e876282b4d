//! Leases under a clock that is moved by hand: kept alive by the beat, lost for good when it is not.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use common::{Bench, until_stats, within};
use tidegate_queue::{ManualClock, NewJob, State};
use tidegate_scheduler::{Config, Context, HandlerError};
use tokio::sync::{Notify, Semaphore};

const LEASE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_of_many_lease_lengths_starts_exactly_once() {
    let (bench, clock) = Bench::with_clock().await;
    let (starts, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let (count, wait) = (Arc::clone(&starts), Arc::clone(&gate));
    let scheduler = bench
        .scheduler(bench.config())
        .handle("long", move |_: Context, (): ()| {
            count.fetch_add(1, SeqCst);
            let wait = Arc::clone(&wait);
            async move { wait.acquire().await.map(tokio::sync::SemaphorePermit::forget) }
        })
        .start()
        .await
        .unwrap();
    let id = bench.queue.push(NewJob::new("long", "")).await.unwrap().id;
    until_stats(&scheduler, |stats| stats.active_tokens() == 1).await;
    for _ in 0..10 {
        clock.advance(LEASE * 6 / 10);
        bench.queue.upkeep().await.unwrap();
        let beats = scheduler.stats().beats;
        // The first may have been under way before the clock moved.
        until_stats(&scheduler, |stats| stats.beats >= beats + 2).await;
    }
    gate.add_permits(1);
    let job = bench.until(&id, State::Completed).await;
    assert_eq!((starts.load(SeqCst), job.attempt), (1, 1));
    assert_eq!(scheduler.stats().pools[0].stale, 0);
}

#[test]
fn handlers_that_block_every_thread_of_the_runtime_do_not_cost_a_lease() {
    block_every_thread(Bench::with_clock());
}

#[test]
fn nor_do_they_on_redis() {
    block_every_thread(Bench::on_redis());
}

fn block_every_thread(bench: impl Future<Output = (Bench, ManualClock)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (bench, clock) = bench.await;
        let (started, go_on) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let (told, gate) = (started.0, std::sync::Mutex::new(go_on.1));
        let gate = Arc::new(gate);
        let scheduler = bench
            .scheduler(bench.config())
            .handle_raw("blocks", move |_, _| {
                told.send(()).unwrap();
                // Blocks the only thread of the runtime, as a handler never should.
                gate.lock().unwrap().recv().unwrap();
                async { Ok::<_, HandlerError>(None) }
            })
            .start()
            .await
            .unwrap();
        let watcher = scheduler.clone();
        let hand = std::thread::spawn(move || {
            started.1.recv().unwrap();
            for _ in 0..10 {
                clock.advance(LEASE * 6 / 10);
                let beats = watcher.stats().beats;
                while watcher.stats().beats < beats + 2 {
                    std::thread::yield_now();
                }
            }
            go_on.0.send(()).unwrap();
        });
        let id = bench.queue.push(NewJob::new("blocks", "")).await.unwrap().id;
        let job = bench.until(&id, State::Completed).await;
        assert_eq!(job.attempt, 1);
        hand.join().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_a_lost_lease_is_thrown_away() {
    let (bench, clock) = Bench::with_clock().await;
    let cancelled = Arc::new(Notify::new());
    let bell = Arc::clone(&cancelled);
    let scheduler = bench
        .scheduler(bench.config())
        .handle("frozen", move |context: Context, (): ()| {
            let bell = Arc::clone(&bell);
            async move {
                if context.attempt() == 1 {
                    context.token().cancelled().await;
                    bell.notify_one();
                }
                Ok::<_, HandlerError>(context.attempt())
            }
        })
        .start()
        .await
        .unwrap();
    let id = bench.queue.push(NewJob::new("frozen", "").backoff(Duration::ZERO, Duration::ZERO)).await.unwrap().id;
    until_stats(&scheduler, |stats| stats.active_tokens() == 1).await;
    // The process stood still for longer than its lease.
    clock.advance(LEASE * 2);
    bench.queue.upkeep().await.unwrap();
    within(cancelled.notified()).await.unwrap();
    let job = bench.until(&id, State::Completed).await;
    assert_eq!((job.attempt, job.result.as_deref()), (2, Some(&b"2"[..])));
    let stats = until_stats(&scheduler, |stats| stats.pools[0].leases == 0).await;
    assert_eq!(stats.pools[0].stale, 1);
}

#[tokio::test]
async fn a_cancel_nobody_heard_comes_with_the_beat() {
    let (bench, _clock) = Bench::with_clock().await;
    let scheduler = bench
        .scheduler(Config { permits_max: 1, ..bench.config() })
        .handle("long", |context: Context, (): ()| async move { context.sleep(Duration::from_secs(3600)).await })
        .start()
        .await
        .unwrap();
    let id = bench.queue.push(NewJob::new("long", "")).await.unwrap().id;
    until_stats(&scheduler, |stats| stats.active_tokens() == 1 && stats.beats > 0).await;
    // So many transitions that the listener, which gets no turn meanwhile, misses the cancel.
    bench.queues.cancel(&id).await.unwrap();
    let other = |_| NewJob::new("long", "").delay(Duration::from_secs(3600));
    bench.queue.push_many((0..3000).map(other).collect(), None).await.unwrap();
    bench.until(&id, State::Cancelled).await;
}
