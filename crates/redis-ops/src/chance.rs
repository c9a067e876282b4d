//! A little randomness, so that many processes do not do the same at the same instant.

/// A number in 0..=1.
pub(crate) fn unit() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / f64::from(u32::MAX)
}
