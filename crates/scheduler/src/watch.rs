//! Listens to the cancels of one queue, so that they reach their handlers at once and not with the next beat.

use std::sync::Arc;

use tidegate_queue::JobId;
use tokio::sync::Notify;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::pump::Served;

/// Until told to stop or the queue is gone. What was missed the next beat brings, and it is asked for at once.
pub(crate) async fn watch(
    served: Arc<Served>,
    mut cancels: Receiver<JobId>,
    beat_now: Arc<Notify>,
    quit: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = quit.cancelled() => return,
            next = cancels.recv() => next,
        };
        match next {
            Ok(id) => {
                served.runs.cancel(&id);
                served.attention.notify_one();
            }
            Err(RecvError::Lagged(_)) => beat_now.notify_one(),
            Err(RecvError::Closed) => return,
        }
    }
}
