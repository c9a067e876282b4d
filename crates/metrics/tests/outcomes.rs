//! Timers know how an operation ended, also when nobody told them.

use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_metrics::{Outcome, Registry, Timer};

fn timer() -> Timer {
    Registry::new().timer("work_seconds", "Work.")
}

/// Count, failed, cancelled.
fn outcomes(timer: &Timer) -> (u64, u64, u64) {
    let stats = timer.stats();
    (stats.count, stats.failed, stats.cancelled)
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_guard_records_what_it_is_told() {
    let timer = timer();
    timer.start().succeed();
    assert_eq!(outcomes(&timer), (1, 0, 0));
    timer.start().fail();
    assert_eq!(outcomes(&timer), (2, 1, 0));
}

#[test]
fn a_guard_dropped_without_a_word_is_a_cancellation() {
    let timer = timer();
    drop(timer.start());
    assert_eq!(outcomes(&timer), (1, 0, 1));
}

#[test]
fn a_panic_is_a_failure() {
    let timer = timer();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _running = timer.start();
        std::panic::resume_unwind(Box::new("broken"));
    }));
    assert!(result.is_err());
    assert_eq!(outcomes(&timer), (1, 1, 0));
}

#[test]
fn an_awaited_future_is_recorded_with_its_result() {
    let timer = timer();
    assert_eq!(poll_once(timer.time(ready(Ok::<_, ()>(5)))), Poll::Ready(Ok(5)));
    assert_eq!(outcomes(&timer), (1, 0, 0));
    assert_eq!(poll_once(timer.time(ready(Err::<(), _>("no")))), Poll::Ready(Err("no")));
    assert_eq!(outcomes(&timer), (2, 1, 0));
}

#[test]
fn a_future_dropped_on_its_way_is_a_cancellation() {
    let timer = timer();
    assert_eq!(poll_once(timer.time(pending::<Result<(), ()>>())), Poll::Pending);
    assert_eq!(outcomes(&timer), (1, 0, 1));
}

#[test]
fn a_future_that_was_never_polled_is_not_recorded() {
    let timer = timer();
    drop(timer.time(pending::<Result<(), ()>>()));
    assert_eq!(outcomes(&timer), (0, 0, 0));
}

#[test]
fn synchronous_work_is_recorded_with_its_result() {
    let timer = timer();
    assert_eq!(timer.time_sync(|| Ok::<_, ()>(1)), Ok(1));
    assert_eq!(timer.time_sync(|| Err::<(), _>(2)), Err(2));
    assert_eq!(outcomes(&timer), (2, 1, 0));
}

#[test]
fn a_duration_measured_elsewhere_can_be_given_with_its_outcome() {
    let timer = timer();
    timer.record_outcome(Duration::from_secs(1), Outcome::Failed);
    timer.record_outcome(Duration::from_secs(2), Outcome::Cancelled);
    timer.record_outcome(Duration::from_secs(3), Outcome::Succeeded);
    assert_eq!((outcomes(&timer), timer.stats().total), ((3, 1, 1), Duration::from_secs(6)));
}

#[test]
fn outcomes_are_exported_from_the_first_guard_on_and_not_for_plain_recordings() {
    let registry = Registry::new();
    let timer = registry.timer("work_seconds", "Work.");
    timer.record(Duration::from_secs(1));
    assert!(!registry.render_prometheus().contains("work_failed_total"));
    timer.start().succeed();
    let text = registry.render_prometheus();
    assert!(text.contains("# TYPE work_failed_total counter\nwork_failed_total 0\n"));
    assert!(text.contains("# TYPE work_cancelled_total counter\nwork_cancelled_total 0\n"));
    drop(timer.start());
    assert!(registry.render_prometheus().contains("\nwork_cancelled_total 1\n"));
}
