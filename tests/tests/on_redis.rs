//! The journeys on Redis: one that all of them share, each server under a prefix of its own. `on_embedded.rs` runs the same
//! on the embedded store; what several servers are to each other is in `redis.rs`.

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

use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_tests::{Builder, Server};

/// What `GET job/:id` calls it: this Redis keeps nothing, and no journey kills it.
const DURABILITY: &str = "none";

async fn builder() -> Builder {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let prefix = format!("journey-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let redis = tidegate_test_redis::shared().await;
    let builder = Server::builder().redis(&redis.url()).env("TIDEGATE_REDIS_PREFIX", &prefix);
    builder.env("TIDEGATE_REDIS_STREAM_PREFIX", &format!("{prefix}/"))
}

async fn start() -> Server {
    builder().await.start().await
}
