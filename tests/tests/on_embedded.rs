//! The journeys on the embedded store; each server has a folder of its own. `on_redis.rs` runs the same on Redis.

#[path = "journeys/auth.rs"]
mod auth;
#[path = "journeys/bad_input.rs"]
mod bad_input;
#[path = "journeys/builtin.rs"]
mod builtin;
#[path = "journeys/cache/mod.rs"]
mod cache;
#[path = "journeys/jobs.rs"]
mod jobs;
#[path = "journeys/lifecycle.rs"]
mod lifecycle;
#[path = "journeys/streams/mod.rs"]
mod streams;
#[path = "journeys/workers.rs"]
mod workers;

use tidegate_tests::{Builder, Server};

/// What `GET job/:id` calls it.
const DURABILITY: &str = "sync";

async fn builder() -> Builder {
    Server::builder()
}

async fn start() -> Server {
    builder().await.start().await
}
