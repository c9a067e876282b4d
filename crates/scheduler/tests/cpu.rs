//! The CPU pool on its own: order, bound, timeout, cancel, panic.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{LIMIT, within};
use tidegate_metrics::Registry;
use tidegate_scheduler::{CpuConfig, CpuError, CpuPool, Interrupt};

fn pool(threads: usize, waiting_max: usize) -> CpuPool {
    CpuPool::new(&CpuConfig { threads: Some(threads), waiting_max }, &Registry::new()).unwrap()
}

/// A task that keeps a thread until the sender is dropped or used, or it is told to stop.
fn blocker() -> (mpsc::Sender<()>, impl FnOnce(&Interrupt) + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let task = move |interrupt: &Interrupt| {
        while !interrupt.is_cancelled() && receiver.try_recv() == Err(mpsc::TryRecvError::Empty) {
            std::thread::yield_now();
        }
    };
    (sender, task)
}

async fn until(fact: impl Fn() -> bool) {
    let holds = async {
        while !fact() {
            tokio::task::yield_now().await;
        }
    };
    within(holds).await.expect("the fact in time");
}

#[tokio::test]
async fn the_most_urgent_waiting_task_runs_first() {
    let pool = pool(1, 10);
    let (release, task) = blocker();
    let first = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(0, LIMIT, task).await }
    });
    until(|| pool.running() == 1).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (place, priority) in [200u8, 100, 0, 100].into_iter().enumerate() {
        let (seen, pool_of_task) = (Arc::clone(&order), pool.clone());
        let task = async move {
            pool_of_task.run(priority, LIMIT, move |_| seen.lock().unwrap().push((priority, place))).await
        };
        tasks.push(tokio::spawn(task));
        until(|| pool.waiting() == place + 1).await;
    }
    drop(release);
    first.await.unwrap().unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [(0, 2), (100, 1), (100, 3), (200, 0)]);
}

#[tokio::test]
async fn a_full_line_is_refused_with_the_figures() {
    let pool = pool(1, 1);
    let (release, task) = blocker();
    let busy = pool.run(0, LIMIT, task);
    tokio::pin!(busy);
    assert!(futures_util::poll!(&mut busy).is_pending());
    let waiting = pool.run(0, LIMIT, |_| ());
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(pool.run(0, LIMIT, |_| ()).await, Err(CpuError::Full { waiting: 1, capacity: 1 }));
    drop(release);
    assert_eq!(busy.await, Ok(()));
    assert_eq!(waiting.await, Ok(()));
}

#[tokio::test]
async fn a_task_over_its_time_is_told_to_stop() {
    let pool = pool(1, 1);
    let (_keep, task) = blocker();
    let after = Duration::from_millis(10);
    assert_eq!(pool.run(0, after, task).await, Err(CpuError::TimedOut { after }));
    within(pool.idle()).await.expect("the task saw its flag");
}

#[tokio::test]
async fn a_dropped_caller_takes_its_waiting_task_out_of_the_line() {
    let pool = pool(1, 1);
    let (release, task) = blocker();
    let busy = pool.run(0, LIMIT, task);
    tokio::pin!(busy);
    assert!(futures_util::poll!(&mut busy).is_pending());
    {
        let waiting = pool.run(0, LIMIT, |_| unreachable!("nobody waits for it"));
        tokio::pin!(waiting);
        let waiting: std::task::Poll<Result<(), _>> = futures_util::poll!(&mut waiting);
        assert!(waiting.is_pending());
        assert_eq!(pool.waiting(), 1);
    }
    assert_eq!(pool.waiting(), 0);
    drop(release);
    assert_eq!(busy.await, Ok(()));
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_thread_goes_on() {
    let pool = pool(1, 1);
    let answer: Result<(), _> = pool.run(0, LIMIT, |_| panic!("bad matrix")).await;
    assert_eq!(answer, Err(CpuError::Panicked { message: "bad matrix".into() }));
    assert_eq!(pool.run(0, LIMIT, |_| 7).await, Ok(7));
    pool.close();
    assert_eq!(pool.run(0, LIMIT, |_| 7).await, Err(CpuError::Closed));
}
