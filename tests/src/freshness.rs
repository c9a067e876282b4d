//! The freshness checker: processes that share a cache on a private Redis, each behind a network of its own that
//! breaks, and the history of what they were given, held against what the cache promises.
//!
//! Everything is drawn from a seed (but for the interleaving, which is the machine's): who changes how much, how Redis
//! is set up, what breaks and when. The processes are the example `freshness_node` of the cache; [`judge`] is pure.

mod damage;
mod faults;
mod figures;
mod ground;
mod history;
mod judge;
mod node;
mod plan;
mod random;
mod report;

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

pub use faults::Fault;
pub use figures::Figures;
pub use history::{Change, History, Origin, Read, What};
pub use judge::{Judged, TICK, Violation, judge};
pub use plan::{Place, Plan, Planted};
pub use report::report;

use damage::Stage;
use ground::Ground;
use node::Node;

/// What one seed brought.
#[derive(Debug)]
pub struct Outcome {
    /// What was done and seen, told by the processes.
    pub history: History,
    /// What it was held against.
    pub judged: Judged,
    /// How much of everything there was.
    pub figures: Figures,
}

/// Runs plans, so many at once, and shows each outcome, until `each` has seen enough.
///
/// # Panics
/// As [`run`].
pub async fn run_all(
    plans: impl IntoIterator<Item = Plan>,
    at_once: usize,
    mut each: impl FnMut(&Plan, Outcome) -> ControlFlow<()>,
) {
    let runs = plans.into_iter().map(|plan| async move {
        let outcome = run(&plan).await;
        (plan, outcome)
    });
    let mut outcomes = std::pin::pin!(stream::iter(runs).buffer_unordered(at_once));
    while let Some((plan, outcome)) = outcomes.next().await {
        if each(&plan, outcome).is_break() {
            return;
        }
    }
}

/// Runs a plan and judges it.
///
/// # Panics
/// When a process dies or does not end, or Redis does not start again.
pub async fn run(plan: &Plan) -> Outcome {
    let ground = Ground::of(plan).await;
    let mut nodes = Vec::new();
    for number in 0..plan.nodes {
        nodes.push(Node::start(plan, number, &ground.url(number)).await);
    }
    for node in &mut nodes {
        node.begin().await;
    }
    let stage = Stage { plan, ground: &ground, until: Instant::now() + plan.lasts, told: Mutex::default() };
    stage.break_things(&mut nodes).await;
    // What healing brings to light: late messages, late fills.
    tokio::time::sleep(plan.heard_within + Duration::from_millis(150)).await;
    let mut history = stage.told.into_inner().expect("nobody panicked");
    for node in nodes {
        let (number, lines) = node.end().await;
        history.read(number, &lines);
    }
    let heard_within = plan.heard_within;
    let judging = tokio::task::spawn_blocking(move || {
        let judged = judge(&history, heard_within);
        (history, judged)
    });
    let (history, judged) = judging.await.expect("the judge does not panic");
    let figures = Figures::of(&history, &judged);
    Outcome { history, judged, figures }
}
