//! What is kept of all pairs: the best `limit`, or of each entity its k best partners, in bounded memory.
//!
//! Pairs are ranked by one total order (most similar first, then ranks), so what is kept does not depend on which tile came first.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Options;
use crate::{Control, Error};

/// Entities that share a lock. A dense tile covers one such block each way.
const BLOCK: usize = 256;
/// 16 Ki pairs sort within a millisecond: the final sort looks for a cancel between such parts.
const SORT_PART: usize = 1 << 14;
/// 4 Ki pairs are pushed on their heaps in less than a millisecond.
const OFFER_PART: usize = 1 << 12;

/// A pair and its similarity in one integer; less is better: similarity falling, then first and second rank rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate(u128);

impl Candidate {
    pub(super) fn new(similarity: f64, first: usize, second: usize) -> Self {
        let bits = (similarity + 0.0).to_bits(); // + 0.0: −0 ties with 0
        let descending = if bits >> 63 == 0 { !bits & (u64::MAX >> 1) } else { bits };
        Self(u128::from(descending) << 64 | (first as u128) << 32 | second as u128)
    }

    pub(super) fn similarity(self) -> f64 {
        let descending = (self.0 >> 64) as u64;
        f64::from_bits(if descending >> 63 == 0 { !descending & (u64::MAX >> 1) } else { descending })
    }

    pub(super) fn first(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn second(self) -> u32 {
        self.0 as u32
    }
}

/// The least similarity that may still matter, for all and for each; rises as pairs are kept. Reading one that has just risen
/// costs a useless candidate, never a lost one.
#[derive(Debug)]
pub(super) struct Floors {
    all: AtomicU64,
    each: Vec<AtomicU64>,
}

impl Floors {
    pub(super) fn of(&self, rank: usize) -> f64 {
        let all = f64::from_bits(self.all.load(Relaxed));
        self.each.get(rank).map_or(all, |each| all.max(f64::from_bits(each.load(Relaxed))))
    }
}

/// The keeper of pairs.
#[derive(Debug)]
pub(super) struct Keep {
    limit: usize,
    floors: Floors,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Best(Mutex<Best>),
    PerEntity(PerEntity),
}

#[derive(Debug)]
struct Best {
    pairs: Vec<Candidate>,
    /// The `limit`-th best so far; nothing behind it is taken.
    cutoff: Candidate,
    dropped: bool,
}

#[derive(Debug)]
struct PerEntity {
    top_k: usize,
    blocks: Vec<Mutex<Block>>,
    /// Pairs in all heaps together, each counted on both sides.
    size: AtomicUsize,
    size_max: usize,
}

#[derive(Debug)]
struct Block {
    /// The worst kept pair of an entity is on top of its heap.
    heaps: Vec<BinaryHeap<Candidate>>,
    cutoff: Candidate,
}

const NO_CUTOFF: Candidate = Candidate(u128::MAX);

impl Keep {
    pub(super) fn new(entities: usize, options: &Options) -> Self {
        let limit = options.limit.min(entities * entities.saturating_sub(1) / 2);
        // No similarity is below −1; without a floor, rounding cannot matter there.
        let floor = options.min_similarity.filter(|least| *least > -1.0).unwrap_or(f64::NEG_INFINITY);
        let floor = || AtomicU64::new(floor.to_bits());
        // The m-th best of all pairs is among the m best of both its sides: from `limit` on, k changes nothing.
        let top_k = options.top_k.filter(|top_k| *top_k < limit && *top_k + 1 < entities);
        let each = if top_k.is_some() { entities } else { 0 };
        let kept = match top_k {
            None => Kept::Best(Mutex::new(Best { pairs: Vec::new(), cutoff: NO_CUTOFF, dropped: false })),
            Some(top_k) => Kept::PerEntity(PerEntity::new(entities, top_k, limit)),
        };
        Self { limit, floors: Floors { all: floor(), each: (0..each).map(|_| floor()).collect() }, kept }
    }

    pub(super) fn floors(&self) -> &Floors {
        &self.floors
    }

    /// Takes what is good enough of `found` and leaves it empty; looks for a cancel every few thousand pairs.
    pub(super) fn offer(&self, found: &mut Vec<Candidate>, control: &Control) -> Result<(), Error> {
        for part in found.chunks(OFFER_PART) {
            control.check()?;
            self.offer_part(part);
        }
        found.clear();
        Ok(())
    }

    fn offer_part(&self, found: &[Candidate]) {
        match &self.kept {
            Kept::Best(best) => {
                let mut best = lock(best);
                for pair in found {
                    best.push(*pair, self.limit.max(1), &self.floors);
                }
            }
            Kept::PerEntity(kept) => {
                kept.push_side(found, &self.floors, Candidate::first);
                kept.push_side(found, &self.floors, Candidate::second);
                if kept.size.load(Relaxed) > kept.size_max {
                    kept.compact(self.limit, &self.floors);
                }
            }
        }
    }

