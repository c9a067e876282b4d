//! The recording side of a timer: one shard per stripe, buckets allocated an octave at a time when first touched.
//!
//! Nothing here locks. Buckets are 32 bits wide; a bucket that has reached [`NARROW_MAX`] stays there and the rest is
//! counted in a 64-bit twin, so no reader ever sees a carry half done. A shard is written by its owner and read by anyone; a reader that comes in the middle of a
//! recording may see the bucket and not yet the sum.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::buckets::{self, CHUNKS, PER_CHUNK};
use crate::snapshot::Snapshot;
use crate::stripe::{STRIPES, Stripe};
use crate::timer::Outcome;

/// 2^31: half the range, since threads that share a stripe may each overshoot it by one.
const NARROW_MAX: u32 = 1 << 31;

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
    narrow: [OnceLock<Box<Narrow>>; CHUNKS],
    /// What no longer fits into `narrow`; absent in all but the busiest series.
    wide: OnceLock<Box<Wide>>,
}

/// The buckets of one power of two.
#[repr(align(64))]
struct Narrow([AtomicU32; PER_CHUNK]);

/// 64-bit twins of all buckets.
struct Wide([AtomicU64; CHUNKS * PER_CHUNK]);

/// The buckets of one power of two in one shard, as a reader sees them.
#[derive(Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) number: usize,
    narrow: &'a Narrow,
    wide: Option<&'a [AtomicU64]>,
}

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

    /// Every touched chunk of every shard.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        self.shards().flat_map(|shard| (0..CHUNKS).filter_map(|number| shard.chunk(number)))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.shards().map(Shard::bytes).sum()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let shards: Vec<_> = self.shards().collect();
        let mut counts = Vec::new();
        for number in 0..CHUNKS {
            let mut chunks = shards.iter().filter_map(|shard| shard.chunk(number)).peekable();
            if chunks.peek().is_none() {
                continue;
            }
            let mut merged = [0; PER_CHUNK];
            chunks.for_each(|chunk| chunk.add_to(&mut merged));
            let numbered = (0u16..).zip(merged).filter(|(_, count)| *count > 0);
            counts.extend(numbered.map(|(sub, count)| ((number * PER_CHUNK) as u16 + sub, count)));
        }
        let count = counts.iter().map(|(_, count)| count).sum();
        let (failed, cancelled) = self.outcomes();
        let min = shards.iter().map(|shard| shard.min.load(Relaxed)).min().unwrap_or(u64::MAX);
        let max = shards.iter().map(|shard| shard.max.load(Relaxed)).max().unwrap_or(0);
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
            narrow: [const { OnceLock::new() }; CHUNKS],
            wide: OnceLock::new(),
        }
    }
}

impl Shard {
    #[inline]
    fn record(&self, stripe: Stripe, nanos: u64, outcome: Outcome) {
        let value = nanos.min(buckets::VALUE_MAX);
        stripe.lower(&self.min, value);
        stripe.raise(&self.max, value);
        stripe.add(&self.sum, value);
        self.count(stripe, buckets::index_of(value));
        match outcome {
            Outcome::Succeeded => {}
            Outcome::Failed => stripe.add(&self.failed, 1),
            Outcome::Cancelled => stripe.add(&self.cancelled, 1),
        }
    }

    #[inline]
    fn count(&self, stripe: Stripe, index: usize) {
        let slot = &self.narrow[index / PER_CHUNK];
        let narrow = match slot.get() {
            Some(narrow) => narrow,
            None => slot.get_or_init(Box::default),
        };
        let bucket = &narrow.0[index % PER_CHUNK];
        if bucket.load(Relaxed) < NARROW_MAX {
            stripe.increment(bucket);
        } else {
            self.count_wide(stripe, index);
        }
    }

    #[cold]
    fn count_wide(&self, stripe: Stripe, index: usize) {
        stripe.add(&self.wide.get_or_init(Box::default).0[index], 1);
    }

    #[inline]
    fn chunk(&self, number: usize) -> Option<Chunk<'_>> {
        let narrow = self.narrow[number].get()?;
        let wide = self.wide.get().map(|wide| &wide.0[number * PER_CHUNK..][..PER_CHUNK]);
        Some(Chunk { number, narrow, wide })
    }

    fn bytes(&self) -> usize {
        let narrow = self.narrow.iter().filter(|slot| slot.get().is_some()).count();
        let wide = self.wide.get().map_or(0, |_| size_of::<Wide>());
        size_of::<Self>() + narrow * size_of::<Narrow>() + wide
    }
}

impl Default for Narrow {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; PER_CHUNK])
    }
}

impl Default for Wide {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; CHUNKS * PER_CHUNK])
    }
}

impl Chunk<'_> {
    /// Recordings in the buckets `from..to` of this chunk.
    #[inline]
    pub(crate) fn count(&self, from: usize, to: usize) -> u64 {
        let narrow = self.narrow.0[from..to].iter().map(|cell| u64::from(cell.load(Relaxed))).sum::<u64>();
        narrow + self.wide.map_or(0, |wide| wide[from..to].iter().map(|cell| cell.load(Relaxed)).sum())
    }

    fn add_to(&self, counts: &mut [u64; PER_CHUNK]) {
        for (count, cell) in counts.iter_mut().zip(&self.narrow.0) {
            *count += u64::from(cell.load(Relaxed));
        }
        for (count, cell) in counts.iter_mut().zip(self.wide.unwrap_or_default()) {
            *count += cell.load(Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_narrow_bucket_goes_on_counting_in_its_wide_twin() {
        let histogram = Histogram::default();
        histogram.record(1000, Outcome::Succeeded);
        let index = buckets::index_of(1000);
        let shard = histogram.shards().next().expect("one shard");
        let narrow = shard.narrow[index / PER_CHUNK].get().expect("one chunk");
        narrow.0[index % PER_CHUNK].store(NARROW_MAX - 1, Relaxed);
        for _ in 0..3 {
            histogram.record(1000, Outcome::Succeeded);
        }
        assert_eq!(histogram.snapshot().counts, [(index as u16, u64::from(NARROW_MAX) + 2)]);
        let counted: u64 = histogram.chunks().map(|chunk| chunk.count(0, PER_CHUNK)).sum();
        assert_eq!(counted, u64::from(NARROW_MAX) + 2);
    }
}
