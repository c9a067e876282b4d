//! Waiting for another process, with a deadline: there is no signal to wait for, so it is asked again.

use std::future::Future;
use std::time::{Duration, Instant};

/// 5 ms at first: a server starts in 20 to 50.
const POLL: Duration = Duration::from_millis(5);

/// 40 ms later: what takes seconds is not helped by questions that keep six processes busy.
const POLL_MAX: Duration = Duration::from_millis(40);

/// Asks `probe` until it answers `Some`; `None` when `limit` is over.
pub(crate) async fn until<T, F>(limit: Duration, mut probe: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    let mut pause = POLL;
    loop {
        if let Some(found) = probe().await {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = POLL_MAX.min(pause + pause / 8);
    }
}

/// Waits until all of `ready` holds.
///
/// # Panics
/// With `what` when `limit` is over.
pub(crate) async fn until_true<F>(what: &str, limit: Duration, mut ready: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let probe = || {
        let asked = ready();
        async move { asked.await.then_some(()) }
    };
    assert!(until(limit, probe).await.is_some(), "not within {limit:?}: {what}");
}
