//! Waiting with a deadline: nothing here sleeps for a fixed time and hopes.

use std::future::Future;
use std::time::{Duration, Instant};

/// 20 ms: short beside every promise tested here, long enough that a waiting test does not load the two cores.
const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` again and again until it answers `Some`, at most for `limit`.
///
/// # Panics
/// With `what` when the time is over.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Awaits `future`, at most for `limit`.
///
/// # Panics
/// With `what` when the time is over; the future is dropped then.
pub async fn within<F: Future>(what: &str, limit: Duration, future: F) -> F::Output {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}
