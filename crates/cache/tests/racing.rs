//! Loads that race with changes: what was read before a change is never kept past it, however the two interleave.
//!
//! The source of truth is a version per key. Whoever changes a key first makes its version newer, then tells the cache.
//! The interleavings are drawn from a seed, on one thread, where they come again, and on several, where the machine
//! decides. [`Planted::NoFillGuard`] shows that what is looked for would be found.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidegate_cache::{Cache, Codec, CodecError, Config, Invalidation, Keep, Planted};
use tidegate_metrics::Registry;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Barrier, Mutex, oneshot};
use tokio::task::{JoinSet, yield_now};

const KEYS: usize = 64;
const TAGS: [&str; 4] = ["red", "green", "blue", "white"];
const PREFIXES: [&str; 4] = ["a", "b", "a1", ""];

/// A version as eight bytes.
struct Version;

impl Codec<u64> for Version {
    fn encode(&self, value: &u64) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    fn decode(&self, bytes: Bytes) -> Result<u64, CodecError> {
        bytes[..].try_into().map(u64::from_be_bytes).map_err(CodecError::new)
    }

    fn weight(&self, _value: &u64) -> usize {
        8
    }
}

/// A cache and what it is a cache of.
struct World {
    cache: Cache<u64>,
    keys: Vec<Truth>,
    stale: AtomicU64,
}

#[derive(Default)]
struct Truth {
    name: String,
    version: AtomicU64,
    /// The version that the cache was told of, and has acknowledged.
    acknowledged: AtomicU64,
    /// Held by who changes: of two changes at once nobody knows which is last.
    changing: Mutex<()>,
}

impl World {
    fn new(planted: Planted) -> Arc<Self> {
        // A few prefixes at most, so that too many are met as well.
        let config = Config { planted, prefixes_max: 2, ..Config::default() };
        let cache = Cache::memory(Version, config, &Registry::new()).expect("the bounds are legal");
        let name = |number| format!("{}{number}", ["a", "b"][number % 2]);
        let keys = (0..KEYS).map(|number| Truth { name: name(number), ..Truth::default() }).collect();
        Arc::new(Self { cache, keys, stale: AtomicU64::new(0) })
    }

    /// Reads, with a load where nothing is kept, and sees that it is given nothing older than what was acknowledged before.
    async fn read(self: &Arc<Self>, key: usize, mut random: Random) {
        let least = self.keys[key].acknowledged.load(Ordering::SeqCst);
        let (world, before, after) = (self.clone(), random.below(4), random.below(4));
        let load = move || async move {
            yield_for(before).await;
            let version = world.keys[key].version.load(Ordering::SeqCst);
            yield_for(after).await;
            Ok::<_, Infallible>(Some(version))
        };
        let keep = Keep::new().tag(TAGS[key % TAGS.len()]);
        let given = match random.below(4) {
            0 => self.cache.get(&self.keys[key].name).await,
            _ => self.cache.get_or_load(&self.keys[key].name, keep, load).await,
        };
        self.judge(least, given.expect("no load fails"));
    }

