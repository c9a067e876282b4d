//! The one task that keeps all queues up: it sleeps until something is due, and without a timer when nothing is.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;
use crate::alarm::Alarm;

/// Upkeep of one queue holds its lock for this many steps at most, about a millisecond.
pub(super) const BUDGET: usize = 500;

/// Runs until the queues are closed or dropped.
pub(super) async fn run(shared: Weak<Shared>, alarm: Arc<Alarm>) {
    loop {
        alarm.disarm();
        let Some(queues) = shared.upgrade() else { return };
        // A store that has stopped takes nothing any more, so nothing is due.
        let next_at = if queues.store.check().is_ok() { pass(&queues).await } else { i64::MAX };
        let now = queues.config.clock.now().0;
        drop(queues);
        alarm.will_wake(next_at);
        let earlier = alarm.earlier.notified();
        if next_at == i64::MAX {
            earlier.await;
        } else {
            // At least a millisecond, so that a clock that stands still does not make this spin.
            let sleep = Duration::from_millis(u64::try_from(next_at.saturating_sub(now)).unwrap_or(0).max(1));
            let _ = tokio::time::timeout(sleep, earlier).await;
        }
    }
}

/// Keeps up every queue that has something due; answers when the next one has.
async fn pass(shared: &Shared) -> i64 {
    let queues: Vec<_> = shared.read_queues().values().cloned().collect();
    let mut next_at = i64::MAX;
    for queue in queues {
        while queue.keep_up() {
            tokio::task::yield_now().await;
        }
        next_at = next_at.min(queue.next_at());
    }
    next_at
}
