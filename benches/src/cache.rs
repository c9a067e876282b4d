//! What caches are measured on: keys as services have them, and the order in which they are asked for.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tidegate_cache::{Cache, Config, Raw};
use tidegate_metrics::Registry;

/// xorshift64*: the same numbers in every run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In 0..below.
    pub fn below(&mut self, below: usize) -> usize {
        (self.unit() * below as f64) as usize
    }
}

/// The key with this number, 21 bytes.
#[must_use]
pub fn key(number: usize) -> String {
    format!("user:{number:08}:profile")
}

/// Many keys.
#[must_use]
pub fn keys(count: usize) -> Vec<String> {
    (0..count).map(key).collect()
}

/// The value of a key: 100 to 149 bytes.
#[must_use]
pub fn value(number: usize) -> Bytes {
    Bytes::from(vec![b'x'; 100 + number % 50])
}

/// Draws ranks below `count`, rank `r` in proportion to `1 / (r + 1)^skew`.
#[derive(Clone, Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// For so many ranks.
    #[must_use]
    pub fn new(count: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| 1.0 / ((rank + 1) as f64).powf(skew);
        Self(
            (0..count)
                .map(|rank| {
                    sum += weight(rank);
                    sum
                })
                .collect(),
        )
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

/// Numbers below `count` in an order of chance, so that hot keys are no neighbours.
#[must_use]
pub fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    for place in (1..count).rev() {
        numbers.swap(place, random.below(place + 1));
    }
    numbers
}

/// For each thread the keys it asks for, one after the other.
#[must_use]
pub fn asked(keys: &[String], threads: usize, length: usize, skew: f64) -> Vec<Vec<&str>> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (zipf, names) = (Zipf::new(keys.len(), skew), shuffled(keys.len(), &mut random));
    let mut draw = || keys[names[zipf.draw(&mut random)]].as_str();
    (0..threads).map(|_| (0..length).map(|_| draw()).collect()).collect()
}

/// Nanoseconds per key when each thread does its work on its keys, all at the same time: those of the slowest. It is the
/// time a thread computes, so that others who want the same cores are not counted; nothing measured so may wait.
pub fn nanos_per_key(asked: &[Vec<&str>], work: impl Fn(&[&str]) + Sync) -> f64 {
    let barrier = Barrier::new(asked.len());
    let run = |keys: &[&str]| {
        barrier.wait();
        let started = computed();
        work(keys);
        (computed() - started).as_nanos() as f64 / keys.len() as f64
    };
    thread::scope(|scope| {
        let run = &run;
        let runs: Vec<_> = asked.iter().map(|keys| scope.spawn(move || run(keys))).collect();
        runs.into_iter().map(|run| run.join().unwrap_or(f64::NAN)).fold(0.0, f64::max)
    })
}

/// For how long this thread has computed.
fn computed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A cache of ours in memory, bounded by entries.
///
/// # Panics
/// When there is no runtime, or the bound is none.
#[must_use]
pub fn in_memory(entries_max: usize) -> Cache<Bytes> {
    let config = Config { entries_max, bytes_max: 1 << 40, ..Config::default() };
    Cache::memory(Raw, config, &Registry::new()).expect("a cache")
}
