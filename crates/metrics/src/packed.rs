//! A snapshot at rest: two or three bytes per touched bucket instead of sixteen.

use crate::snapshot::Snapshot;

/// A [`Snapshot`] whose counts are pairs of variable-length numbers: the distance to the bucket before, the count.
pub(crate) struct Packed {
    counts: Box<[u8]>,
    /// Everything else of the snapshot, its own counts empty.
    rest: Snapshot,
}

impl Packed {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut bytes = Vec::with_capacity(snapshot.counts.len() * 3);
        let mut last = 0;
        for &(index, count) in &snapshot.counts {
            write(&mut bytes, u64::from(index - last));
            write(&mut bytes, count);
            last = index;
        }
        Self { counts: bytes.into(), rest: Snapshot { counts: Vec::new(), ..*snapshot } }
    }

    pub(crate) fn unpack(&self) -> Snapshot {
        let mut bytes = &*self.counts;
        let mut counts = Vec::new();
        let mut index = 0;
        while let (Some(distance), Some(count)) = (read(&mut bytes), read(&mut bytes)) {
            index += distance as u16;
            counts.push((index, count));
        }
        Snapshot { counts, ..self.rest }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.counts.len()
    }
}

/// Seven bits per byte, the lowest first; the high bit says that more follow (LEB128).
fn write(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unpacking_gives_back_what_was_packed(counts in prop::collection::btree_map(0u16..2880, 1u64..1 << 50, 0..300)) {
            let counts: Vec<_> = counts.into_iter().collect();
            let count = counts.iter().map(|(_, count)| count).sum();
            let snapshot = Snapshot { counts, count, sum: 7, min: 1, max: 9, failed: 3, cancelled: 2 };
            prop_assert_eq!(Packed::new(&snapshot).unpack(), snapshot);
        }
    }
}
