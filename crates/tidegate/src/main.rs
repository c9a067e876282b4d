//! The binary: arguments, tracing, config, runtime, run until drained. What they do lives in `tidegate-server`.

mod cli;
mod commands;
mod trace;

use std::process::ExitCode;

/// Keeps memory flat where the system's allocator fragments under many small payloads. Its background thread stays
/// off: an idle server wakes nothing.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = cli::arguments();
    commands::run(arguments)
}
