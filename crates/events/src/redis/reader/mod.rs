//! What feeds the hub: one blocked read over some of the live streams, and a bell for the rest.
//!
//! - **Direct** streams (up to [`direct_streams_max`](crate::Config::direct_streams_max), none in a cluster) are read by one
//!   `XREAD BLOCK` on a connection of its own. When another stream comes in, the read is broken off and begun again: it has
//!   no side effect.
//! - **Rung** streams are read when a publisher rings for them. Nothing rung before is missed: every such stream is read once
//!   when it comes in and whenever the bell may not have been heard.
//! - A **sweep** over the rung ones finds what others wrote without ringing, once a second; a stream found so becomes direct.
//!
//! Events are handed on only after it is known whether Redis was restarted before them.

mod assign;
mod bell;
mod direct;
mod news;
mod take;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidegate_metrics::{Counter, Registry};
use tokio::sync::watch;

use super::Shared;
use crate::hub::Live;
use assign::{Assigned, Wishes};
use take::Sizes;

/// What the parts of the reader share.
struct Reader {
    shared: Arc<Shared>,
    wishes: Wishes,
    sizes: Sizes,
    counters: Counters,
    /// The bell is heard.
    hears: AtomicBool,
}

struct Counters {
    direct: Counter,
    rung: Counter,
    sweep: Counter,
}

impl Counters {
    fn new(registry: &Registry) -> Self {
        let reads = |way| {
            let help = "Reads of live streams: blocked, after a bell, and in search of what others wrote.";
            registry.counter_with("tidegate_events_redis_reads_total", help, &[("way", way)])
        };
        Self { direct: reads("direct"), rung: reads("rung"), sweep: reads("sweep") }
    }
}

/// Begins to read; ends when the bus is closed.
pub(super) fn start(shared: &Arc<Shared>, registry: &Registry) {
    let reader = Arc::new(Reader {
        shared: Arc::clone(shared),
        wishes: Wishes::default(),
        sizes: Sizes::default(),
        counters: Counters::new(registry),
        hears: AtomicBool::new(false),
    });
    let (assigned, _) = watch::channel(Assigned::default());
    spawn(shared, direct::run(Arc::clone(&reader), assigned.subscribe()));
    spawn(shared, bell::run(Arc::clone(&reader), assigned.subscribe()));
    spawn(shared, assign::run(reader, assigned));
}

fn spawn(shared: &Arc<Shared>, part: impl Future<Output = ()> + Send + 'static) {
    let closing = shared.closing.clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = part => {}
        }
    });
}

/// Tells one stay of a stream among the live ones from another.
fn stay(live: &Arc<Live>) -> usize {
    Arc::as_ptr(live) as usize
}

/// Whether two lists hold the same streams in the same order; one that left and came again is another.
fn same(one: &[Arc<Live>], other: &[Arc<Live>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}
