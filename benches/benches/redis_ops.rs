//! The Redis client beside fred and redis-rs, and the deletion of many keys beside `KEYS` and `DEL`: one private
//! redis-server on loopback that keeps nothing on disk, contestants taking turns. The blocking pool and the metadata of
//! streams beside the goals we set ourselves and the calls they save.
//!
//! `cargo bench -p tidegate-benches --bench redis_ops`: about a minute; after `--` name sections (get, delete, pool,
//! streams) to run only those. Lines that begin with `ROW` are for programs. Figures are medians.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::interfaces::{ClientLike, KeysInterface};
use tidegate_benches::measure::{Area, count, median, medians, microseconds, rate};
use tidegate_benches::redis::{self, Pinger};
use tidegate_metrics::Registry;
use tidegate_redis_ops::{BlockingPool, Config, DeleteOptions, PoolConfig, Redis};
use tidegate_test_redis::Server;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
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
    let sections: [(&str, Section); 4] = [("get", get), ("delete", delete), ("pool", pool), ("streams", streams)];
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

/// Goals of the blocking pool: what it is compared with, there being no peer without head-of-line blocking.
const ACQUIRE_GOAL_US: f64 = 1.0;
const WAIT_GOAL_MS: f64 = 400.0;
const USABLE_GOAL_MS: f64 = 5.0;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn pool_of(server: &Server, max: usize) -> BlockingPool {
    let mut config = Config::parse(&server.url()).expect("a URL");
    config.blocking_pool = PoolConfig { min: max, max, acquire_timeout: PATIENCE, ..PoolConfig::default() };
    Redis::connect(config, &Registry::new()).await.expect("a Redis").blocking_pool()
}

/// Having a free connection; being one of a hundred who want one of four; using one again whose read was dropped.
fn pool(runtime: &Runtime, server: &Server) {
    let pool = runtime.block_on(pool_of(server, 4));
    let acquire = (0..ROUNDS).map(|_| runtime.block_on(acquire_free(&pool))).collect();
    AREA.row("blocking pool: have a free one and give it back", median(acquire), "us", "goal", ACQUIRE_GOAL_US);
    let waits = (0..3).map(|_| runtime.block_on(wait_in_line(&pool))).collect();
    AREA.row("blocking pool: p99 of 100, 1 of 4 held 2 s", median(waits), "ms", "goal", WAIT_GOAL_MS);
    let again = runtime.block_on(after_dropped_reads(&pool));
    AREA.row(
        "blocking pool: usable after a dropped XREAD",
        microseconds(&again, 0.5) / 1e3,
        "ms",
        "goal",
        USABLE_GOAL_MS,
    );
    AREA.row("the same, worst of 500", microseconds(&again, 1.0) / 1e3, "ms", "goal", USABLE_GOAL_MS);
}

async fn acquire_free(pool: &BlockingPool) -> f64 {
    const TIMES: u32 = 200_000;
    drop(pool.acquire(None).await.expect("a connection"));
    let started = Instant::now();
    for _ in 0..TIMES {
        drop(pool.acquire(None).await.expect("a connection"));
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
}

/// Milliseconds that 99 of 100 waited at most; each keeps its connection for 10 ms, so that three could serve all in 340.
async fn wait_in_line(pool: &BlockingPool) -> f64 {
    let held = pool.acquire(None).await.expect("a connection");
    let holding = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(held);
    };
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let pool = pool.clone();
        waiting.spawn(async move {
            let asked = Instant::now();
            let _blocking = pool.acquire(None).await.expect("a connection");
            let waited = asked.elapsed();
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited
        });
    }
    let ((), waits) = tokio::join!(holding, waiting.join_all());
    microseconds(&waits, 0.99) / 1e3
}

/// From the moment a blocked read is dropped to the reply of the next command on the same guard.
async fn after_dropped_reads(pool: &BlockingPool) -> Vec<Duration> {
    let mut blocking = pool.acquire(None).await.expect("a connection");
    let mut times = Vec::new();
    for _ in 0..500 {
        let args = ["BLOCK", "0", "STREAMS", "nothing", "$"].map(Bytes::from).to_vec();
        let reading = blocking.call("XREAD", args, PATIENCE);
        let dropped = tokio::time::timeout(Duration::from_millis(3), reading).await;
        assert!(dropped.is_err(), "it blocks");
        let since = Instant::now();
        blocking.call("PING", Vec::new(), PATIENCE).await.expect("PONG");
        times.push(since.elapsed());
    }
    times
}

const STREAMS: usize = 1000;

/// Length, first and last id of a thousand streams: asked in bulk, and as the obvious loop of three calls each does.
fn streams(runtime: &Runtime, server: &Server) {
    let names: Vec<Bytes> = (0..STREAMS).map(|number| format!("metadata:{number}").into()).collect();
    let redis = runtime.block_on(redis::connect(server));
    runtime.block_on(async {
        server.cli(&["FLUSHALL", "SYNC"]).await;
        for name in &names {
            for _ in 0..5 {
                let args = [&name[..], b"*", b"field", b"a value of some forty bytes, as they are"];
                let args = args.map(Bytes::copy_from_slice).to_vec();
                redis.command("XADD", Some(name.clone()), args).await.expect("an id");
            }
        }
    });
    let bulk = || runtime.block_on(async { milliseconds(redis.stream_infos(&names)).await });
    let three = || runtime.block_on(async { milliseconds(three_calls_each(&redis, &names)).await });
    let [ours, theirs] = medians(ROUNDS, [&mut || bulk(), &mut || three()]);
    AREA.row("metadata of 1000 streams", ours, "ms", "three awaited calls each", theirs);

    // As often as fits into a stretch; the worst of a PING every millisecond.
    let worst = |work: &dyn Fn() -> f64| {
        let (pinger, until) = (Pinger::start(server), Instant::now() + TURN);
        while Instant::now() < until {
            work();
        }
        pinger.worst_ms()
    };
    let [ours, theirs] = medians(ROUNDS, [&mut || worst(&bulk), &mut || worst(&three)]);
    AREA.row("worst PING during metadata of 1000 streams", ours, "ms", "three awaited calls each", theirs);
}

async fn milliseconds<T>(work: impl Future<Output = T>) -> f64 {
    let started = Instant::now();
    let _ = work.await;
    started.elapsed().as_secs_f64() * 1e3
}

async fn three_calls_each(redis: &Redis, names: &[Bytes]) {
    for name in names {
        let key = Some(name.clone());
        redis.command("XLEN", key.clone(), vec![name.clone()]).await.expect("a length");
        for (command, from, to) in [("XRANGE", "-", "+"), ("XREVRANGE", "+", "-")] {
            let args = vec![name.clone(), from.into(), to.into(), "COUNT".into(), "1".into()];
            redis.command(command, key.clone(), args).await.expect("an entry");
        }
    }
}
