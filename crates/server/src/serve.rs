//! From a configuration to a running server, and from a signal to a clean end.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_metrics::Registry;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Acceptor, Bounds};
use crate::api;
use crate::app::App;
use crate::auth::{Auth, TokenFileError};
use crate::browser::Hosts;
use crate::config::Config;
use crate::gate::Gate;
use crate::limits::connections_that_fit;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The token file cannot be used: configuration (exit 78).
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The address cannot be listened on (exit 69).
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

impl StartError {
    /// The process's exit code, as in `sysexits.h`: 69 for something unavailable, 78 for configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Tokens(_) => 78,
            Self::Listen { .. } => 69,
        }
    }
}

/// How a server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything in flight was finished.
    Drained,
    /// The drain's deadline passed, or a second signal came: connections were cut. Nothing acknowledged is lost.
    Cut,
}

/// A server that listens; it answers once [`Server::run`] is polled.
pub struct Server {
    app: Arc<App>,
    acceptor: Acceptor<Gate>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Opens everything and binds the address. Nothing is spawned if it fails.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let registry = Registry::new();
        let auth = open_auth(&config)?;
        let draining = CancellationToken::new();
        let asked = config.listen_address();
        let listen_error = |source| StartError::Listen { address: asked, source };
        let listener = accept::bind(asked).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let hosts = Hosts::new(address, &config.hosts.0);
        let bounds = bounds(&config);
        let app = Arc::new(App::new(config, auth, hosts, registry.clone(), draining.clone()));
        let gate = Gate::new(Arc::clone(&app), api::router(&app));
        let acceptor = Acceptor::new(Arc::new(gate), bounds, draining, &registry);
        Ok(Self { app, acceptor, listener, address })
    }

    /// Where it listens; with port 0 the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line for standard output when it is ready.
    pub fn ready_line(&self) -> String {
        format!(
            "tidegate listening on http://{} (embedded, durability: {})",
            self.address,
            self.app.config.durability.name()
        )
    }

    /// Answers until `stop` is cancelled, then drains; `cut` ends the drain at once.
    pub async fn run(self, stop: CancellationToken, cut: CancellationToken) -> Ended {
        let Self { app, acceptor, listener, .. } = self;
        let draining = app.draining.clone();
        let drain_when_told = async {
            stop.cancelled().await;
            tracing::info!("draining");
            draining.cancel();
        };
        tokio::join!(acceptor.run(listener), drain_when_told);
        let drain = drain(&app, &acceptor);
        tokio::select! {
            biased;
            () = cut.cancelled() => Ended::Cut,
            ended = drain => ended,
        }
    }
}

async fn drain(app: &App, acceptor: &Acceptor<Gate>) -> Ended {
    let deadline = Instant::now() + app.config.drain_timeout;
    let cut = acceptor.finish(deadline).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "the drain's deadline passed; the remaining connections were cut");
        return Ended::Cut;
    }
    tracing::info!("drained");
    Ended::Drained
}

fn open_auth(config: &Config) -> Result<Auth, StartError> {
    let Some(path) = &config.token_file else {
        if !config.listen_address().ip().is_loopback() {
            tracing::warn!(listen = %config.listen_address(), "listening beyond loopback without tokens, as --insecure-public asks");
        }
        return Ok(Auth::open());
    };
    let (auth, warning) = Auth::from_file(path)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(auth)
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        connections_max: connections_that_fit(config.connections_max),
        connections_per_address_max: config.connections_per_address_max,
        head_timeout: config.head_timeout,
        idle_timeout: config.idle_timeout,
        write_timeout: config.write_timeout,
        streams_max: config.streams_max as u32,
    }
}

/// Tokens that are cancelled by the first and by the second SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_signals() -> std::io::Result<(CancellationToken, CancellationToken)> {
    use tokio::signal::unix::{SignalKind, signal};
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tokens = [stop.clone(), cut.clone()];
    // Ends after the second signal or with the runtime; it holds nothing.
    tokio::spawn(async move {
        for token in tokens {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok((stop, cut))
}

/// The OpenAPI document as JSON.
pub fn openapi_json() -> String {
    api::document().to_pretty_json().unwrap_or_default()
}

#[cfg(test)]
pub(crate) fn app_for_tests() -> App {
    let resolved = crate::config::resolve(&Default::default(), &Default::default(), None).unwrap();
    let hosts = Hosts::new(resolved.config.listen_address(), &[]);
    App::new(resolved.config, Auth::open(), hosts, Registry::new(), CancellationToken::new())
}
