//! The conformance suite on Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by the suites of all backends")]
mod conformance;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use conformance::Opening;
use tidegate_events::{Bus, Config};
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Redis, acl_line};
use tidegate_test_redis::{Cluster, Server};
use tokio::sync::OnceCell;

/// A prefix nobody else has used on the servers of this run.
fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn open(url: &str, prefix: &str, config: Config) -> Bus {
    let registry = Registry::new();
    let redis = Redis::connect(tidegate_redis_ops::Config::parse(url).unwrap(), &registry).await.unwrap();
    let stream_prefix = format!("{prefix}s:").into();
    let config = Config { redis_prefix: prefix.into(), redis_stream_prefix: stream_prefix, ..config };
    Bus::connect(redis, config, &registry).await.unwrap()
}

/// Every start is another process on the same Redis, found at `url`.
fn on<F: Future<Output = String> + 'static>(url: impl Fn() -> F + 'static) -> impl Fn(Config) -> Opening + 'static {
    let prefix = prefix();
    move |config| {
        let (prefix, url) = (prefix.clone(), url());
        Box::pin(async move { open(&url.await, &prefix, config).await })
    }
}

fn one_server() -> impl Fn(Config) -> Opening + 'static {
    on(async || tidegate_test_redis::shared().await.url())
}

/// No stream is read directly: all are rung for.
fn cluster() -> impl Fn(Config) -> Opening + 'static {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    on(async || CLUSTER.get_or_init(Cluster::start).await.url())
}

/// TLS, and a user who may do no more than `acl_line` grants.
fn least_user_over_tls() -> impl Fn(Config) -> Opening + 'static {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let start = async || {
        let line = acl_line("app", "t", "t");
        let user = line.strip_prefix("ACL SETUSER ").expect("an ACL line").to_owned();
        Server::builder().tls().acl(user).start().await
    };
    on(move || async move {
        let server = SERVER.get_or_init(start).await;
        format!("{}?ca={}", server.url_as("app", "password"), server.ca().display())
    })
}

mod on_one_server {
    crate::conformance! { crate::one_server }
}

mod on_a_cluster {
    crate::conformance! { crate::cluster }
}

mod as_the_least_user_over_tls {
    crate::conformance! { crate::least_user_over_tls }
}
