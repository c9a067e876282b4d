//! Logging to standard error; standard output belongs to the ready line.

use std::io::IsTerminal as _;

use tidegate_server::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging as configured.
///
/// # Errors
/// A sentence about directives that cannot be read.
pub(crate) fn start(config: &Config) -> Result<(), String> {
    let directives = EnvFilter::try_new(&config.log).map_err(|error| {
        format!(
            "log: `{}` is not accepted ({error}); accepted: a level, or directives such as `info,tidegate_queue=debug`",
            config.log
        )
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(directives).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
