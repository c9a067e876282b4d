//! `cargo xtask`: the house tools. One folder or file per command; each says what it does before it does it.
//!
//! No product crate is a dependency, so the tools build in seconds and can judge a tree that does not compile.

mod arguments;
mod bench;
mod lint;
mod load_test;
mod needs;
mod shell;
mod stamp;
mod table;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::Arguments;

/// One word of `cargo xtask <word>`.
struct Command {
    name: &'static str,
    summary: &'static str,
    usage: fn() -> String,
    run: fn(Arguments) -> Result<ExitCode>,
}

const COMMANDS: &[Command] = &[
    Command { name: "lint", summary: "check every house rule", usage: lint::usage, run: lint::run },
    Command { name: "test", summary: "build the server and run every test", usage: test::usage, run: test::run },
    Command { name: "bench", summary: "measure, with ratios to baselines", usage: bench::usage, run: bench::run },
    Command {
        name: "load-test",
        summary: "open-loop load against a running server",
        usage: load_test::usage,
        run: load_test::run,
    },
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let word = words.next().unwrap_or_default();
    if matches!(word.as_str(), "help" | "--help" | "-h") {
        println!("{}", overview());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == word) else {
        eprintln!("{}", overview());
        return ExitCode::from(2);
    };
    let mut arguments = Arguments::new(words);
    if arguments.flag("--help") || arguments.flag("-h") {
        println!("{}", (command.usage)());
        return ExitCode::SUCCESS;
    }
    (command.run)(arguments).unwrap_or_else(|error| {
        eprintln!("xtask {word}: {error:#}");
        ExitCode::FAILURE
    })
}

fn overview() -> String {
    let lines = COMMANDS.iter().map(|command| format!("  {:<10} {}\n", command.name, command.summary));
    format!("cargo xtask <command> [--help]\n\n{}", lines.collect::<String>())
}
