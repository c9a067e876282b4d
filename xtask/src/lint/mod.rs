//! `cargo xtask lint`: every house rule that a machine can check, as a list of gates. All gates run, whatever fails.

mod homes;
mod layers;
mod msrv;
mod tidy;
mod tools;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::arguments::Arguments;

/// A rule, or a family of rules, that a tree passes or fails.
struct Gate {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Verdict>,
    /// Run without being named?
    by_default: bool,
}

/// What a gate found.
#[derive(Debug)]
enum Verdict {
    /// All is well; the note says what was looked at.
    Passed(String),
    /// What is wrong, ready to print.
    Failed(String),
}

impl Verdict {
    /// Passes with `note` where there is nothing to complain about.
    fn of(findings: &[String], note: String) -> Self {
        if findings.is_empty() { Self::Passed(note) } else { Self::Failed(findings.join("\n")) }
    }
}

/// Cheap gates first, so that a typo is told before the compiler starts.
const GATES: &[Gate] = &[
    Gate { name: "fmt", what: "cargo fmt --check", run: tools::fmt, by_default: true },
    Gate { name: "tidy", what: "how files are written", run: tidy::gate, by_default: true },
    Gate {
        name: "layers",
        what: "arrows between crates, homes of heavy dependencies",
        run: layers::gate,
        by_default: true,
    },
    Gate { name: "deny", what: "bans, licences and sources of dependencies", run: tools::deny, by_default: true },
    Gate { name: "msrv", what: "everything builds with the stated Rust", run: msrv::gate, by_default: true },
    Gate { name: "clippy", what: "cargo clippy, warnings are errors", run: tools::clippy, by_default: true },
    Gate { name: "docs", what: "cargo doc, warnings are errors", run: tools::docs, by_default: true },
    Gate { name: "advisories", what: "known vulnerabilities (network)", run: tools::advisories, by_default: false },
];

pub(crate) fn usage() -> String {
    let gates = GATES.iter().map(|gate| format!("  {:<10} {}\n", gate.name, gate.what)).collect::<String>();
    format!(
        "cargo xtask lint [gate…] [--advisories]\n\nRuns all gates, or those named; prints what fails and goes on.\n\
         {gates}\nadvisories is left out unless named or asked for by --advisories: it needs the network."
    )
}

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let with_advisories = arguments.flag("--advisories");
    let names = arguments.names()?;
    if let Some(unknown) = names.iter().find(|name| GATES.iter().all(|gate| gate.name != *name)) {
        bail!("no gate is called {unknown}\n\n{}", usage());
    }
    let wanted = |gate: &&Gate| {
        let named = if names.is_empty() { gate.by_default } else { names.iter().any(|name| name == gate.name) };
        named || (with_advisories && gate.name == "advisories")
    };
    let gates: Vec<&Gate> = GATES.iter().filter(wanted).collect();
    let failed: Vec<&str> = gates.iter().filter(|gate| !passes(gate)).map(|gate| gate.name).collect();
    if failed.is_empty() {
        println!("lint: {} gates passed", gates.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("lint: {} of {} gates failed: {}", failed.len(), gates.len(), failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Runs one gate and prints its line; its findings follow.
fn passes(gate: &Gate) -> bool {
    // A person watching wants to know what takes so long; a log wants one whole line.
    if std::io::stdout().is_terminal() {
        print!("{:<10} …\r", gate.name);
        // A terminal that went away is no reason to stop.
        let _ = std::io::stdout().flush();
    }
    let start = Instant::now();
    let verdict = (gate.run)().unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
    let seconds = start.elapsed().as_secs_f64();
    match verdict {
        Verdict::Passed(note) => {
            println!("{:<10} ok     {seconds:6.1} s  {note}", gate.name);
            true
        }
        Verdict::Failed(findings) => {
            println!("{:<10} FAILED {seconds:6.1} s", gate.name);
            findings.lines().for_each(|line| println!("  {line}"));
            false
        }
    }
}
