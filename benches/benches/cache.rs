//! The cache: hits, inserts and invalidations beside bare moka and bare `quick_cache`; which part of reads finds a value;
//! memory; values from Redis beside bare commands; fills that race with changes.
//!
//! `cargo bench -p tidegate-benches --bench cache`: about five minutes; after `--` name sections (hit, insert, invalidate,
//! policies, memory, races, redis) to run only those. Lines that begin with `ROW` are for programs. Figures are medians, and
//! contestants take turns. Hits, inserts and invalidations are in computed time, which
//! others on the same cores do not lengthen. All have the same keys of 21 bytes (`Box<str>`) and values of 100 to 149 (`Bytes`); `quick_cache`
//! has the quickest hash function there is, which is ours as well.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use fred::interfaces::ClientLike;
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;
use tidegate_benches::cache::{self as load, asked, in_memory, keys, nanos_per_key, value};
use tidegate_benches::cache_policies::{self as policies, Trace};
use tidegate_benches::cache_races::{self as races, stale_rounds};
use tidegate_benches::measure::{Area, median, medians};
use tidegate_benches::peers::{self, Peer};
use tidegate_benches::{cache_memory as memory, cache_redis, redis};
use tidegate_cache::{Cache, Invalidation, Keep};
use tidegate_test_redis::Server;
use tokio::runtime::{Handle, Runtime};

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AREA: Area = Area("cache");
const ROUNDS: usize = 9;
/// Keys that fit, so that every read is a hit.
const HOT: usize = 10_000;
const READS: usize = 1_000_000;
/// A peer that takes microseconds is asked less often.
const PEER_READS: usize = 100_000;
/// Keys put in or taken out.
const MANY: usize = 100_000;
const RACES: usize = 1_000_000;
const SKEW: f64 = 0.99;

struct Bench {
    runtime: Runtime,
    peers: Vec<Peer>,
}

type Section = fn(&Bench);
type Quick = quick_cache::sync::Cache<Box<str>, Bytes, UnitWeighter, RandomState>;
type Moka = moka::sync::Cache<Box<str>, Bytes>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    if let Some(what) = arguments.iter().find_map(|argument| argument.strip_prefix(memory::ARGUMENT)) {
        return memory::answer(runtime.handle(), what);
    }
    let peers = arguments.iter().find_map(|argument| argument.strip_prefix("--cache-peers="));
    let peers = peers.map(|list| peers::read(Path::new(list))).unwrap_or_default();
    let bench = Bench { runtime, peers };
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let sections: [(&str, Section); 7] = [
        ("hit", hit),
        ("insert", insert),
        ("invalidate", invalidate),
        ("policies", hit_ratios),
        ("memory", bytes_per_entry),
        ("races", racing_fills),
        ("redis", from_redis),
    ];
    for (name, section) in sections {
        if named.is_empty() || named.iter().any(|asked| *asked == name) {
            section(&bench);
        }
    }
}

impl Bench {
    fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    fn ours(&self, capacity: usize) -> Cache<Bytes> {
        let _entered = self.runtime.enter();
        in_memory(capacity)
    }
}

fn quick(capacity: usize) -> Quick {
    Quick::with(capacity, capacity as u64, UnitWeighter, RandomState::default(), DefaultLifecycle::default())
}

fn moka(capacity: usize) -> Moka {
    Moka::new(capacity as u64)
}

async fn get_all(cache: &Cache<Bytes>, keys: &[&str]) {
    for key in keys {
        drop(black_box(cache.get(key).await));
    }
}

async fn set_all(cache: &Cache<Bytes>, keys: &[impl AsRef<str> + Sync], value: &Bytes) {
    for key in keys {
        cache.set(key.as_ref(), value.clone(), Keep::new()).await.expect("kept");
    }
}

fn for_each(keys: &[&str], mut work: impl FnMut(&str)) {
    keys.iter().for_each(|key| work(key));
}

fn threads_named(threads: usize) -> String {
    format!("{threads} thread{}", if threads == 1 { "" } else { "s" })
}

