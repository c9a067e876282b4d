//! Callers that do the same kind of thing share the next round trip.
//!
//! One batch is in flight; meanwhile the next gathers. There is no linger time: a lone caller goes at once.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let doubled = tidegate_redis_ops::Coalescer::new(1000, |_: &u32| 1, |batch: Vec<u32>| async move {
//!     // One round trip for all of them.
//!     batch.into_iter().map(|number| number * 2).collect()
//! });
//! assert_eq!(doubled.submit(21).await, Some(42));
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tidegate_metrics::{Counter, Registry};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Gathers items of many callers into batches. A cheap clone; clones share the batches.
pub struct Coalescer<I, A>(Arc<Shared<I, A>>);

struct Shared<I, A> {
    room: usize,
    weigh: fn(&I) -> usize,
    run: Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<A>> + Send + Sync>,
    /// Held to add an item or take a batch.
    state: Mutex<State<I, A>>,
    tasks: TaskTracker,
    counters: Option<Counters>,
}

struct Counters {
    batches: Counter,
    items: Counter,
}

struct State<I, A> {
    waiting: VecDeque<Waiting<I, A>>,
    /// Whether a task is taking batches.
    busy: bool,
}

struct Waiting<I, A> {
    item: I,
    caller: oneshot::Sender<A>,
}

impl<I, A> Clone for Coalescer<I, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I, A> fmt::Debug for Coalescer<I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Coalescer")
            .field("room", &self.0.room)
            .field("waiting", &state.waiting.len())
            .field("busy", &state.busy)
            .finish_non_exhaustive()
    }
}

impl<I: Send + 'static, A: Send + 'static> Coalescer<I, A> {
    /// `weigh` says how much of the `room` an item takes; a batch holds at least one item and otherwise at most `room`.
    /// `run` gets a batch in the order of submission and answers in that order.
    pub fn new<F, Fut>(room: usize, weigh: fn(&I) -> usize, run: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        Self::build(room, weigh, run, None)
    }

    /// As [`new`](Self::new), counting batches and items under `name` in
    /// `tidegate_redis_coalesced_{batches,items}_total`.
    pub fn counted<F, Fut>(registry: &Registry, name: &str, room: usize, weigh: fn(&I) -> usize, run: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let counter = |metric, help| registry.counter_with(metric, help, &[("batch", name)]);
        let counters = Counters {
            batches: counter("tidegate_redis_coalesced_batches_total", "Round trips that callers shared."),
            items: counter("tidegate_redis_coalesced_items_total", "Items that went with them."),
        };
        Self::build(room, weigh, run, Some(counters))
    }

    fn build<F, Fut>(room: usize, weigh: fn(&I) -> usize, run: F, counters: Option<Counters>) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        Self(Arc::new(Shared {
            room,
            weigh,
            run: Box::new(move |items| run(items).boxed()),
            state: Mutex::new(State { waiting: VecDeque::new(), busy: false }),
            tasks: TaskTracker::new(),
            counters,
        }))
    }

    /// Hands an item to the next batch and waits for its answer; `None` when the batch died (it panicked or gave a wrong
    /// number of answers), in which case nobody knows what was done. Needs a tokio runtime.
    ///
    /// Dropping the future withdraws the item if its batch has not left yet, and harms nobody else.
    pub async fn submit(&self, item: I) -> Option<A> {
        let (caller, answer) = oneshot::channel();
        let start = {
            let mut state = self.0.state.lock();
            state.waiting.push_back(Waiting { item, caller });
            !std::mem::replace(&mut state.busy, true)
        };
        if start {
            let shared = self.0.clone();
            self.0.tasks.spawn(async move { shared.run_batches().await });
        }
        answer.await.ok()
    }

    /// Waits until no batch is in flight or waiting.
    pub async fn idle(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.tasks.reopen();
    }
}

impl<I: Send + 'static, A: Send + 'static> Shared<I, A> {
    /// One batch after the other until nothing waits.
    async fn run_batches(&self) {
        while let Some((items, callers)) = self.next_batch() {
            if let Some(counters) = &self.counters {
                counters.batches.inc();
                counters.items.add(items.len() as u64);
            }
            // A batch that panics is answered by nobody, and the next one leaves all the same.
            let running = AssertUnwindSafe(async { (self.run)(items).await }).catch_unwind();
            let Ok(answers) = running.await else { continue };
            if answers.len() != callers.len() {
                tracing::error!(
                    answers = answers.len(),
                    callers = callers.len(),
                    "a batch gave a wrong number of answers"
                );
                continue;
            }
            for (caller, answer) in callers.into_iter().zip(answers) {
                let _ = caller.send(answer);
            }
        }
    }

    /// The next batch without what was withdrawn; at the end of the burst nobody is busy any more.
    fn next_batch(&self) -> Option<(Vec<I>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.state.lock();
        let (mut items, mut callers, mut room) = (Vec::new(), Vec::new(), self.room);
        while let Some(next) = state.waiting.front() {
            if !next.caller.is_closed() {
                let weight = (self.weigh)(&next.item);
                if weight > room && !items.is_empty() {
                    break;
                }
                room = room.saturating_sub(weight);
            }
            let Some(next) = state.waiting.pop_front() else { break };
            if !next.caller.is_closed() {
                items.push(next.item);
                callers.push(next.caller);
            }
        }
        if items.is_empty() {
            state.busy = false;
            return None;
        }
        Some((items, callers))
    }
}
