//! Normalized power against adding every window up anew.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use tidegate_compute::power::{NormalizedPower, NormalizedPowerStream, normalized_power, normalized_power_with_gaps};
use tidegate_compute::{Control, Error};

/// Every window by itself, scaled by the largest sample so that fourth powers stay in range.
fn naive(samples: &[Option<f64>], window: usize) -> Option<f64> {
    let present: Vec<f64> = samples.iter().flatten().copied().filter(|sample| !sample.is_nan()).collect();
    let largest = present.iter().fold(0.0_f64, |largest, sample| largest.max(sample.abs()));
    if present.len() < window {
        return None;
    }
    if largest == 0.0 {
        return Some(0.0);
    }
    let mean = |part: &[f64]| part.iter().map(|sample| sample / largest).sum::<f64>() / window as f64;
    let powers: Vec<f64> = present.windows(window).map(|part| mean(part).powi(4)).collect();
    Some((powers.iter().sum::<f64>() / powers.len() as f64).powf(0.25) * largest)
}

fn stream(samples: &[Option<f64>], window: usize) -> NormalizedPower {
    let mut stream = NormalizedPowerStream::new(window).unwrap();
    samples.iter().for_each(|sample| stream.push(*sample).unwrap());
    assert_eq!(stream.pushed(), samples.len() as u64);
    stream.current()
}

fn check(samples: &[Option<f64>], window: usize) -> Result<(), TestCaseError> {
    let filled: Vec<f64> = samples.iter().map(|sample| sample.unwrap_or(f64::NAN)).collect();
    let expected = naive(samples, window);
    let batch = normalized_power(&filled, window, &Control::new()).unwrap();
    let gaps = normalized_power_with_gaps(samples, window, &Control::new()).unwrap();
    for found in [batch, gaps, stream(samples, window)] {
        match (found.value, expected) {
            (Some(found), Some(expected)) => {
                prop_assert!((found - expected).abs() <= 1e-12 * expected, "{found} is not {expected}");
            }
            (found, expected) => prop_assert_eq!(found, expected),
        }
        let present = filled.iter().filter(|sample| !sample.is_nan()).count();
        prop_assert_eq!(found.windows as usize, (present + 1).saturating_sub(window));
    }
    Ok(())
}

fn watts() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![8 => (0.0..2000.0).prop_map(Some), 1 => Just(None), 1 => Just(Some(f64::NAN)), 1 => Just(Some(0.0))]
}

fn any_magnitude() -> impl Strategy<Value = Option<f64>> {
    (0.0..10.0, -300..300).prop_map(|(digits, exponent)| Some(digits * 10_f64.powi(exponent)))
}

proptest! {
    #[test]
    fn every_form_equals_adding_each_window_up(samples in prop::collection::vec(watts(), 0..300), window in 1..100_usize) {
        check(&samples, window)?;
    }

    #[test]
    fn extreme_magnitudes_neither_overflow_nor_linger(
        samples in prop::collection::vec(any_magnitude(), 1..200),
        window in 1..40_usize,
    ) {
        check(&samples, window)?;
    }

    #[test]
    fn long_series_cross_blocks_without_a_seam(seed in 0..1000_u32, length in 1000..70_000_usize, window in 1..3000_usize) {
        let sample = |index: u32| Some(f64::from(index.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 22));
        let samples: Vec<_> = (0..length as u32).map(sample).collect();
        let found = [stream(&samples, window), normalized_power_with_gaps(&samples, window, &Control::new()).unwrap()];
        match (found[0].value, found[1].value) {
            (Some(one), Some(other)) => prop_assert!((one - other).abs() <= 1e-12 * one, "{one} is not {other}"),
            (one, other) => prop_assert_eq!(one, other),
        }
        prop_assert_eq!(found[0].windows, found[1].windows);
    }
}

/// A running sum that subtracts would carry the rounding of the first sample through all the others.
#[test]
fn a_huge_sample_leaves_nothing_behind_in_ten_million_later_ones() {
    let mut samples = vec![1.5; 10_000_000];
    samples[0] = 1e12;
    let expected = {
        let with = 30.0 * ((1e12 + 29.0 * 1.5) / 900.0_f64).powi(4) * 30.0_f64.powi(3); // one window holds it
        let without = 1.5_f64.powi(4) * (10_000_000.0 - 30.0);
        ((with + without) / (10_000_000.0 - 29.0)).powf(0.25)
    };
    let batch = normalized_power(&samples, 30, &Control::new()).unwrap();
    let mut stream = NormalizedPowerStream::new(30).unwrap();
    samples.iter().for_each(|sample| stream.push(Some(*sample)).unwrap());
    for found in [batch, stream.current()] {
        assert_eq!(found.windows, 10_000_000 - 29);
        assert!((found.value.unwrap() / expected - 1.0).abs() < 1e-9, "{found:?} is not {expected}");
    }
    let after = normalized_power(&samples[1..], 30, &Control::new()).unwrap();
    assert!((after.value.unwrap() - 1.5).abs() < 1e-12);
}

#[test]
fn fewer_samples_than_the_window_have_no_normalized_power() {
    let none = NormalizedPower { value: None, windows: 0 };
    for samples in [&[][..], &[100.0; 29], &[f64::NAN; 100]] {
        assert_eq!(normalized_power(samples, 30, &Control::new()), Ok(none));
    }
    assert_eq!(normalized_power(&[1.0], usize::MAX, &Control::new()), Ok(none));
    let mut huge = NormalizedPowerStream::new(usize::MAX).unwrap();
    huge.push(Some(1.0)).unwrap();
    assert_eq!(huge.current(), none);
}

#[test]
fn bad_samples_and_windows_are_told_apart() {
    let samples = [1.0, f64::NAN, f64::NEG_INFINITY];
    for window in [1, 2, 30] {
        assert_eq!(normalized_power(&samples, window, &Control::new()), Err(Error::InfiniteSample { index: 2 }));
    }
    assert_eq!(normalized_power(&samples, 0, &Control::new()), Err(Error::WindowEmpty));
    assert_eq!(NormalizedPowerStream::new(0).unwrap_err(), Error::WindowEmpty);
    let mut stream = NormalizedPowerStream::new(1).unwrap();
    stream.push(None).unwrap();
    assert_eq!(stream.push(Some(f64::INFINITY)), Err(Error::InfiniteSample { index: 1 }));
    stream.push(Some(7.0)).unwrap();
    assert_eq!(stream.current(), NormalizedPower { value: Some(7.0), windows: 1 });
}

#[test]
fn a_cancelled_series_is_not_read_on() {
    let control = Control::new();
    control.cancel();
    assert_eq!(normalized_power(&[1.0; 100], 30, &control), Err(Error::Cancelled));
    assert_eq!(normalized_power_with_gaps(&[Some(1.0); 100], 30, &control), Err(Error::Cancelled));
}