/// Reads of keys that are there, asked for as zipf has it: `get` in a task, and `peek`; in memory alone, and with Redis behind.
fn hit(bench: &Bench) {
    let names = keys(HOT);
    let server = bench.runtime.block_on(redis::start());
    let (ours, two_tiers, quick, moka) =
        (bench.ours(2 * HOT), two_tiers(bench, &server), quick(2 * HOT), moka(2 * HOT));
    for (number, name) in names.iter().enumerate() {
        // Each its own, so that nobody finds the other's in the processor's cache.
        quick.insert(name.as_str().into(), value(number));
        moka.insert(name.as_str().into(), value(number));
        bench.runtime.block_on(async {
            ours.set(name, value(number), Keep::new()).await.expect("kept");
            two_tiers.set(name, value(number), Keep::new()).await.expect("kept");
        });
    }
    let misses = || ours.stats().memory.misses + two_tiers.stats().memory.misses;
    let before = misses();
    for threads in [1, 2] {
        let asked = asked(&names, threads, READS, SKEW);
        let [get, peek, both, theirs, others] = medians(
            ROUNDS,
            [
                &mut || nanos_per_key(&asked, |keys| bench.handle().block_on(get_all(&ours, keys))),
                &mut || nanos_per_key(&asked, |keys| for_each(keys, |key| drop(black_box(ours.peek(key))))),
                &mut || nanos_per_key(&asked, |keys| bench.handle().block_on(get_all(&two_tiers, keys))),
                &mut || nanos_per_key(&asked, |keys| for_each(keys, |key| drop(black_box(quick.get(key))))),
                &mut || nanos_per_key(&asked, |keys| for_each(keys, |key| drop(black_box(moka.get(key))))),
            ],
        );
        let threads = threads_named(threads);
        AREA.row(&format!("hit, get, {threads}"), get, "ns", "quick_cache", theirs);
        AREA.row(&format!("hit, get, {threads}"), get, "ns", "moka", others);
        AREA.row(&format!("hit, peek, {threads}"), peek, "ns", "quick_cache", theirs);
        AREA.row(&format!("hit, peek, {threads}"), peek, "ns", "moka", others);
        AREA.row(&format!("hit, get, two tiers, {threads}"), both, "ns", "quick_cache", theirs);
        for peer in bench.peers.iter().filter(|_| threads == "1 thread") {
            let figures = peer.ask(&server.url(), &format!("hit {PEER_READS} {HOT}"));
            AREA.row("hit, two tiers, beside get", both, "ns", &format!("{} get", peer.name), figures[0]);
            AREA.row("hit, two tiers, beside getOrSet", both, "ns", &format!("{} getOrSet", peer.name), figures[1]);
        }
    }
    // Where a core is not had for two seconds the link cannot be verified, and Redis is asked.
    assert!(misses() - before < READS as u64 / 100, "{} reads were no hits", misses() - before);
    bench.runtime.block_on(async { tokio::join!(ours.close(), two_tiers.close()) });
}

fn two_tiers(bench: &Bench, server: &Server) -> Cache<Bytes> {
    bench.runtime.block_on(async { cache_redis::open(&redis::connect(server).await).await })
}

/// Keys put into caches that hold half of them, and evict as many.
fn insert(bench: &Bench) {
    let names = keys(2 * MANY);
    let value = value(0);
    for threads in [1, 2] {
        let (ours, quick, moka) = (bench.ours(MANY), quick(MANY), moka(MANY));
        let mut random = load::Random(7);
        let order = load::shuffled(names.len(), &mut random);
        let parts = order.chunks(names.len() / threads);
        let asked: Vec<Vec<&str>> = parts.map(|part| part.iter().map(|&at| names[at].as_str()).collect()).collect();
        let [set, theirs, others] = medians(
            ROUNDS,
            [
                &mut || nanos_per_key(&asked, |keys| bench.handle().block_on(set_all(&ours, keys, &value))),
                &mut || nanos_per_key(&asked, |keys| for_each(keys, |key| quick.insert(key.into(), value.clone()))),
                &mut || nanos_per_key(&asked, |keys| for_each(keys, |key| moka.insert(key.into(), value.clone()))),
            ],
        );
        let name = format!("insert, {}", threads_named(threads));
        AREA.row(&name, set, "ns", "quick_cache", theirs);
        AREA.row(&name, set, "ns", "moka", others);
        bench.runtime.block_on(ours.close());
    }
}

/// Keys taken out that are there: `delete` one by one, and `invalidate` for a hundred at a time.
fn invalidate(bench: &Bench) {
    let names = keys(MANY);
    let value = value(0);
    let asked = vec![names.iter().map(String::as_str).collect::<Vec<_>>()];
    let (ours, quick, moka) = (bench.ours(2 * MANY), quick(2 * MANY), moka(2 * MANY));
    let [delete, batches, theirs, others] = medians(
        ROUNDS,
        [
            &mut || {
                bench.runtime.block_on(set_all(&ours, &names, &value));
                nanos_per_key(&asked, |keys| bench.handle().block_on(delete_all(&ours, keys)))
            },
            &mut || {
                bench.runtime.block_on(set_all(&ours, &names, &value));
                nanos_per_key(&asked, |keys| bench.handle().block_on(invalidate_all(&ours, keys)))
            },
            &mut || {
                names.iter().for_each(|name| quick.insert(name.as_str().into(), value.clone()));
                nanos_per_key(&asked, |keys| for_each(keys, |key| drop(quick.remove(key))))
            },
            &mut || {
                names.iter().for_each(|name| moka.insert(name.as_str().into(), value.clone()));
                moka.run_pending_tasks();
                nanos_per_key(&asked, |keys| for_each(keys, |key| moka.invalidate(key)))
            },
        ],
    );
    for (name, ours) in [("invalidate, one by one", delete), ("invalidate, 100 at a time", batches)] {
        AREA.row(name, ours, "ns", "quick_cache", theirs);
        AREA.row(name, ours, "ns", "moka", others);
    }
    bench.runtime.block_on(ours.close());
}

