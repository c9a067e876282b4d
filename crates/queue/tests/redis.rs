//! The conformance suite on Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "shared by the suites of all backends")]
mod conformance;

use std::sync::atomic::{AtomicU64, Ordering};

use conformance::Opening;
use tidegate_metrics::Registry;
use tidegate_queue::{Config, Queues};
use tidegate_redis_ops::Redis;

/// A prefix nobody else has used on the servers of this run.
fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn open(url: &str, prefix: &str, config: Config) -> Queues {
    let registry = Registry::new();
    let redis = Redis::connect(tidegate_redis_ops::Config::parse(url).unwrap(), &registry).await.unwrap();
    Queues::connect(redis, Config { redis_prefix: prefix.into(), ..config }, &registry).await.unwrap()
}

/// Every start is another process on the same server.
fn standalone() -> impl Fn(Config) -> Opening + 'static {
    let prefix = prefix();
    move |config| {
        let prefix = prefix.clone();
        Box::pin(async move { open(&tidegate_test_redis::shared().await.url(), &prefix, config).await })
    }
}

mod on_one_server {
    crate::conformance! { crate::standalone }
}
