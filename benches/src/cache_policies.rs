//! Which part of reads finds a value, by what a cache evicts: traces, and caches that are asked them.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use tidegate_cache::{Cache, Keep};
use tokio::runtime::Handle;

use crate::cache::{Random, Zipf, in_memory, keys, shuffled};

/// Keys of a trace, without those that a scan passes by.
pub const KEYS: usize = 100_000;
const READS: usize = 1_000_000;

/// In which order keys are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Trace {
    /// Some keys are asked for more than others, always the same.
    Zipf(f64),
    /// As zipf 0.99; every 50 000 reads somebody passes by 25 000 keys in a row, that nobody else asks for.
    Scan,
    /// As zipf 0.99, but each 100 reads the hottest key is forgotten for good and a new one comes.
    Drift,
    /// The same 20 000 keys in a row, over and over.
    Loop,
}

impl Trace {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("zipf 0.99", Self::Zipf(0.99)),
        ("zipf 0.8", Self::Zipf(0.8)),
        ("scan", Self::Scan),
        ("drift", Self::Drift),
        ("loop", Self::Loop),
    ];

    /// The numbers of the keys asked for.
    #[must_use]
    pub fn numbers(self) -> Vec<u32> {
        let mut random = Random(0xD1B5_4A32_D192_ED03);
        let names = shuffled(KEYS, &mut random);
        let zipf = Zipf::new(KEYS, if let Self::Zipf(skew) = self { skew } else { 0.99 });
        let mut read = |at: usize| match self {
            Self::Zipf(_) => names[zipf.draw(&mut random)],
            Self::Scan if at % 50_000 < 25_000 => KEYS + (at / 50_000 * 25_000 + at % 50_000) % (KEYS * 3),
            Self::Scan => names[zipf.draw(&mut random)],
            Self::Drift => at / 100 + zipf.draw(&mut random),
            Self::Loop => at % (KEYS / 5),
        };
        (0..READS).map(|at| read(at) as u32).collect()
    }
}

/// The part of reads that found a value, in per cent; what was not found is put in.
fn hits(trace: &[u32], mut reads: impl FnMut(u32) -> bool) -> f64 {
    trace.iter().filter(|number| reads(**number)).count() as f64 / trace.len() as f64 * 100.0
}

/// Least recently used.
///
/// # Panics
/// When it may hold none.
#[must_use]
pub fn of_lru(trace: &[u32], capacity: usize) -> f64 {
    let mut cache = LruCache::new(NonZeroUsize::new(capacity).expect("room"));
    hits(trace, |number| {
        let is_hit = cache.get(&number).is_some();
        if !is_hit {
            cache.put(number, ());
        }
        is_hit
    })
}

/// moka, as it is by default.
#[must_use]
pub fn of_moka(trace: &[u32], capacity: usize) -> f64 {
    let cache = moka::sync::Cache::<u32, ()>::new(capacity as u64);
    hits(trace, |number| {
        let is_hit = cache.get(&number).is_some();
        if !is_hit {
            cache.insert(number, ());
        }
        is_hit
    })
}

/// `quick_cache`, as it is by default.
#[must_use]
pub fn of_quick_cache(trace: &[u32], capacity: usize) -> f64 {
    let cache = quick_cache::sync::Cache::<u32, ()>::new(capacity);
    hits(trace, |number| {
        let is_hit = cache.get(&number).is_some();
        if !is_hit {
            cache.insert(number, ());
        }
        is_hit
    })
}

/// Ours, through its public handle.
///
/// # Panics
/// When a value is not kept.
#[must_use]
pub fn of_ours(runtime: &Handle, trace: &[u32], capacity: usize) -> f64 {
    let names = keys(trace.iter().max().map_or(0, |most| *most as usize + 1));
    runtime.block_on(async {
        let cache = in_memory(capacity);
        for number in trace {
            read_through(&cache, &names[*number as usize]).await;
        }
        let stats = cache.stats();
        cache.close().await;
        stats.hit_rate() * 100.0
    })
}

async fn read_through(cache: &Cache<Bytes>, key: &str) {
    if cache.get(key).await.expect("memory").is_none() {
        cache.set(key, Bytes::from_static(b"value"), Keep::new()).await.expect("kept");
    }
}