async fn delete_all(cache: &Cache<Bytes>, keys: &[&str]) {
    for key in keys {
        assert!(cache.delete(key).await.expect("memory"), "it was there");
    }
}

async fn invalidate_all(cache: &Cache<Bytes>, keys: &[&str]) {
    for keys in keys.chunks(100) {
        let keys: Vec<Invalidation> = keys.iter().map(|key| Invalidation::key(*key)).collect();
        cache.invalidate_all(&keys).await.expect("memory");
    }
}

/// Every trace, with room for one and for ten keys of a hundred.
fn hit_ratios(bench: &Bench) {
    let (mut behind_best, mut ahead_of_lru) = (f64::NEG_INFINITY, f64::INFINITY);
    for (name, trace) in Trace::ALL {
        let numbers = trace.numbers();
        for per_cent in [1, 10] {
            let capacity = policies::KEYS / 100 * per_cent;
            let ours = policies::of_ours(bench.handle(), &numbers, capacity);
            let lru = policies::of_lru(&numbers, capacity);
            let theirs = [
                ("LRU", lru),
                ("moka", policies::of_moka(&numbers, capacity)),
                ("quick_cache", policies::of_quick_cache(&numbers, capacity)),
            ];
            for (peer, hits) in theirs {
                let name = format!("hits, {name}, {per_cent} %");
                // Nothing is a multiple of none.
                if hits > 0.0 {
                    AREA.row(&name, ours, "%", peer, hits);
                } else {
                    AREA.lone_row(&name, ours, "%");
                }
                behind_best = f64::max(behind_best, hits - ours);
            }
            if !matches!(trace, Trace::Drift) {
                ahead_of_lru = f64::min(ahead_of_lru, ours - lru);
            }
        }
    }
    AREA.lone_row("hits: most behind the best", behind_best, "points");
    AREA.lone_row("hits: least ahead of LRU, without drift", ahead_of_lru, "points");
}

/// A million entries in a process of its own; ten million inserts where 256 MiB may be taken.
fn bytes_per_entry(_: &Bench) {
    let [nothing, ours, quick, moka] = ["nothing", "ours", "quick_cache", "moka"].map(memory::ask);
    let name = "memory per entry beyond key and value";
    AREA.row(name, ours, "bytes", "quick_cache", quick);
    AREA.row(name, ours, "bytes", "moka", moka);
    // Without a cache nothing is kept: what is left must be what was taken off for keys and values.
    assert!(nothing < 0.0, "inserting nothing takes {nothing} bytes per entry");
    let most = median((0..3).map(|_| memory::ask("burst")).collect());
    AREA.row("peak of 10 M inserts of mixed sizes", most, "budgets", "budget", 1.0);
}

/// A million rounds in which a fill races with a change.
fn racing_fills(bench: &Bench) {
    let ours = {
        let _entered = bench.runtime.enter();
        races::Ours::open()
    };
    let ours = bench.runtime.block_on(stale_rounds(ours, RACES)) as f64;
    let naive = bench.runtime.block_on(stale_rounds(races::Naive::default(), RACES)) as f64;
    let moka = bench.runtime.block_on(stale_rounds(races::Moka::default(), RACES)) as f64;
    let name = "stale for good after 1 M racing fills";
    AREA.row(name, ours, "rounds", "get, load, insert", naive);
    AREA.row(name, ours, "rounds", "moka get_with", moka);
}

/// Values that are on Redis and not in memory.
fn from_redis(bench: &Bench) {
    let names = Arc::new(keys(cache_redis::KEYS));
    let bare: Vec<Bytes> = names.iter().map(|name| cache_redis::bare(name)).collect();
    let (runtime, server) = (&bench.runtime, bench.runtime.block_on(redis::start()));
    let (link, fred) = runtime.block_on(async {
        let link = redis::connect(&server).await;
        cache_redis::fill(&link, &names).await;
        (link, bare_fred(&server).await)
    });
    let [many, mget, each, theirs] = medians(
        ROUNDS,
        [
            &mut || runtime.block_on(cache_redis::get_many(&link, &names)),
            &mut || runtime.block_on(cache_redis::mget(&link, &bare)),
            &mut || runtime.block_on(cache_redis::get_each(&link, &names)),
            &mut || runtime.block_on(cache_redis::fred_each(&fred, &names)),
        ],
    );
    AREA.row("get_many(100) from Redis", many, "keys/s", "MGET of 100", mget);
    AREA.row("misses of 64 callers, from Redis", each, "keys/s", "fred GET", theirs);
    runtime.block_on(link.close());
}

async fn bare_fred(server: &Server) -> fred::clients::Client {
    let config = fred::types::config::Config::from_url(&server.url()).expect("a URL");
    let client = fred::types::Builder::from_config(config).build().expect("a client");
    client.init().await.expect("a Redis");
    client
}
