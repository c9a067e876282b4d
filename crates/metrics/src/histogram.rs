//! The recording side of a timer: one shard per stripe, buckets allocated an octave at a time when first touched.
//!
//! Nothing here locks. A shard is written by its owner and read by anyone; a reader that comes in the middle of a
//! recording may see the bucket and not yet the sum.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::buckets::{self, CHUNKS, PER_CHUNK};
use crate::snapshot::Snapshot;
use crate::stripe::{STRIPES, Stripe};
use crate::timer::Outcome;

#[derive(Default)]
pub(crate) struct Histogram {
    shards: [OnceLock<Box<Shard>>; STRIPES],
}

/// 128 bytes: x86 fetches cache lines in pairs, so nothing of another thread may lie within the pair.
#[repr(align(128))]
struct Shard {
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    chunks: [OnceLock<Box<Chunk>>; CHUNKS],
}

#[repr(align(64))]
pub(crate) struct Chunk([AtomicU64; PER_CHUNK]);

impl Histogram {
    #[inline]
    pub(crate) fn record(&self, nanos: u64, outcome: Outcome) {
        let stripe = Stripe::current();
        let slot = &self.shards[stripe.index()];
        match slot.get() {
            Some(shard) => shard.record(stripe, nanos, outcome),
            None => slot.get_or_init(Box::default).record(stripe, nanos, outcome),
        }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }

    pub(crate) fn sum(&self) -> u128 {
        self.shards().map(|shard| u128::from(shard.sum.load(Relaxed))).sum()
    }

    pub(crate) fn outcomes(&self) -> (u64, u64) {
        self.shards().fold((0, 0), |(failed, cancelled), shard| {
            (failed + shard.failed.load(Relaxed), cancelled + shard.cancelled.load(Relaxed))
        })
    }

    /// Every touched chunk with its number; the same number once per shard.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.shards().flat_map(|shard| {
            shard.chunks.iter().enumerate().filter_map(|(number, chunk)| Some((number, chunk.get()?.as_ref())))
        })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.shards().count() * size_of::<Shard>() + self.chunks().count() * size_of::<Chunk>()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut merged: [Option<Box<[u64; PER_CHUNK]>>; CHUNKS] = [const { None }; CHUNKS];
        for (number, chunk) in self.chunks() {
            let counts = merged[number].get_or_insert_with(|| Box::new([0; PER_CHUNK]));
            for (count, cell) in counts.iter_mut().zip(&chunk.0) {
                *count += cell.load(Relaxed);
            }
        }
        let counts = merged.iter().enumerate().filter_map(|(number, counts)| Some((number, counts.as_ref()?)));
        let touched = counts.flat_map(|(number, counts)| {
            let numbered = counts.iter().enumerate().filter(|(_, count)| **count > 0);
            numbered.map(move |(sub, count)| ((number * PER_CHUNK + sub) as u16, *count))
        });
        let counts: Vec<_> = touched.collect();
        let count = counts.iter().map(|(_, count)| count).sum();
        let (failed, cancelled) = self.outcomes();
        let min = self.shards().map(|shard| shard.min.load(Relaxed)).min().unwrap_or(u64::MAX);
        let max = self.shards().map(|shard| shard.max.load(Relaxed)).max().unwrap_or(0);
        Snapshot { counts, count, sum: self.sum(), min, max, failed, cancelled }
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }
}

impl Shard {
    #[inline]
    fn record(&self, stripe: Stripe, nanos: u64, outcome: Outcome) {
        let value = nanos.min(buckets::VALUE_MAX);
        let index = buckets::index_of(value);
        let slot = &self.chunks[index / PER_CHUNK];
        let chunk = match slot.get() {
            Some(chunk) => chunk,
            None => slot.get_or_init(Box::default),
        };
        stripe.lower(&self.min, value);
        stripe.raise(&self.max, value);
        stripe.add(&self.sum, value);
        stripe.add(&chunk.0[index % PER_CHUNK], 1);
        match outcome {
            Outcome::Succeeded => {}
            Outcome::Failed => stripe.add(&self.failed, 1),
            Outcome::Cancelled => stripe.add(&self.cancelled, 1),
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; PER_CHUNK])
    }
}

impl Chunk {
    /// Recordings in the buckets `from..to` of this chunk.
    pub(crate) fn count(&self, from: usize, to: usize) -> u64 {
        self.0[from..to].iter().map(|cell| cell.load(Relaxed)).sum()
    }
}
