//! The one task that keeps the queues of this process up: it sleeps until something is due, and without a timer when nothing
//! is. Where claims wait, they are woken and do the upkeep on their way; where none does, the task does it a little later
//! than the others' claims would.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::{RedisQueue, Shared};
use crate::alarm::Alarm;

/// Added where no claim waits: another process with a waiting claim gets there first. 100 ms.
const LATER: i64 = 100;
/// Pause after a failure.
const PAUSE: i64 = 1000;

/// Runs until the queues are closed or dropped.
pub(super) async fn run(shared: Weak<Shared>, alarm: Arc<Alarm>) {
    loop {
        alarm.disarm();
        let Some(queues) = shared.upgrade() else { return };
        let next_at = pass(&queues).await;
        let now = queues.stopwatch.now();
        drop(queues);
        alarm.will_wake(next_at);
        let earlier = alarm.earlier.notified();
        if next_at == i64::MAX {
            earlier.await;
        } else {
            let sleep = Duration::from_millis(u64::try_from(next_at.saturating_sub(now)).unwrap_or(0).max(1));
            let _ = tokio::time::timeout(sleep, earlier).await;
        }
    }
}

/// Keeps up every queue that has something due; answers when the next one has.
async fn pass(shared: &Shared) -> i64 {
    let queues: Vec<_> = shared.queues.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let mut next_at = i64::MAX;
    for queue in queues {
        next_at = next_at.min(keep_up(&queue).await);
    }
    next_at
}

async fn keep_up(queue: &RedisQueue) -> i64 {
    let shared = &queue.shared;
    let (due_at, now) = (shared.due_at.load(Ordering::SeqCst), shared.stopwatch.now());
    if due_at == i64::MAX {
        return i64::MAX;
    }
    if shared.waiting.load(Ordering::SeqCst) > 0 {
        if due_at > now {
            return due_at;
        }
        // Their answer says when something is due next; until then there is nothing to wait for here.
        shared.due_at.store(i64::MAX, Ordering::SeqCst);
        shared.watch.ring();
        return i64::MAX;
    }
    if due_at.saturating_add(LATER) > now {
        return due_at.saturating_add(LATER);
    }
    match queue.upkeep().await {
        Ok(()) => match shared.due_at.load(Ordering::SeqCst) {
            i64::MAX => i64::MAX,
            at => at.saturating_add(LATER),
        },
        Err(error) => {
            tracing::warn!(queue = %shared.name, %error, "upkeep failed");
            now.saturating_add(PAUSE)
        }
    }
}
