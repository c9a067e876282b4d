//! Sharing round trips: order, bounds, and that one caller's end is nobody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tidegate_redis_ops::Coalescer;
use tokio::sync::Semaphore;

type Batches = Arc<Mutex<Vec<Vec<usize>>>>;

/// A coalescer whose batches wait for the gate, and the batches it ran.
fn gated(room: usize) -> (Coalescer<usize, usize>, Arc<Semaphore>, Batches) {
    let (gate, batches) = (Arc::new(Semaphore::new(0)), Batches::default());
    let coalescer = Coalescer::new(room, |item| *item, {
        let (gate, batches) = (gate.clone(), batches.clone());
        move |items: Vec<usize>| {
            batches.lock().push(items.clone());
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                items.into_iter().map(|item| item * 10).collect()
            }
        }
    });
    (coalescer, gate, batches)
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lone_caller_goes_at_once_and_those_who_come_meanwhile_share_the_next() {
    let (coalescer, gate, batches) = gated(1000);
    let submit = |item: usize| {
        let coalescer = coalescer.clone();
        tokio::spawn(async move { coalescer.submit(item).await })
    };
    let first = submit(1);
    settle().await;
    assert_eq!(*batches.lock(), [vec![1]]);
    let rest: Vec<_> = (2..10).map(submit).collect();
    settle().await;
    gate.add_permits(2);
    assert_eq!(first.await.unwrap(), Some(10));
    for (answer, item) in rest.into_iter().zip(2..) {
        assert_eq!(answer.await.unwrap(), Some(item * 10));
    }
    assert_eq!(*batches.lock(), [vec![1], (2..10).collect()], "in the order of submission");
}

#[tokio::test]
async fn a_batch_has_room_for_so_much_and_always_for_one() {
    let (coalescer, gate, batches) = gated(10);
    let callers: Vec<_> = [1, 4, 6, 5, 99, 2]
        .map(|item| {
            let coalescer = coalescer.clone();
            tokio::spawn(async move { coalescer.submit(item).await })
        })
        .into();
    settle().await;
    gate.add_permits(100);
    for caller in callers {
        assert!(caller.await.unwrap().is_some());
    }
    let batches = batches.lock().clone();
    assert_eq!(batches.concat(), [1, 4, 6, 5, 99, 2]);
    assert!(batches.iter().all(|batch| batch.len() == 1 || batch.iter().sum::<usize>() <= 10), "{batches:?}");
    assert!(batches.contains(&vec![99]));
}

#[tokio::test]
async fn a_caller_who_goes_withdraws_what_has_not_left_and_harms_nobody() {
    let (coalescer, gate, batches) = gated(1000);
    let submit = |item: usize| {
        let coalescer = coalescer.clone();
        tokio::spawn(async move { coalescer.submit(item).await })
    };
    let first = submit(1);
    settle().await;
    let (gone, stays) = (submit(2), submit(3));
    settle().await;
    // One leaves while its batch is in flight, one before.
    first.abort();
    gone.abort();
    settle().await;
    gate.add_permits(10);
    assert_eq!(stays.await.unwrap(), Some(30));
    assert_eq!(*batches.lock(), [vec![1], vec![3]]);
}

#[tokio::test]
async fn a_batch_that_dies_takes_nobody_else_with_it() {
    let runs = Arc::new(AtomicUsize::new(0));
    let coalescer = Coalescer::new(1, |_: &usize| 1, {
        let runs = runs.clone();
        move |items: Vec<usize>| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            assert_ne!(run, 0, "a panic before the first await");
            async move {
                assert_ne!(run, 1, "a panic within");
                if run == 2 { Vec::new() } else { items }
            }
        }
    });
    for item in 0..3 {
        assert_eq!(coalescer.submit(item).await, None);
    }
    assert_eq!(coalescer.submit(3).await, Some(3));
    coalescer.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_each_get_their_own_answer() {
    let batches = Arc::new(AtomicUsize::new(0));
    let coalescer = Coalescer::new(100, |_: &usize| 1, {
        let batches = batches.clone();
        move |items: Vec<usize>| {
            batches.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(items.len() <= 100);
                tokio::task::yield_now().await;
                items
            }
        }
    });
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let coalescer = coalescer.clone();
            tokio::spawn(async move {
                for round in 0..500 {
                    let item = caller * 1000 + round;
                    assert_eq!(coalescer.submit(item).await, Some(item));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(batches.load(Ordering::Relaxed) < 64 * 500, "they shared");
}
