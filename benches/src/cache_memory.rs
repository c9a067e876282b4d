//! Memory of caches, as the kernel sees it. Each measure is taken in a process of its own, which is this program started
//! again, so that nobody's free pages are another's.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use quick_cache::UnitWeighter;
use tidegate_cache::{Cache, Config, Keep, Raw};
use tidegate_metrics::Registry;
use tokio::runtime::Handle;

use crate::cache::{Random, in_memory, key, value};

/// The argument that makes the program measure memory and print one number.
pub const ARGUMENT: &str = "--memory=";
/// Entries each cache is given, and may hold.
const ENTRIES: usize = 1_000_000;
/// What a burst may take.
const BUDGET: u64 = 256 << 20;
/// Inserts of the burst.
const INSERTS: usize = 10_000_000;
const THREADS: usize = 2;

/// Asks a process of its own for a measure.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn ask(what: &str) -> f64 {
    let program = std::env::current_exe().expect("a program");
    let output = Command::new(program).arg(format!("{ARGUMENT}{what}")).output().expect("a process");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// Measures and prints.
///
/// # Panics
/// When there is no such measure.
pub fn answer(runtime: &Handle, what: &str) {
    let measured = match what {
        "nothing" => per_entry(|_, _| ()),
        "moka" => {
            let cache = moka::sync::Cache::<Box<str>, Bytes>::new(ENTRIES as u64);
            per_entry(|key, value| cache.insert(key.into(), value))
        }
        "quick_cache" => {
            let hasher = foldhash::fast::RandomState::default();
            let cache = quick_cache::sync::Cache::<Box<str>, Bytes, UnitWeighter, _>::with(
                ENTRIES,
                ENTRIES as u64,
                UnitWeighter,
                hasher,
                quick_cache::sync::DefaultLifecycle::default(),
            );
            per_entry(|key, value| cache.insert(key.into(), value))
        }
        "ours" => {
            let cache = runtime.block_on(async { in_memory(ENTRIES) });
            per_entry(|key, value| kept(runtime, &cache, key, value))
        }
        "burst" => burst(runtime),
        other => panic!("no measure is called {other}"),
    };
    println!("{measured}");
}

fn kept(runtime: &Handle, cache: &Cache<Bytes>, key: &str, value: Bytes) {
    runtime.block_on(cache.set(key, value, Keep::new())).expect("kept");
}

/// Bytes of an entry besides its key and value, when a cache is full and has evicted as many as it holds. Key and value
/// are what the caller gives: the text and its pointer, the bytes and their handle.
fn per_entry(mut insert: impl FnMut(&str, Bytes)) -> f64 {
    let before = resident();
    for number in 0..2 * ENTRIES {
        insert(&key(number), value(number));
    }
    let own = (0..ENTRIES).map(|number| value(number).len() + key(number).len()).sum::<usize>() as f64;
    let handles = (ENTRIES * (size_of::<Box<str>>() + size_of::<Bytes>())) as f64;
    (resident() - before - own - handles) / ENTRIES as f64
}

/// What the process grew by at most while two threads insert ten million values of 16 bytes to 16 KiB, small ones
/// more often, as part of what the cache may take.
fn burst(runtime: &Handle) -> f64 {
    let config = Config { entries_max: 1 << 20, bytes_max: BUDGET, ..Config::default() };
    let cache = runtime.block_on(async { Cache::memory(Raw, config, &Registry::new()).expect("a cache") });
    let (before, done) = (resident(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for seed in 1..=THREADS as u64 {
            let (cache, done) = (&cache, &done);
            scope.spawn(move || {
                let mut random = Random(seed);
                runtime.block_on(async {
                    while done.fetch_add(1, Ordering::Relaxed) < INSERTS {
                        let key = key(random.below(2 * INSERTS));
                        let size = (16.0 * 1024_f64.powf(random.unit())) as usize;
                        cache.set(&key, Bytes::from(vec![b'x'; size]), Keep::new()).await.expect("kept");
                    }
                });
            });
        }
    });
    (most_resident() - before) / BUDGET as f64
}

/// Resident memory of this process in bytes; 0 where the kernel does not tell.
fn resident() -> f64 {
    status("VmRSS:")
}

/// The most there ever was.
fn most_resident() -> f64 {
    status("VmHWM:")
}

fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0.0) * 1024.0
}
