//! A snapshot at rest: one to three bytes per touched bucket instead of sixteen.

use crate::snapshot::Snapshot;

/// A [`Snapshot`] as variable-length numbers: sum (high, low), minimum, maximum, failed, cancelled, then a count per
/// bucket, where 0 is followed by the number of empty buckets it stands for.
#[derive(Debug)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let Snapshot { counts, sum, min, max, failed, cancelled, .. } = snapshot;
        let mut bytes = Vec::with_capacity(32 + counts.len() * 3);
        let head = [(sum >> 64) as u64, *sum as u64, *min, *max, *failed, *cancelled];
        head.iter().for_each(|number| write(&mut bytes, *number));
        let mut next = 0;
        for &(index, count) in counts {
            if index > next {
                write(&mut bytes, 0);
                write(&mut bytes, u64::from(index - next));
            }
            write(&mut bytes, count);
            next = index + 1;
        }
        Self(bytes.into())
    }

    pub(crate) fn unpack(&self) -> Snapshot {
        let bytes = &mut &*self.0;
        let [high, low, min, max, failed, cancelled] = std::array::from_fn(|_| read(bytes).unwrap_or_default());
        let mut counts = Vec::with_capacity(bytes.len());
        let mut index = 0;
        while let Some(number) = read(bytes) {
            if number == 0 {
                index += read(bytes).unwrap_or_default() as u16;
            } else {
                counts.push((index, number));
                index += 1;
            }
        }
        let count = counts.iter().map(|(_, count)| count).sum();
        Snapshot { counts, count, sum: u128::from(high) << 64 | u128::from(low), min, max, failed, cancelled }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.len()
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
        fn unpacking_gives_back_what_was_packed(
            counts in prop::collection::btree_map(0u16..2880, 1u64..1 << 50, 0..300),
            sum in any::<u128>(),
            (min, max, failed, cancelled) in any::<(u64, u64, u64, u64)>(),
        ) {
            let counts: Vec<_> = counts.into_iter().collect();
            let count = counts.iter().map(|(_, count)| count).sum();
            let snapshot = Snapshot { counts, count, sum, min, max, failed, cancelled };
            prop_assert_eq!(Packed::new(&snapshot).unpack(), snapshot);
        }
    }
}
