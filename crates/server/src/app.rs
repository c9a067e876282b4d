//! What the handlers share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tidegate_events::Bus;
use tidegate_metrics::Registry;
use tidegate_queue::Queues;
use tokio_util::sync::CancellationToken;

use crate::answers::Answers;
use crate::auth::Auth;
use crate::backend::Backend;
use crate::body::{Bodies, BodyBounds};
use crate::browser::Hosts;
use crate::cache::Values;
use crate::config::Config;
use crate::listeners::{self, Listeners};
use crate::seats::Seats;

/// Where jobs go whose kind has no handler in this server.
pub(crate) const DEFAULT_QUEUE: &str = "default";

/// One per server; every field locks for itself.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) auth: Auth,
    pub(crate) hosts: Hosts,
    pub(crate) bodies: Bodies,
    pub(crate) answers: Answers,
    /// Of claims that wait for a job or an event.
    pub(crate) waiting_claims: Seats,
    /// To events, of jobs and of streams.
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) queues: Queues,
    pub(crate) bus: Bus,
    pub(crate) cache: Values,
    pub(crate) backend: Shown<Backend>,
    pub(crate) registry: Shown<Registry>,
    /// Cancelled when the drain begins: waits end, streams close.
    pub(crate) draining: CancellationToken,
    pub(crate) started: Instant,
    /// Requests being answered.
    pub(crate) requests: AtomicUsize,
}

/// What an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) auth: Auth,
    pub(crate) hosts: Hosts,
    pub(crate) queues: Queues,
    pub(crate) bus: Bus,
    pub(crate) cache: Values,
    pub(crate) backend: Backend,
    pub(crate) registry: Registry,
    pub(crate) draining: CancellationToken,
}

/// Keeps `Debug` derivable around things that are not worth printing.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T> std::fmt::Debug for Shown<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

impl<T> std::ops::Deref for Shown<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, auth, hosts, queues, bus, cache, backend, registry, draining } = parts;
        let bodies = Bodies::new(BodyBounds {
            one_max: config.body_bytes_max.as_usize(),
            all_max: config.bodies_bytes_max.as_usize(),
            stall_timeout: config.body_stall_timeout,
            timeout: config.body_timeout,
        });
        let answers = Answers::new(config.answers_bytes_max.as_usize());
        let waiting_claims = Seats::new(config.waiting_claims_max);
        let listeners = Listeners::new(listeners::Bounds {
            all_max: config.sse_max,
            per_token_max: config.sse_per_token_max,
            per_address_max: config.sse_per_address_max,
        });
        Self {
            config,
            auth,
            hosts,
            bodies,
            answers,
            waiting_claims,
            listeners,
            queues,
            bus,
            cache,
            backend: Shown(backend),
            registry: Shown(registry),
            draining,
            started: Instant::now(),
            requests: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}
