//! The binary: arguments, tracing, config, runtime, run until drained. What they do lives in `tidegate-server`.

mod cli;
mod commands;
mod trace;

use std::process::ExitCode;

/// Keeps memory flat where the system's allocator fragments under many small payloads: jobs are made by one thread and
/// freed by another. It has no threads or timers of its own, and needs nothing but the C compiler to be built.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::arguments();
    commands::run(arguments)
}
