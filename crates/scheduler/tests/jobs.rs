//! What a job meets: results, retries, failures, panics, timeouts, cancels, progress.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use common::{Bench, until_stats, within};
use tidegate_queue::{Change, NewJob, State};
use tidegate_scheduler::{Config, Context, CpuContext, HandlerError};
use tokio::sync::Notify;

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn arguments_and_reply_travel_as_json() {
    let bench = Bench::new().await;
    let scheduler = bench
        .scheduler(bench.config())
        .handle("add", |_: Context, (a, b): (u32, u32)| async move { Ok::<_, HandlerError>(a + b) })
        .start()
        .await
        .unwrap();
    assert!(scheduler.has("add") && !scheduler.has("subtract"));
    let id = bench.queue.push(NewJob::new("add", "[2, 40]")).await.unwrap().id;
    assert_eq!(bench.until(&id, State::Completed).await.result.as_deref(), Some(&b"42"[..]));
    let stats = until_stats(&scheduler, |stats| stats.pools[0].leases == 0).await;
    assert_eq!((stats.kinds[0].runs.count, stats.active_tokens()), (1, 0));
}

#[tokio::test]
async fn a_failing_job_is_tried_again_until_it_works() {
    let bench = Bench::new().await;
    let _scheduler = bench
        .scheduler(bench.config())
        .handle("flaky", |context: Context, (): ()| async move {
            match context.attempt() {
                3 => Ok("at last"),
                n => Err(std::io::Error::other(format!("refused {n}"))),
            }
        })
        .start()
        .await
        .unwrap();
    let job = NewJob::new("flaky", "").backoff(MS, MS);
    let id = bench.queue.push(job).await.unwrap().id;
    let job = bench.until(&id, State::Completed).await;
    assert_eq!((job.attempt, job.result.as_deref()), (3, Some(&br#""at last""#[..])));
}

#[tokio::test]
async fn what_can_never_work_goes_to_the_dead_letter_set_at_once() {
    let bench = Bench::new().await;
    let scheduler = bench
        .scheduler(bench.config())
        .handle("typed", |_: Context, n: u8| async move { Ok::<_, HandlerError>(n) })
        .handle_raw("fatal", |_, _: Bytes| async { Err(HandlerError::fatal("no such recipient")) })
        .start()
        .await
        .unwrap();
    for (kind, data, message) in [
        ("typed", r#"{"n":1}"#, "cannot read the arguments: invalid type: map, expected u8 at line 1 column 0"),
        ("fatal", "", "no such recipient"),
        ("unheard-of", "", r#"no handler for kind "unheard-of""#),
    ] {
        let id = bench.queue.push(NewJob::new(kind, data)).await.unwrap().id;
        let job = bench.until(&id, State::Discarded).await;
        assert_eq!((job.error.as_deref(), job.attempt), (Some(message), 1));
    }
    assert_eq!(scheduler.stats().pools[0].unknown_kinds, 1);
}

#[tokio::test]
async fn a_panic_fails_the_attempt_and_harms_nobody_else() {
    let bench = Bench::new().await;
    let scheduler = bench
        .scheduler(bench.config())
        .handle("bad", |_: Context, (): ()| async {
            if true { panic!("index out of bounds") } else { Ok::<_, HandlerError>(()) }
        })
        .handle_raw("bad-early", |_, _| -> std::future::Ready<Result<_, HandlerError>> { panic!("before any await") })
        .handle_cpu("bad-cpu", |_: CpuContext, _| -> Result<_, HandlerError> { panic!("on the pool") })
        .handle("good", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
        .start()
        .await
        .unwrap();
    for (kind, message) in [
        ("bad", "panicked: index out of bounds"),
        ("bad-early", "panicked: before any await"),
        ("bad-cpu", "panicked: on the pool"),
    ] {
        let id = bench.queue.push(NewJob::new(kind, "").max_attempts(1)).await.unwrap().id;
        assert_eq!(bench.until(&id, State::Discarded).await.error.as_deref(), Some(message));
        let panics = scheduler.stats().kinds.iter().find(|k| &*k.kind == kind).unwrap().panics;
        assert_eq!(panics, 1);
    }
    let id = bench.queue.push(NewJob::new("good", "")).await.unwrap().id;
    bench.until(&id, State::Completed).await;
    until_stats(&scheduler, |stats| stats.pools[0].leases == 0 && stats.active_tokens() == 0).await;
}

#[tokio::test]
async fn a_handler_that_outlives_its_timeout_is_told_then_dropped_and_the_job_tried_again() {
    let bench = Bench::new().await;
    let config = Config { cancel_grace: 20 * MS, ..bench.config() };
    let told = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&told);
    let scheduler = bench
        .scheduler(config)
        .handle("slow", move |context: Context, (): ()| {
            let seen = Arc::clone(&seen);
            async move {
                context.token().cancelled().await;
                seen.fetch_add(1, SeqCst);
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
        .start()
        .await
        .unwrap();
    let job = NewJob::new("slow", "").timeout(50 * MS).max_attempts(2).backoff(MS, MS);
    let id = bench.queue.push(job).await.unwrap().id;
    let job = bench.until(&id, State::Discarded).await;
    assert_eq!((job.attempt, job.error.as_deref()), (2, Some("timed out after 50ms")));
    assert_eq!(told.load(SeqCst), 2);
    let stats = until_stats(&scheduler, |stats| stats.active_tokens() == 0).await;
    assert_eq!((stats.kinds[0].timeouts, stats.kinds[0].dropped), (2, 2));
}

#[tokio::test]
async fn cancelling_a_running_job_fires_its_token_at_once() {
    let bench = Bench::new().await;
    let started = Arc::new(Notify::new());
    let bell = Arc::clone(&started);
    let scheduler = bench
        .scheduler(bench.config())
        .handle("long", move |context: Context, (): ()| {
            bell.notify_one();
            async move { context.sleep(Duration::from_secs(3600)).await }
        })
        .start()
        .await
        .unwrap();
    let id = bench.queue.push(NewJob::new("long", "")).await.unwrap().id;
    within(started.notified()).await.unwrap();
    until_stats(&scheduler, |stats| stats.active_tokens() == 1).await;
    assert!(bench.queues.cancel(&id).await.unwrap().cancelling);
    bench.until(&id, State::Cancelled).await;
    let stats = until_stats(&scheduler, |stats| stats.active_tokens() == 0).await;
    assert_eq!((stats.kinds[0].runs.cancelled, stats.kinds[0].dropped), (1, 0));
    assert_eq!(stats.beats, 0, "the word came by itself, not with a beat");
}

#[tokio::test]
async fn a_cancelled_waiting_job_never_starts() {
    let bench = Bench::new().await;
    let id = bench.queue.push(NewJob::new("any", "").delay(Duration::from_secs(3600))).await.unwrap().id;
    let scheduler = bench
        .scheduler(bench.config())
        .handle("any", |_: Context, (): ()| async { Ok::<_, HandlerError>(()) })
        .start()
        .await
        .unwrap();
    bench.queues.cancel(&id).await.unwrap();
    let marker = bench.queue.push(NewJob::new("any", "")).await.unwrap().id;
    bench.until(&marker, State::Completed).await;
    assert_eq!(bench.queues.job(&id).await.unwrap().state, State::Cancelled);
    assert_eq!(scheduler.stats().kinds[0].runs.count, 1);
}

#[tokio::test]
async fn of_many_progress_reports_the_queue_sees_few_and_the_last() {
    let bench = Bench::new().await;
    let (reported, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (bell, gate) = (Arc::clone(&reported), Arc::clone(&go_on));
    let _scheduler = bench
        .scheduler(bench.config())
        .handle("counts", move |context: Context, (): ()| {
            let (bell, gate) = (Arc::clone(&bell), Arc::clone(&gate));
            async move {
                for n in 1..=1000u32 {
                    context.progress_note(f64::from(n) / 1000.0, format!("{n} of 1000"));
                    // Lets everybody else have a turn after each report.
                    tokio::task::yield_now().await;
                }
                bell.notify_one();
                gate.notified().await;
                Ok::<_, HandlerError>(())
            }
        })
        .start()
        .await
        .unwrap();
    let mut changes = bench.queue.subscribe().await.unwrap();
    let id = bench.queue.push(NewJob::new("counts", "")).await.unwrap().id;
    within(reported.notified()).await.unwrap();
    let mut reports = 0;
    loop {
        let change = within(changes.recv()).await.unwrap().unwrap().change;
        let Change::Progress { progress, note } = change else { continue };
        reports += 1;
        if progress >= 1.0 {
            assert_eq!(note.as_deref(), Some("1000 of 1000"));
            break;
        }
    }
    // At ten a second no more fit into the time this test has at all.
    assert!(reports < 300, "{reports} reports");
    assert_eq!(bench.queues.job(&id).await.unwrap().progress, Some(1.0));
    go_on.notify_one();
    bench.until(&id, State::Completed).await;
}

#[tokio::test]
async fn a_result_over_the_bound_fails_its_job_alone() {
    let config = tidegate_queue::Config { payload_max: 100, ..tidegate_queue::Config::default() };
    let bench = Bench::open(config).await;
    let gate = Arc::new(tokio::sync::Barrier::new(2));
    let scheduler = bench
        .scheduler(bench.config())
        .handle("text", move |_: Context, length: usize| {
            let gate = Arc::clone(&gate);
            async move {
                // Both end in the same poll of the runtime, so their outcomes are told together.
                gate.wait().await;
                Ok::<_, HandlerError>("x".repeat(length))
            }
        })
        .start()
        .await
        .unwrap();
    let large = bench.queue.push(NewJob::new("text", "1000")).await.unwrap().id;
    let small = bench.queue.push(NewJob::new("text", "10")).await.unwrap().id;
    bench.until(&small, State::Completed).await;
    let job = bench.until(&large, State::Discarded).await;
    assert_eq!(job.error.as_deref(), Some("result refused: result: at most 100 bytes"));
    assert_eq!(scheduler.stats().pools[0].unknown, 0);
}
