//! The long `kill -9` run: `cargo run -p tidegate-tests --bin soak -- --rounds 50 [--seed 1] [--jobs 9000]`; with
//! `--redis URL --servers 3` on a Redis, which may be killed and restarted meanwhile.
//!
//! Prints its figures and ends with 1 when a promise was broken.

use std::process::ExitCode;

use tidegate_tests::{Plan, Server, Soak, check};

#[tokio::main]
async fn main() -> ExitCode {
    let plan = Plan {
        rounds: u32::try_from(option("--rounds", 50)).unwrap_or(u32::MAX),
        servers: u32::try_from(option("--servers", 1)).unwrap_or(1).max(1),
        submitters: 16,
        workers: 8,
        jobs_per_round: option("--jobs", 9000),
        round_ms: (500, 2000),
        seed: option("--seed", 1),
        plant: None,
    };
    let builder = match text("--redis") {
        Some(url) => Server::builder().redis(&url),
        None => Server::builder(),
    };
    let (history, figures) = Soak::run(plan, &builder).await;
    println!("{figures:#?}");
    let violations = check(&history);
    for violation in violations.iter().take(5) {
        println!("VIOLATION {violation}");
        for (at, event) in history.about(&violation.jobs()) {
            println!("  {at:>12.6?} {event:?}");
        }
    }
    println!("{} events recorded, {} violations", history.events.len(), violations.len());
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number after `name` on the command line, or `default`.
fn option(name: &str, default: u64) -> u64 {
    text(name).map_or(default, |number| number.parse().expect("a number follows the option"))
}

fn text(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}
