//! `cargo xtask load-test sse`: thousands of listeners over plain HTTP, each checked on every event it hears.
//!
//! Events carry a number and the moment they were due. A listener that misses one, hears one twice, or hears them out of
//! order is found, unless the server told it so by an event `gap`; latencies count from the moment an event was due.

mod churn;
mod crowd;
mod event_id;
mod fanout;
mod ground;
mod histogram;
mod idle;
mod judgement;
mod ledger;
mod listener;
mod many;
mod memory;
mod nchan;
mod order;
mod plan;
mod publisher;
mod reading;
mod sheet;
mod stalled;
#[cfg(test)]
mod tests;
mod thread;

use std::process::ExitCode;

use anyhow::Result;

use self::plan::{Plan, Scenario};

pub(super) fn usage() -> String {
    "cargo xtask load-test sse idle    [--listeners 10000]\n\
     \x20                         fanout  [--listeners 1000] [--rate 100] [--seconds 10] [--burst 16] [--peers]\n\
     \x20                         churn   [--listeners 2000] [--rate 50] [--seconds 120]\n\
     \x20                                 [--kill redis|server|both] [--every 10] [--truncate]\n\
     \x20                         stalled [--listeners 1000] [--rate 50] [--seconds 60] [--bytes 1000]\n\
     \x20                                 [--slow close,skip,latest]\n\
     \x20                         many    [--streams 100,1000,10000] [--rate 200] [--seconds 10]\n\
     \x20   for all: [--redis | --embedded] [--persistence none|everysec|always] [--bytes N] [--threads 1]\n\
     \x20            [--sources 32] [--url http://127.0.0.1:7700] [--token-file FILE]\n\
     \x20            [--binary PROGRAM] [-- FLAGS OF THE SERVER]\n\n\
     Listens with thousands of connections and checks every event each of them hears: none lost, none twice, none out\n\
     of order, unless a gap was told. Fails when one is. Without --url it builds the release server and starts one of\n\
     its own, with --redis on a Redis of its own (idle and many do by default). docs/load-test.md says what each prints."
        .to_owned()
}

/// `words` without `sse` itself; `flags` are for the server that is started.
pub(super) fn run(words: Vec<String>, flags: Vec<String>) -> Result<ExitCode> {
    let plan = Plan::read(words, flags)?;
    let is_right = match plan.scenario {
        Scenario::Idle => idle::run(&plan),
        Scenario::Fanout => fanout::run(&plan),
        Scenario::Churn => churn::run(&plan),
        Scenario::Stalled => stalled::run(&plan),
        Scenario::Many => many::run(&plan),
    }?;
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
