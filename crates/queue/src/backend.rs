//! The closed set of places where queues live. Each arm uses the best structure of its world.

use crate::embedded::Embedded;
use crate::redis::RedisQueues;

/// Where queues live.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// In this process, durable in an embedded store.
    Embedded(Embedded),
    /// On a Redis, shared by any number of processes.
    Redis(RedisQueues),
}
