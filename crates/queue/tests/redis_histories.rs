//! Random histories of queues on Redis against the same naive model. Stops and starts of processes leave no trace there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "a module of this test")]
mod model;

use std::sync::atomic::{AtomicU64, Ordering};

use model::pair::{Place, agree};
use tidegate_metrics::Registry;
use tidegate_queue::{Config, Queues};
use tidegate_redis_ops::Redis;
use tidegate_test_redis::{Cluster, Server};

/// Histories at once, each lot on a server of its own.
const THREADS: u32 = 4;

struct OnRedis {
    redis: Redis,
    prefix: String,
}

impl OnRedis {
    fn new(redis: &Redis) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self { redis: redis.clone(), prefix: format!("h{}", COUNT.fetch_add(1, Ordering::Relaxed)) }
    }
}

impl Place for OnRedis {
    async fn open(&self, config: Config) -> Queues {
        let config = Config { redis_prefix: self.prefix.as_str().into(), ..config };
        Queues::connect(self.redis.clone(), config, &Registry::new()).await.unwrap()
    }

    fn restart(&self, _crash: bool) -> bool {
        false
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(url: &str) -> Redis {
    Redis::connect(tidegate_redis_ops::Config::parse(url).expect("a url of the harness"), &Registry::new())
        .await
        .unwrap()
}

#[test]
fn ten_thousand_random_histories_on_one_server_agree_with_the_model() {
    let lot = || {
        let runtime = runtime();
        let server = runtime.block_on(Server::start());
        let redis = runtime.block_on(connect(&server.url()));
        agree(&runtime, 10_000 / THREADS, || OnRedis::new(&redis));
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(lot);
        }
    });
}

#[test]
fn random_histories_on_a_cluster_agree_with_the_model() {
    on_a_cluster(500);
}

#[test]
#[ignore = "some minutes"]
fn ten_thousand_random_histories_on_a_cluster_agree_with_the_model() {
    on_a_cluster(10_000);
}

fn on_a_cluster(cases: u32) {
    let runtime = runtime();
    let cluster = runtime.block_on(Cluster::start());
    let redis = runtime.block_on(connect(&cluster.url()));
    agree(&runtime, cases, || OnRedis::new(&redis));
}
