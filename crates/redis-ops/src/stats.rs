//! What is counted about Redis; the same counters are exported and read by [`Health`](crate::Health).

use std::time::Duration;

use tidegate_metrics::{Counter, Gauge, Outcome, Registry, Timer};

use crate::breaker::BreakerState;
use crate::error::Class;

/// `tidegate_redis_*`.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    time: Timer,
    ok: Counter,
    transient: Counter,
    ambiguous: Counter,
    refused: Counter,
    fatal: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) connected: Gauge,
    pub(crate) breaker: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) messages_missed: Counter,
    pub(crate) warnings: Gauge,
}

impl Stats {
    pub(crate) fn new(registry: &Registry) -> Self {
        let commands = |outcome| {
            let help = "Commands by what is known about their execution.";
            registry.counter_with("tidegate_redis_commands_total", help, &[("outcome", outcome)])
        };
        Self {
            time: registry.timer("tidegate_redis_command_seconds", "Time from call to reply."),
            ok: commands("ok"),
            transient: commands("transient"),
            ambiguous: commands("ambiguous"),
            refused: commands("refused"),
            fatal: commands("fatal"),
            reconnects: registry.counter("tidegate_redis_reconnects_total", "General connections made again."),
            connected: registry.gauge("tidegate_redis_connected", "General connections that are up."),
            breaker: registry.gauge("tidegate_redis_breaker_state", "0 closed, 1 half open, 2 open."),
            subscriptions: registry.gauge("tidegate_redis_subscriptions", "Subscriptions of this process."),
            messages_missed: registry
                .counter("tidegate_redis_messages_missed_total", "Messages dropped for slow subscribers."),
            warnings: registry.gauge("tidegate_redis_warnings", "Settings of Redis that an operator should change."),
        }
    }

    /// The same commands, other connections.
    pub(crate) fn tracked(&self, registry: &Registry) -> Self {
        Self {
            reconnects: registry.counter("tidegate_redis_tracked_reconnects_total", "Tracked connections made again."),
            connected: registry.gauge("tidegate_redis_tracked_connected", "Tracked connections that are up."),
            breaker: registry.gauge(
                "tidegate_redis_tracked_breaker_state",
                "Of the tracked connections: 0 closed, 1 half open, 2 open.",
            ),
            ..self.clone()
        }
    }

    pub(crate) fn command(&self, took: Duration, outcome: Result<(), Class>) {
        let (counter, outcome) = match outcome {
            Ok(()) => (&self.ok, Outcome::Succeeded),
            Err(Class::Transient) => (&self.transient, Outcome::Failed),
            Err(Class::Ambiguous) => (&self.ambiguous, Outcome::Failed),
            Err(Class::Refused) => (&self.refused, Outcome::Failed),
            Err(Class::Fatal) => (&self.fatal, Outcome::Failed),
        };
        counter.inc();
        self.time.record_outcome(took, outcome);
    }

    pub(crate) fn breaker(&self, state: BreakerState) {
        self.breaker.set(f64::from(state as u8));
    }
}
