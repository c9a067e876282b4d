//! Distributions in the form other tools read: hdrhistogram.

use crate::buckets;
use crate::snapshot::Snapshot;

/// The histogram type of [`Snapshot::to_hdr`], so that a caller needs no dependency of its own.
pub type HdrHistogram = hdrhistogram::Histogram<u64>;

/// Three significant digits: finer than our buckets, so the export adds no visible error.
const DIGITS: u8 = 3;

impl Snapshot {
    /// The distribution in nanoseconds as an [`HdrHistogram`], for merging with and exporting to tools that know it.
    /// Counts are equal; minimum and maximum are kept to its three digits, every other value is the middle of its
    /// bucket.
    pub fn to_hdr(&self) -> HdrHistogram {
        let mut hdr = HdrHistogram::new(DIGITS).expect("3 lies within the 0 to 5 digits hdrhistogram accepts");
        // It grows with its values (`new` says so), and ours end at 2^50: nothing is refused.
        let mut record = |value, count| hdr.record_n(value, count).unwrap_or_default();
        let mut middle = self.counts.clone();
        if let Some((_, count)) = middle.first_mut() {
            *count -= 1;
            record(self.min, 1);
        }
        if let Some((_, count)) = middle.last_mut().filter(|_| self.count > 1) {
            *count -= 1;
            record(self.max, 1);
        }
        for (index, count) in middle.into_iter().filter(|(_, count)| *count > 0) {
            record(buckets::middle(usize::from(index)).clamp(self.min, self.max), count);
        }
        hdr
    }
}
