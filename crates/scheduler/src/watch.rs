//! Listens to the transitions of one queue, so that a cancel reaches its handler at once and not with the next beat.

use std::sync::Arc;

use tidegate_queue::{Change, Transition};
use tokio::sync::Notify;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::pump::Served;

/// Until told to stop or the queue is gone. What was missed the next beat brings, and it is asked for at once.
pub(crate) async fn watch(
    served: Arc<Served>,
    mut transitions: Receiver<Transition>,
    beat_now: Arc<Notify>,
    quit: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = quit.cancelled() => return,
            next = transitions.recv() => next,
        };
        match next {
            Ok(Transition { id, change: Change::CancelRequested, .. }) => {
                served.runs.cancel(&id);
                served.attention.notify_one();
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => beat_now.notify_one(),
            Err(RecvError::Closed) => return,
        }
    }
}