    /// What was kept, best first, and whether more qualified than the limit.
    pub(super) fn finish(self, control: &Control) -> Result<(Vec<Candidate>, bool), Error> {
        let (mut pairs, dropped) = match self.kept {
            Kept::Best(best) => {
                let best = best.into_inner().unwrap_or_else(PoisonError::into_inner);
                (best.pairs, best.dropped)
            }
            Kept::PerEntity(kept) => (kept.into_pairs(self.limit), false),
        };
        sort(&mut pairs, control)?;
        pairs.dedup();
        let truncated = dropped || pairs.len() > self.limit;
        pairs.truncate(self.limit);
        Ok((pairs, truncated))
    }
}

impl Best {
    fn push(&mut self, pair: Candidate, limit: usize, floors: &Floors) {
        if pair > self.cutoff {
            self.dropped = true;
            return;
        }
        self.pairs.push(pair);
        if self.pairs.len() >= 2 * limit.max(1024) {
            self.pairs.select_nth_unstable(limit - 1);
            self.pairs.truncate(limit);
            self.dropped = true;
            self.cutoff = self.pairs[limit - 1];
            floors.all.store(self.cutoff.similarity().to_bits(), Relaxed);
        }
    }
}

impl PerEntity {
    fn new(entities: usize, top_k: usize, limit: usize) -> Self {
        let blocks = (0..entities).step_by(BLOCK).map(|first| {
            let heaps = vec![BinaryHeap::new(); BLOCK.min(entities - first)];
            Mutex::new(Block { heaps, cutoff: NO_CUTOFF })
        });
        let size_max = 4 * limit.max(1 << 16);
        Self { top_k, blocks: blocks.collect(), size: AtomicUsize::new(0), size_max }
    }

    /// Gives each pair to one of its entities; neighbours in `found` often share a lock, so it is held as long as they do.
    fn push_side(&self, found: &[Candidate], floors: &Floors, side: impl Fn(Candidate) -> u32) {
        let mut held: Option<(usize, MutexGuard<'_, Block>)> = None;
        let mut grown = 0;
        for pair in found {
            let rank = side(*pair) as usize;
            if pair.similarity() < floors.of(rank) {
                continue;
            }
            if held.as_ref().is_none_or(|(block, _)| *block != rank / BLOCK) {
                drop(held.take()); // the old lock first
                held = Some((rank / BLOCK, lock(&self.blocks[rank / BLOCK])));
            }
            if let Some((_, block)) = &mut held {
                grown += usize::from(block.push(rank, *pair, self.top_k, &floors.each[rank]));
            }
        }
        self.size.fetch_add(grown, Relaxed);
    }

    /// Drops what cannot be among the best `limit` pairs any more: once 2 · (limit + 1) kept sides are better, so are
    /// limit + 1 pairs, and better ones only ever replace worse ones.
    fn compact(&self, limit: usize, floors: &Floors) {
        let mut blocks: Vec<_> = self.blocks.iter().map(lock).collect(); // in order: no two compactions can block each other
        let pairs = || blocks.iter().flat_map(|block| block.heaps.iter().flatten().copied());
        let mut pairs: Vec<Candidate> = pairs().collect();
        if pairs.len() <= self.size_max {
            return; // another thread did it meanwhile
        }
        let (_, cutoff, _) = pairs.select_nth_unstable(2 * limit + 1);
        let cutoff = *cutoff;
        for block in &mut blocks {
            block.cutoff = cutoff;
            block.heaps.iter_mut().for_each(|heap| heap.retain(|pair| *pair <= cutoff));
        }
        let kept = blocks.iter().flat_map(|block| &block.heaps).map(BinaryHeap::len).sum::<usize>();
        self.size.store(kept, Relaxed);
        floors.all.store(cutoff.similarity().to_bits(), Relaxed);
    }

    /// All kept pairs, some twice; only so many that `limit + 1` different ones are among them.
    fn into_pairs(self, limit: usize) -> Vec<Candidate> {
        let blocks = self.blocks.into_iter().map(|block| block.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut pairs: Vec<Candidate> = blocks.flat_map(|block| block.heaps).flatten().collect();
        let enough = 2 * (limit + 1);
        if pairs.len() > enough {
            pairs.select_nth_unstable(enough - 1);
            pairs.truncate(enough);
        }
        pairs
    }
}

impl Block {
    /// Whether the heap grew by the pair; it may also have taken the place of a worse one.
    fn push(&mut self, rank: usize, pair: Candidate, top_k: usize, floor: &AtomicU64) -> bool {
        if pair > self.cutoff {
            return false;
        }
        let heap = &mut self.heaps[rank % BLOCK];
        let grows = heap.len() < top_k;
        if grows {
            heap.push(pair);
        } else if let Some(mut worst) = heap.peek_mut().filter(|worst| pair < **worst) {
            *worst = pair;
        }
        if heap.len() == top_k
            && let Some(worst) = heap.peek()
        {
            floor.store(worst.similarity().to_bits(), Relaxed);
        }
        grows
    }
}

/// Sorts on the current pool, in parts between which a cancel is seen.
fn sort(pairs: &mut [Candidate], control: &Control) -> Result<(), Error> {
    control.check()?;
    if pairs.len() <= SORT_PART {
        pairs.sort_unstable();
        return Ok(());
    }
    let (better, _, worse) = pairs.select_nth_unstable(pairs.len() / 2);
    let (better, worse) = rayon::join(|| sort(better, control), || sort(worse, control));
    better.and(worse)
}

/// A panic under one of these locks can only be a failed allocation, and the data is whole even then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_order_by_falling_similarity_then_ranks_and_give_it_back() {
        let values = [1.0, 0.5, 1e-300, 0.0, -1e-300, -0.5, -1.0];
        for pair in values.windows(2) {
            assert!(Candidate::new(pair[0], 9, 9) < Candidate::new(pair[1], 0, 0));
        }
        assert!(Candidate::new(0.5, 1, 9) < Candidate::new(0.5, 2, 3));
        assert_eq!(Candidate::new(-0.0, 1, 2), Candidate::new(0.0, 1, 2));
        let negative = Candidate::new(-0.25, 7, u32::MAX as usize);
        assert_eq!((negative.similarity(), negative.first(), negative.second()), (-0.25, 7, u32::MAX));
    }
}