    fn judge(&self, least: u64, given: Option<u64>) {
        if given.is_some_and(|version| version < least) {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn change(&self, key: usize, mut random: Random) {
        yield_for(random.below(8)).await;
        let truth = &self.keys[key];
        let _one = truth.changing.lock().await;
        let version = truth.version.fetch_add(1, Ordering::SeqCst) + 1;
        let name = truth.name.as_str();
        let forgets = match random.below(16) {
            0..=3 => Invalidation::key(name),
            4..=7 => Invalidation::tag(TAGS[key % TAGS.len()]),
            8 => Invalidation::prefix(
                *PREFIXES.iter().find(|prefix| name.starts_with(**prefix)).expect("the last is empty"),
            ),
            9 => Invalidation::prefix(name),
            10 => Invalidation::All,
            _ => {
                self.cache.set(name, version, Keep::new().tag(TAGS[key % TAGS.len()])).await.expect("memory keeps it");
                truth.acknowledged.fetch_max(version, Ordering::SeqCst);
                return;
            }
        };
        self.cache.invalidate(forgets).await.expect("memory forgets it");
        truth.acknowledged.fetch_max(version, Ordering::SeqCst);
    }

    /// Keys that have a version older than the truth, while nobody loads or changes: they would have it for good.
    fn permanently_stale(&self) -> usize {
        let is_stale = |truth: &&Truth| {
            self.cache.peek(&truth.name).is_some_and(|kept| kept < truth.version.load(Ordering::SeqCst))
        };
        self.keys.iter().filter(is_stale).count()
    }
}

/// Rounds of one key each on one thread: one load and one change or two, in an order that the seed decides.
/// How many keys were stale for good after their round, and how many reads were given something too old.
async fn one_thread(planted: Planted, rounds: u64) -> (u64, u64) {
    let world = World::new(planted);
    let mut random = Random(1);
    let mut stale = 0;
    for _ in 0..rounds {
        let key = random.below(KEYS as u64) as usize;
        let (first, second, third) = (random.fork(), random.fork(), random.fork());
        let again = async {
            if third.0 % 4 == 0 {
                world.read(key, third).await;
            }
        };
        tokio::join!(world.read(key, first), world.change(key, second), again);
        let truth = &world.keys[key];
        let kept = world.cache.peek(&truth.name);
        stale += u64::from(kept.is_some_and(|kept| kept < truth.version.load(Ordering::SeqCst)));
    }
    (stale, world.stale.load(Ordering::SeqCst))
}

/// The same on several threads, who meet now and then and look for keys that are stale for good.
async fn many_threads(planted: Planted, threads: usize, meetings: u64, rounds: u64) -> (u64, u64) {
    let world = World::new(planted);
    let (barrier, stale) = (Arc::new(Barrier::new(threads)), Arc::new(AtomicU64::new(0)));
    let mut workers = JoinSet::new();
    for number in 0..threads {
        let (world, barrier, stale) = (world.clone(), barrier.clone(), stale.clone());
        workers.spawn(async move {
            let mut random = Random(number as u64);
            for _ in 0..meetings {
                for _ in 0..rounds {
                    let key = random.below(8).min(random.below(KEYS as u64)) as usize;
                    match random.below(3) {
                        0 => world.change(key, random.fork()).await,
                        _ => world.read(key, random.fork()).await,
                    }
                }
                // All have ended what they did, then one looks, then all go on.
                if barrier.wait().await.is_leader() {
                    stale.fetch_add(world.permanently_stale() as u64, Ordering::SeqCst);
                }
                barrier.wait().await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("no worker panics");
    }
    (stale.load(Ordering::SeqCst), world.stale.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "current_thread")]
async fn a_million_racing_fills_leave_no_stale_key() {
    assert_eq!(one_thread(Planted::Nothing, 1_000_000).await, (0, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn the_same_races_without_the_guard_leave_stale_keys() {
    let (stale, given) = one_thread(Planted::NoFillGuard, 50_000).await;
    println!("of 50 000 rounds {stale} left a stale key; {given} reads were too old");
    assert!(stale > 100, "{stale} stale keys, {given} reads too old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fills_that_race_on_many_threads_leave_no_stale_key() {
    assert_eq!(many_threads(Planted::Nothing, 8, 100, 400).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_without_the_guard_leave_stale_keys() {
    let (stale, given) = many_threads(Planted::NoFillGuard, 8, 50, 400).await;
    println!("at 50 meetings {stale} keys were stale; {given} reads were too old");
    assert!(stale + given > 10, "{stale} stale keys, {given} reads too old");
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_joins_a_load_from_before_a_prefix_that_was_swept() {
    let world = World::new(Planted::Nothing);
    let (may_land, lands) = oneshot::channel::<()>();
    let old = || async move {
        lands.await?;
        Ok::<_, RecvError>(Some(1))
    };
    let first = world.cache.get_or_load("a0", Keep::new(), old);
    let second = async {
        yield_for(4).await;
        world.cache.invalidate(Invalidation::prefix("a")).await.unwrap();
        world.cache.sweep().await;
        let new = world.cache.get_or_load("a0", Keep::new(), || async { Ok::<_, Infallible>(Some(2)) });
        let given = tokio::join!(new, async {
            yield_for(4).await;
            may_land.send(()).unwrap();
        });
        given.0.unwrap()
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.unwrap(), second), (Some(1), Some(2)));
    assert_ne!(world.cache.peek("a0"), Some(1));
}

async fn yield_for(times: u64) {
    for _ in 0..times {
        yield_now().await;
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
