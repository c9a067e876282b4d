//! The Redis client beside fred and redis-rs, and the deletion of many keys beside `KEYS` and `DEL`: one private
//! redis-server on loopback that keeps nothing on disk, contestants taking turns.
//!
//! `cargo bench -p tidegate-benches --bench redis_ops`: about a minute; after `--` name sections (get, delete) to run only
//! those. Lines that begin with `ROW` are for programs. Figures are medians.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::interfaces::{ClientLike, KeysInterface};
use tidegate_benches::measure::{Area, count, median, medians, rate};
use tidegate_benches::redis::{self, Pinger};
use tidegate_redis_ops::DeleteOptions;
use tidegate_test_redis::Server;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AREA: Area = Area("redis_ops");
const ROUNDS: usize = 7;
const TASKS: usize = 64;
/// One turn of a contestant that is timed by the clock.
const TURN: Duration = Duration::from_millis(600);
const KEYS: usize = 1_000_000;

type Section = fn(&Runtime, &Server);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = runtime.block_on(redis::start());
    let sections: [(&str, Section); 2] = [("get", get), ("delete", delete)];
    for (name, section) in sections {
        if arguments.is_empty() || arguments.iter().any(|asked| asked == name) {
            section(&runtime, &server);
        }
    }
}

async fn bare_fred(server: &Server) -> fred::clients::Client {
    let config = fred::types::config::Config::from_url(&server.url()).expect("a URL");
    let client = fred::types::Builder::from_config(config).build().expect("a client");
    client.init().await.expect("a Redis");
    client
}

/// 64 tasks that each await a `GET` of 8 bytes, one after the other.
fn get(runtime: &Runtime, server: &Server) {
    let key = Bytes::from_static(b"key");
    let (ours, fred, pool, theirs) = runtime.block_on(async {
        server.cli(&["SET", "key", "12345678"]).await;
        let config = fred::types::config::Config::from_url(&server.url()).expect("a URL");
        // As many connections as ours has.
        let pool = fred::types::Builder::from_config(config).build_pool(2).expect("clients");
        pool.init().await.expect("a Redis");
        let client = ::redis::Client::open(server.url()).expect("a URL");
        let theirs = client.get_multiplexed_async_connection().await.expect("a Redis");
        (redis::connect(server).await, bare_fred(server).await, pool, theirs)
    });
    let [ours, fred, pool, theirs] = medians(
        ROUNDS,
        [
            &mut || {
                runtime.block_on(rate(TASKS, TURN, |until| {
                    let (ours, key) = (ours.clone(), key.clone());
                    count(until, async move || {
                        ours.command("GET", Some(key.clone()), vec![key.clone()]).await.expect("a value");
                    })
                }))
            },
            &mut || {
                runtime.block_on(rate(TASKS, TURN, |until| {
                    let fred = fred.clone();
                    count(until, async move || drop(fred.get::<Bytes, _>("key").await.expect("a value")))
                }))
            },
            &mut || {
                runtime.block_on(rate(TASKS, TURN, |until| {
                    let pool = pool.clone();
                    count(until, async move || drop(pool.get::<Bytes, _>("key").await.expect("a value")))
                }))
            },
            &mut || {
                runtime.block_on(rate(TASKS, TURN, |until| {
                    let theirs = theirs.clone();
                    count(until, async move || {
                        let mut theirs = theirs.clone();
                        let get = ::redis::cmd("GET").arg("key").query_async::<Vec<u8>>(&mut theirs).await;
                        get.expect("a value");
                    })
                }))
            },
        ],
    );
    AREA.row("GET, 64 tasks", ours, "calls/s", "fred", fred);
    AREA.row("GET, 64 tasks", ours, "calls/s", "fred, 2 connections", pool);
    AREA.row("GET, 64 tasks", ours, "calls/s", "redis-rs", theirs);
}

/// A million of a million and ten thousand keys go; somebody else asks `PING` every millisecond meanwhile.
fn delete(runtime: &Runtime, server: &Server) {
    let (ours, fred) = runtime.block_on(async { (redis::connect(server).await, bare_fred(server).await) });
    let mut values = [const { Vec::new() }; 4];
    for _ in 0..3 {
        let by_scan = runtime.block_on(timed(server, async || {
            let options = DeleteOptions::default();
            ours.delete_matching("doomed:*", options, |_| {}, &CancellationToken::new()).await.expect("deleted")
        }));
        let by_keys = runtime.block_on(timed(server, async || {
            // The house rule against this command is for us; here it is the baseline.
            let keys = fred::types::CustomCommand::new_static("keys", None, false);
            let keys: Vec<Bytes> = fred.custom(keys, vec!["doomed:*"]).await.expect("keys");
            fred.del::<u64, _>(keys).await.expect("deleted")
        }));
        for (values, value) in values.iter_mut().zip([by_scan, by_keys].concat()) {
            values.push(value);
        }
    }
    let [ours, worst, theirs, their_worst] = values.map(median);
    AREA.row("delete 1 M matching keys", ours, "ms", "DEL of KEYS", theirs);
    AREA.row("worst PING while 1 M keys are deleted", worst, "ms", "DEL of KEYS", their_worst);
}

/// Milliseconds in all, and of the worst `PING`.
async fn timed(server: &Server, work: impl AsyncFnOnce() -> u64) -> [f64; 2] {
    server.cli(&["FLUSHALL", "SYNC"]).await;
    server.cli(&["DEBUG", "POPULATE", &KEYS.to_string(), "doomed", "20"]).await;
    server.cli(&["DEBUG", "POPULATE", "10000", "spared", "20"]).await;
    let pinger = Pinger::start(server);
    let started = Instant::now();
    let deleted = work().await;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let worst = pinger.worst_ms();
    assert_eq!(deleted, KEYS as u64);
    [took, worst]
}
