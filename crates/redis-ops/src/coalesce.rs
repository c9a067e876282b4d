//! Callers that do the same kind of thing share the next round trip.
//!
//! One batch is in flight; meanwhile the next gathers. There is no linger time: a lone caller goes at once.

use std::marker::PhantomData;

/// Gathers items of many callers into batches. A cheap clone.
pub struct Coalescer<I, A>(PhantomData<(fn(I), fn() -> A)>);

impl<I, A> Clone for Coalescer<I, A> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<I, A> std::fmt::Debug for Coalescer<I, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coalescer")
    }
}

impl<I: Send + 'static, A: Send + 'static> Coalescer<I, A> {
    /// `weigh` says how much of the `room` an item takes; a batch holds at least one item and otherwise at most `room`.
    pub fn new<F, Fut>(_room: usize, _weigh: fn(&I) -> usize, _run: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        Self(PhantomData)
    }

    /// Hands an item to the next batch and waits for its answer; `None` when the batch died (it panicked or gave a
    /// wrong number of answers). Dropping the future withdraws the item if its batch has not left yet.
    pub async fn submit(&self, _item: I) -> Option<A> {
        None
    }
}
