//! Randomness for jitter: small, seedable, not for secrets.

use std::time::Duration;

/// What SplitMix64 (Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014) goes on by.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Its number for a state.
pub(crate) fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of them.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Uniform in `0 ..= ceiling`, in whole milliseconds.
    pub(crate) fn up_to(&mut self, ceiling: Duration) -> Duration {
        let span = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Duration::from_millis(self.next() % span)
    }
}
