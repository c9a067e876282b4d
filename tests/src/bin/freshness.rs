//! The long run of the freshness checker: `cargo run --release -p tidegate-tests --bin freshness -- --seeds 500`.
//!
//! | flag | |
//! |---|---|
//! | `--seeds 500`, `--first 1` | how many runs of two seconds, and the seed of the first |
//! | `--cluster` | on a cluster whose primaries fail over, instead of one Redis behind networks that break |
//! | `--at-once 2` | runs at the same time |
//! | `--planted NoFillGuard` | with this bug in the cache: ends at the first seed that shows it |
//! | `--as FlushIgnored` | runs made for this bug, without it |
//! | `--only Restart` | of what may break, only this |
//!
//! Prints what was broken, its figures and the history of a key whose reader was told something too old, and ends with
//! 1 when that happened (with a planted bug: when it did not).

use std::ops::ControlFlow;
use std::process::ExitCode;

use tidegate_tests::freshness::{Fault, Figures, Plan, Planted, report, run_all};

#[tokio::main]
async fn main() -> ExitCode {
    let (seeds, first) = (number("--seeds", 500), number("--first", 1));
    let (planted, alike) = (word("--planted").map(|name| bug(&name)), word("--as").map(|name| bug(&name)));
    let on_cluster = std::env::args().any(|argument| argument == "--cluster");
    let only = word("--only").map(|name| {
        let mut all = Fault::ALL.into_iter();
        all.find(|known| format!("{known:?}") == name).unwrap_or_else(|| panic!("{:?}, not {name}", Fault::ALL))
    });
    let plans = (first..first + seeds).map(|seed| {
        let free = if on_cluster { Plan::on_cluster } else { Plan::of };
        let mut plan = planted.or(alike).map_or_else(|| free(seed), |planted| Plan::planted(planted, seed));
        plan.planted = planted;
        if let Some(fault) = only {
            plan.faults = vec![fault];
        }
        plan
    });
    let mut figures = Figures::default();
    let mut bad = Vec::new();
    run_all(plans, usize::try_from(number("--at-once", 2)).unwrap_or(1), |plan, outcome| {
        figures.add(&outcome.figures);
        let found = outcome.judged.violations.len();
        if found > 0 {
            bad.push((plan.seed, found));
            if bad.len() <= 3 {
                println!("{}", report(plan, &outcome.history, &outcome.judged.violations));
            }
        }
        if figures.seeds.is_multiple_of(25) {
            println!("{} seeds, {} reads, {} violations", figures.seeds, figures.reads, figures.violations);
        }
        let is_shown = planted.is_some() && found > 0;
        if is_shown { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    println!("{figures:#?}");
    println!("{} violations in {} of {} seeds: {bad:?}", figures.violations, bad.len(), figures.seeds);
    if bad.is_empty() == planted.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bug(name: &str) -> Planted {
    let mut all = Planted::ALL.into_iter();
    all.find(|known| format!("{known:?}") == name).unwrap_or_else(|| panic!("{:?}, not {name}", Planted::ALL))
}

fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn number(name: &str, default: u64) -> u64 {
    word(name).map_or(default, |number| number.parse().expect("a number follows the option"))
}
