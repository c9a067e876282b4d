//! Normalized power: the fourth root of the mean fourth power of the rolling mean.
//!
//! A missing sample is skipped: the series is the samples that are there, closed up. With fewer of them than the window
//! there is no answer. The usual window is [`WINDOW`], 30 samples.
//!
//! Neither form ever subtracts a sample from a running sum, so nothing drifts: each window is the sum of its own samples and of no others.
//!
//! ```
//! use tidegate_compute::{Control, power::{normalized_power, NormalizedPowerStream}};
//!
//! let ride = [200.0, f64::NAN, 210.0, 190.0, 400.0];
//! let whole = normalized_power(&ride, 2, &Control::new())?;
//! let mut stream = NormalizedPowerStream::new(2)?;
//! for watts in ride {
//!     stream.push(Some(watts))?;
//! }
//! assert_eq!(whole.windows, 3);
//! assert!((whole.value.unwrap() - stream.current().value.unwrap()).abs() < 1e-9);
//! # Ok::<(), tidegate_compute::Error>(())
//! ```

mod rolling;
mod stream;

pub use stream::NormalizedPowerStream;

use crate::scratch::Scratch;
use crate::{Control, Error};
use rolling::{Buffers, Plan};

/// 30 samples: half a minute at one sample per second, the usual definition.
pub const WINDOW: usize = 30;

/// 1 Ki windows: three buffers of 8 KiB stay in the first-level cache.
const BLOCK: usize = 1 << 10;
/// 32 blocks per visit to the pool, some tens of microseconds.
const TILE: usize = 32 * BLOCK;

/// The answer, and on how many windows it rests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalizedPower {
    /// In the unit of the samples; `None` for fewer samples than the window.
    pub value: Option<f64>,
    /// Full windows there were.
    pub windows: u64,
}

/// Normalized power of a series in which NaN stands for a missing sample.
///
/// Runs on the current pool; a cancel is seen within a millisecond. O(n · log window).
///
/// # Errors
/// `WindowEmpty`, `InfiniteSample`, `Cancelled`.
pub fn normalized_power(samples: &[f64], window: usize, control: &Control) -> Result<NormalizedPower, Error> {
    if window == 0 {
        return Err(Error::WindowEmpty);
    }
    if samples.len() >= window {
        let sum = sum_of_fourth_powers(samples, window, control)?;
        // Anything missing or infinite has spread into the sum, and so has a magnitude beyond the range of a fourth power.
        if sum.is_finite() && sum > 1e-200 {
            return Ok(root(sum, samples.len(), window, 1.0));
        }
    }
    careful(samples.iter().copied(), window, control)
}

/// The same for samples that may be `None`; NaN is missing too.
///
/// # Errors
/// `WindowEmpty`, `InfiniteSample`, `Cancelled`.
pub fn normalized_power_with_gaps(
    samples: &[Option<f64>],
    window: usize,
    control: &Control,
) -> Result<NormalizedPower, Error> {
    if window == 0 {
        return Err(Error::WindowEmpty);
    }
    careful(samples.iter().map(|sample| sample.unwrap_or(f64::NAN)), window, control)
}

/// For series with gaps or extreme magnitudes: closes up the first and scales away the second by a power of two.
fn careful(
    samples: impl ExactSizeIterator<Item = f64>,
    window: usize,
    control: &Control,
) -> Result<NormalizedPower, Error> {
    let mut present = Vec::with_capacity(samples.len());
    let mut largest = 0.0_f64;
    for (index, sample) in samples.enumerate() {
        if index % BLOCK == 0 {
            control.check()?;
        }
        if sample.is_infinite() {
            return Err(Error::InfiniteSample { index: index as u64 });
        }
        if !sample.is_nan() {
            largest = largest.max(sample.abs());
            present.push(sample);
        }
    }
    if present.len() < window {
        return Ok(NormalizedPower { value: None, windows: 0 });
    }
    let (scale, unit) = scales(largest);
    for part in present.chunks_mut(BLOCK) {
        control.check()?;
        part.iter_mut().for_each(|sample| *sample *= scale);
    }
    let sum = sum_of_fourth_powers(&present, window, control)?;
    Ok(root(sum, present.len(), window, unit))
}

/// Two powers of two: one to bring `largest` near 1, and its inverse.
fn scales(largest: f64) -> (f64, f64) {
    let exponent = (largest.to_bits() >> 52).clamp(1, 2045);
    (f64::from_bits((2046 - exponent) << 52), f64::from_bits(exponent << 52))
}

fn root(sum: f64, samples: usize, window: usize, unit: f64) -> NormalizedPower {
    let windows = samples - window + 1;
    let value = (sum / windows as f64).sqrt().sqrt() / window as f64 * unit;
    NormalizedPower { value: Some(value), windows: windows as u64 }
}

/// Over all full windows, the sum of (the sum of the window)⁴; at least one window. The parts are added in order, whoever computed them.
fn sum_of_fourth_powers(samples: &[f64], window: usize, control: &Control) -> Result<f64, Error> {
    let windows = samples.len() - window + 1;
    let block = BLOCK.max(window);
    let tile = TILE.max(block);
    let mut parts = vec![0.0; windows.div_ceil(tile)];
    let plan = Plan::new(window);
    let scratch = Scratch::new();
    control.for_each_part(&mut parts, 1, |index, part| {
        let mut buffers = scratch.lend(Buffers::default);
        let end = windows.min((index + 1) * tile);
        for first in (index * tile..end).step_by(block) {
            let count = block.min(end - first);
            let samples = &samples[first..][..count + window - 1];
            part[0] += plan.sum_of_fourth_powers(samples, &mut buffers, control)?;
        }
        Ok(())
    })?;
    Ok(parts.iter().sum())
}
