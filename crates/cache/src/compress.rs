//! Large values, smaller on the way: zstd, with a bound on what comes out.

use bytes::Bytes;

use crate::codec::CodecError;
use crate::error::Error;

/// zstd at its quickest: a GiB takes a second and a half, JSON becomes a fifth.
const LEVEL: i32 = 1;

/// Bytes of a value, compressed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) bytes: Bytes,
    /// How long they are unpacked, where they are compressed.
    pub(crate) unpacked: Option<u32>,
}

impl Packed {
    /// Compresses what is `from` bytes or longer, where that saves a tenth.
    pub(crate) fn pack(bytes: Bytes, from: usize) -> Self {
        let plain = |bytes| Self { bytes, unpacked: None };
        let Ok(length) = u32::try_from(bytes.len()) else { return plain(bytes) };
        if bytes.len() < from {
            return plain(bytes);
        }
        match zstd::bulk::compress(&bytes, LEVEL) {
            Ok(packed) if packed.len() <= bytes.len() / 10 * 9 => Self { bytes: packed.into(), unpacked: Some(length) },
            _ => plain(bytes),
        }
    }

    /// How long it is unpacked, as it says.
    pub(crate) fn unpacked_len(&self) -> usize {
        self.unpacked.map_or(self.bytes.len(), |length| length as usize)
    }

    /// The bytes as they were; never more than `most`.
    pub(crate) fn unpack(self, most: usize) -> Result<Bytes, Error> {
        let length = self.unpacked_len();
        if length > most {
            return Err(Error::TooLarge { bytes: length, bytes_max: most });
        }
        if self.unpacked.is_none() {
            return Ok(self.bytes);
        }
        let damaged = |detail: String| Error::Decode(CodecError::new(detail));
        let bytes = zstd::bulk::decompress(&self.bytes, length).map_err(|error| damaged(error.to_string()))?;
        match bytes.len() == length {
            true => Ok(bytes.into()),
            false => Err(damaged(format!("{} bytes unpacked where {length} were packed", bytes.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(bytes in prop::collection::vec(0_u8..4, 0..5000), from in 0_usize..3000) {
            let bytes = Bytes::from(bytes);
            let packed = Packed::pack(bytes.clone(), from);
            prop_assert!(packed.bytes.len() <= bytes.len());
            prop_assert_eq!(packed.unpacked_len(), bytes.len());
            prop_assert_eq!(packed.unpack(5000).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0_u32..100_000) {
            let packed = Packed { bytes: bytes.into(), unpacked: Some(length) };
            if let Ok(bytes) = packed.unpack(1000) {
                prop_assert!(bytes.len() <= 1000);
            }
        }
    }

    #[test]
    fn a_small_value_that_claims_to_be_huge_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 10_000_000], 1).unwrap();
        let lying = Packed { bytes: bomb.clone().into(), unpacked: Some(10) };
        assert!(matches!(lying.unpack(1000), Err(Error::Decode(_))));
        let honest = Packed { bytes: bomb.into(), unpacked: Some(10_000_000) };
        assert!(matches!(honest.unpack(1000), Err(Error::TooLarge { bytes: 10_000_000, bytes_max: 1000 })));
    }
}
