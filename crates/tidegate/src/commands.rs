//! What each command does, and the exit code it ends with.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidegate_server::auth::{Auth, Scope, create_token};
use tidegate_server::config::{self, ConfigError, Flags, RedisPrefix, Resolved, Value as _};
use tidegate_server::env::Environment;
use tidegate_server::{Ended, Server, StartError, openapi_json, redis_acl, stop_signals};

use crate::cli::{Action, Arguments};
use crate::trace;

/// `EX_CONFIG` of `sysexits.h`.
const WRONG_CONFIGURATION: u8 = 78;
/// `EX_OSERR`: the system refused something that never fails on a healthy machine.
const SYSTEM: u8 = 71;
/// What clap ends with on wrong usage.
const USAGE: u8 = 2;
/// `EX_CANTCREAT`.
const CANNOT_CREATE: u8 = 73;
/// Stopped by a second signal, before everything in flight was finished.
const AT_ONCE: u8 = 1;

/// Does what was asked for.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { action, flags, file } = arguments;
    match action {
        Action::ConfigDocs => say(&config::markdown()),
        Action::OpenApi => say(&openapi_json()),
        Action::TokenCreate { scope, note } => token(scope, &note, flags.get("token_file").map(Path::new)),
        Action::RedisAcl { user, prefix } => with_config(&flags, file, |resolved| acl(&user, prefix, &resolved)),
        Action::ConfigCheck => with_config(&flags, file, |resolved| {
            warn(&resolved);
            match resolved.config.token_file.as_deref().map(Auth::from_file) {
                Some(Err(error)) => fail(WRONG_CONFIGURATION, &error.to_string()),
                _ => say("the configuration is valid\n"),
            }
        }),
        Action::ConfigPrint { origins } => {
            with_config(&flags, file, |resolved| say(&config::to_toml(&resolved, origins)))
        }
        Action::Serve => with_config(&flags, file, serve),
    }
}

fn with_config(flags: &Flags, file: Option<PathBuf>, then: impl FnOnce(Resolved) -> ExitCode) -> ExitCode {
    let environment = Environment::read();
    let file = file.or_else(|| environment.config_file());
    match config::resolve(flags, &environment, file.as_deref().map(Path::new)) {
        Ok(resolved) => then(resolved),
        Err(errors) => refuse(&errors),
    }
}

fn refuse(errors: &[ConfigError]) -> ExitCode {
    let count = if errors.len() == 1 { "one error".to_owned() } else { format!("{} errors", errors.len()) };
    eprintln!("tidegate: the configuration has {count}:");
    for error in errors {
        eprintln!("  {error}");
    }
    ExitCode::from(WRONG_CONFIGURATION)
}

fn warn(resolved: &Resolved) {
    for warning in &resolved.warnings {
        eprintln!("tidegate: {warning}");
    }
}

fn serve(resolved: Resolved) -> ExitCode {
    if let Err(error) = trace::start(&resolved.config) {
        eprintln!("tidegate: the configuration has one error:\n  {error}");
        return ExitCode::from(WRONG_CONFIGURATION);
    }
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tidegate").build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(SYSTEM, &format!("failed to start the runtime: {error}")),
    };
    let ended = runtime.block_on(until_drained(resolved));
    // What still runs was cut on purpose; waiting for blocking threads would undo "at once".
    runtime.shutdown_background();
    ended
}

async fn until_drained(resolved: Resolved) -> ExitCode {
    let (stop, cut) = match stop_signals() {
        Ok(tokens) => tokens,
        Err(error) => return fail(SYSTEM, &format!("failed to install signal handlers: {error}")),
    };
    let server = match Server::start(resolved.config).await {
        Ok(server) => server,
        Err(error) => return refuse_start(&error),
    };
    // A closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "{}", server.ready_line());
    match server.run(stop, cut).await {
        Ended::Drained | Ended::AtDeadline => ExitCode::SUCCESS,
        Ended::AtOnce => ExitCode::from(AT_ONCE),
    }
}

fn refuse_start(error: &StartError) -> ExitCode {
    fail(error.exit_code(), &error.to_string())
}

fn token(scope: Scope, note: &str, file: Option<&Path>) -> ExitCode {
    let made = match create_token(scope, note) {
        Ok(made) => made,
        Err(error) => return fail(SYSTEM, &format!("failed to get random bytes: {error}")),
    };
    match file {
        None => {
            eprintln!("The token is shown only now. Put the second line into the token file.");
            say(&format!("{}\n{}\n", made.token, made.line))
        }
        Some(path) => match append(path, &made.line) {
            Ok(()) => {
                eprintln!(
                    "The token is shown only now. Its hash was added to {}; restart the server to accept it.",
                    path.display()
                );
                say(&format!("{}\n", made.token))
            }
            Err(error) => fail(CANNOT_CREATE, &format!("token file {}: failed to write it: {error}", path.display())),
        },
    }
}

fn acl(user: &str, prefix: Option<String>, resolved: &Resolved) -> ExitCode {
    let prefix = prefix.unwrap_or_else(|| resolved.config.redis_prefix.0.clone());
    let bounds = config::Bounds { min: 0, max: 0 };
    let Some(RedisPrefix(prefix)) = RedisPrefix::parse(&prefix, bounds) else {
        return fail(
            USAGE,
            &format!("`{prefix}` is not accepted for --prefix; {}", RedisPrefix::refusal(&prefix, bounds)),
        );
    };
    eprintln!(
        "Replace `password`, give the line to every Redis server (redis-cli), and keep it: in the ACL file or by `ACL SAVE`."
    );
    let stream_prefix = &resolved.config.redis_stream_prefix.0;
    if stream_prefix.is_empty() {
        eprintln!(
            "Warning: any key may be an event stream as redis_stream_prefix is empty, so this user may touch every key (`~*`). \
             `--redis-stream-prefix ev:`, here and for the servers, narrows it."
        );
    }
    say(&format!("{}\n", redis_acl(user, &prefix, stream_prefix)))
}

/// Adds a line to the token file; a new file is readable by its owner only.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    // A last line without an end would swallow ours.
    let separator = if before.last().is_some_and(|byte| *byte != b'\n') { "\n" } else { "" };
    file.write_all(format!("{separator}{line}\n").as_bytes())?;
    file.sync_all()
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(SYSTEM),
    }
}

fn fail(code: u8, reason: &str) -> ExitCode {
    eprintln!("tidegate: {reason}");
    ExitCode::from(code)
}
