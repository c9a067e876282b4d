//! The arithmetic of log-linear buckets: which bucket a value falls into, and which value stands for a bucket.
//!
//! Each power of two is cut into 64 equal buckets. Below 128 a bucket holds one value; above, a bucket is at most 1/64
//! of its lower edge wide, so its middle is at most 1/128 (0.78 %) away from any value in it.

/// Buckets per power of two.
pub(crate) const PER_CHUNK: usize = 64;

/// 2^50 ns, about 13 days: longer durations are recorded as this long.
pub(crate) const VALUE_MAX: u64 = (1 << 50) - 1;

/// Chunks of [`PER_CHUNK`] buckets that cover `0..=VALUE_MAX`.
pub(crate) const CHUNKS: usize = index_of(VALUE_MAX) / PER_CHUNK + 1;

/// The bucket of a value that is at most [`VALUE_MAX`].
#[inline]
pub(crate) const fn index_of(value: u64) -> usize {
    let shift = 57 - (value | 64).leading_zeros() as u64;
    ((shift << 6) + (value >> shift)) as usize
}

/// The smallest value of a bucket.
pub(crate) const fn lowest(index: usize) -> u64 {
    let index = index as u64;
    if index < 128 {
        return index;
    }
    let shift = (index >> 6) - 1;
    (index - (shift << 6)) << shift
}

/// The largest value of a bucket.
pub(crate) const fn highest(index: usize) -> u64 {
    lowest(index + 1) - 1
}

/// The value that stands for a bucket: its middle.
pub(crate) const fn middle(index: usize) -> u64 {
    let (low, high) = (lowest(index), highest(index));
    low + (high - low) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_between_the_edges_of_its_bucket(bits in 0u32..50, value: u64) {
            let value = value & ((1 << bits) - 1) | (1 << bits) & VALUE_MAX;
            let index = index_of(value);
            prop_assert!(lowest(index) <= value && value <= highest(index));
        }

        #[test]
        fn the_middle_is_within_one_percent(bits in 0u32..50, value: u64) {
            let value = value & ((1 << bits) - 1) | (1 << bits) & VALUE_MAX;
            let middle = middle(index_of(value));
            prop_assert!(middle.abs_diff(value) as f64 <= value as f64 / 128.0, "{middle} stands for {value}");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for index in 0..CHUNKS * PER_CHUNK - 1 {
            assert_eq!(highest(index) + 1, lowest(index + 1));
            assert_eq!(index_of(lowest(index)), index);
        }
        assert_eq!(highest(CHUNKS * PER_CHUNK - 1), VALUE_MAX);
    }
}
