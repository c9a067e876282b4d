//! Rows brought to length 1, so that a dot product is the similarity; stable for any finite values.

/// Centres `row` on its mean and scales it to length 1. `false` if all values are equal: no variance, no direction.
///
/// Two passes, with the rounding of the mean taken out by a second mean; a power of two keeps squares in range.
pub(super) fn centred(row: &[f64], out: &mut [f64]) -> bool {
    if row.iter().all(|value| *value == row[0]) {
        return false;
    }
    let scale = scale_of(row);
    assign(out, row, |value| value * scale);
    for _ in 0..2 {
        let mean = sum(out, |value| value) / out.len() as f64;
        out.iter_mut().for_each(|value| *value -= mean);
    }
    to_length_one(out);
    true
}

/// Scales `row` to length 1. `false` if it is all zeros.
pub(super) fn unit(row: &[f64], out: &mut [f64]) -> bool {
    if row.iter().all(|value| *value == 0.0) {
        return false;
    }
    let scale = scale_of(row);
    assign(out, row, |value| value * scale);
    to_length_one(out);
    true
}

fn assign(out: &mut [f64], row: &[f64], map: impl Fn(f64) -> f64) {
    for (out, value) in out.iter_mut().zip(row) {
        *out = map(*value);
    }
}

fn to_length_one(out: &mut [f64]) {
    let length = sum(out, |value| value * value).sqrt();
    out.iter_mut().for_each(|value| *value /= length);
}

/// The power of two that brings the largest magnitude near 1.
fn scale_of(row: &[f64]) -> f64 {
    let largest = row.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let exponent = largest.to_bits() >> 52;
    f64::from_bits((2046 - exponent).max(1) << 52)
}

/// Eight running sums: vectorises, and rounds less than one would.
pub(super) fn sum(values: &[f64], map: impl Fn(f64) -> f64) -> f64 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += map(*value);
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let rest: f64 = rest.iter().map(|value| map(*value)).sum();
    ((a + e) + (b + f)) + ((c + g) + (d + h)) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_rows_come_to_length_one() {
        for row in [[1e308, -1e308, 0.0], [5e-324, 0.0, 1e-323], [1e-320, 1e300, 3.0], [1.0, 1.0, 1.0 + f64::EPSILON]] {
            let mut out = [0.0; 3];
            assert!(centred(&row, &mut out));
            assert!((sum(&out, |value| value * value) - 1.0).abs() < 1e-12, "{row:?} became {out:?}");
            assert!(sum(&out, |value| value).abs() < 1e-12, "{row:?} became {out:?}");
            assert!(unit(&row, &mut out));
            assert!((sum(&out, |value| value * value) - 1.0).abs() < 1e-12, "{row:?} became {out:?}");
        }
    }

    #[test]
    fn equal_values_have_no_direction_even_if_their_mean_rounds() {
        assert!(!centred(&[0.1; 7], &mut [0.0; 7]));
        assert!(!unit(&[0.0, -0.0], &mut [0.0; 2]));
    }
}
