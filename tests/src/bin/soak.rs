//! The long `kill -9` run: `cargo run -p tidegate-tests --bin soak -- --rounds 50 [--seed 1] [--jobs 9000]`.
//!
//! | flag | |
//! |---|---|
//! | `--redis`, `--cluster`, `--sentinel` | keep the jobs on a private Redis (append-only file; `--fsync-always`) instead of the disk |
//! | `--servers 3` | servers that share it |
//! | `--rounds 50`, `--redis-rounds 20` | how often a server is killed, and how often Redis is |
//! | `--outage-ms 0 --outage-ms-max 1000` | how long Redis is dead; with replicas, how long the primary lives after the last moment known to be replicated |
//! | `--round-ms 500 --round-ms-max 2000` | longest time between two kills |
//! | `--submitters 16 --workers 8 --jobs 9000` | clients, and jobs sent per round |
//!
//! Prints its figures and ends with 1 when a promise was broken.

use std::process::ExitCode;

use tidegate_test_redis::Fsync;
use tidegate_tests::{Judged, Place, Plan, Server, Soak, Violation, check, check_failovers};

#[tokio::main]
async fn main() -> ExitCode {
    let place = place();
    let on_redis = place != Place::Disk;
    let replicates = matches!(place, Place::Cluster | Place::Sentinel);
    let outage_ms = option("--outage-ms", 0);
    let round_ms = option("--round-ms", 500);
    let plan = Plan {
        place,
        servers: if on_redis { usize::try_from(option("--servers", 3)).unwrap_or(1) } else { 1 },
        rounds: small("--rounds", 50),
        redis_rounds: if on_redis { small("--redis-rounds", 20) } else { 0 },
        outage_ms: (outage_ms, option("--outage-ms-max", if replicates { 200 } else { 1000 }).max(outage_ms)),
        submitters: small("--submitters", 16),
        workers: small("--workers", 8),
        jobs_per_round: option("--jobs", 9000),
        round_ms: (round_ms, option("--round-ms-max", 2000).max(round_ms)),
        seed: option("--seed", 1),
        plant: None,
    };
    println!("{plan:?}");
    let (history, figures) = Soak::run(plan, &Server::builder()).await;
    println!("{figures:#?}");
    let judged = match replicates {
        true => check_failovers(&history),
        false => Judged { violations: check(&history), ..Judged::default() },
    };
    if replicates {
        let lost = judged.forgotten.iter().filter(|one| matches!(one, Violation::Lost { .. })).count();
        let (at_risk, before) = (judged.at_risk, judged.lost_before);
        println!(
            "failovers: {lost} of {at_risk} submissions acknowledged at the last moment lost, at most {before:?} old"
        );
        println!("           {} marks of forgetting in all, by kind:", judged.forgotten.len());
        for (kind, count) in kinds(&judged.forgotten) {
            println!("           {count:>7} {kind}");
        }
    }
    for violation in judged.violations.iter().take(5) {
        println!("VIOLATION {violation}");
        for (at, event) in history.about(&violation.jobs()) {
            println!("  {at:>12.6?} {event:?}");
        }
    }
    println!("{} events recorded, {} violations", history.events.len(), judged.violations.len());
    for (kind, count) in kinds(&judged.violations) {
        println!("           {count:>7} {kind}");
    }
    if judged.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn place() -> Place {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    match () {
        () if has("--cluster") => Place::Cluster,
        () if has("--sentinel") => Place::Sentinel,
        () if has("--redis") && has("--fsync-always") => Place::Redis(Fsync::Always),
        () if has("--redis") => Place::Redis(Fsync::EverySecond),
        () => Place::Disk,
    }
}

/// How many violations there are of each kind.
fn kinds(violations: &[Violation]) -> std::collections::BTreeMap<String, usize> {
    let mut kinds = std::collections::BTreeMap::new();
    for violation in violations {
        let shown = violation.to_string();
        let kind = shown.split_whitespace().next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// The number after `name` on the command line, or `default`.
fn option(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(default, |number| number.parse().expect("a number follows the option"))
}

fn small(name: &str, default: u64) -> u32 {
    u32::try_from(option(name, default)).unwrap_or(u32::MAX)
}
