//! Normalized power of a series that is still coming in.

use super::NormalizedPower;
use crate::Error;

/// Takes samples one by one and knows the normalized power so far.
///
/// A sample costs O(1): three additions, and one more when each full block of `window` samples is turned around.
/// Memory is one window, taken as samples arrive, so a huge window costs nothing in advance. To cancel, stop pushing.
#[derive(Debug, Clone)]
pub struct NormalizedPowerStream {
    window: usize,
    /// Samples of the current block, then what is left of the last block: sums from each place to its end.
    /// A window is the end of the last block and the beginning of this one, so nothing is ever subtracted.
    block: Vec<f64>,
    /// Samples in the current block, and their sum.
    filled: usize,
    prefix: f64,
    pushed: u64,
    windows: u64,
    powers: FourthPowers,
}

impl NormalizedPowerStream {
    /// A stream without samples.
    ///
    /// # Errors
    /// `WindowEmpty`.
    pub fn new(window: usize) -> Result<Self, Error> {
        if window == 0 {
            return Err(Error::WindowEmpty);
        }
        let powers = FourthPowers::default();
        Ok(Self { window, block: Vec::new(), filled: 0, prefix: 0.0, pushed: 0, windows: 0, powers })
    }

    /// Takes the next sample; `None` and NaN are missing ones, counted and otherwise skipped.
    ///
    /// # Errors
    /// `InfiniteSample`; the stream is as before, apart from the count.
    pub fn push(&mut self, sample: Option<f64>) -> Result<(), Error> {
        let index = self.pushed;
        self.pushed += 1;
        match sample {
            Some(sample) if sample.is_infinite() => Err(Error::InfiniteSample { index }),
            Some(sample) if !sample.is_nan() => {
                // A part of the mean, not of the sum: it cannot overflow.
                self.push_part(sample / self.window as f64);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Samples pushed so far, missing ones included.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The normalized power of everything pushed so far.
    #[must_use]
    pub fn current(&self) -> NormalizedPower {
        let value = (self.windows > 0).then(|| self.powers.root_of_mean(self.windows));
        NormalizedPower { value, windows: self.windows }
    }

    fn push_part(&mut self, part: f64) {
        let place = self.filled;
        let first_block = self.block.len() == place;
        if first_block {
            self.block.push(part);
        } else {
            self.block[place] = part;
        }
        self.prefix += part;
        self.filled += 1;
        if self.filled == self.window {
            self.add_window(self.prefix);
            self.turn_around();
        } else if !first_block {
            self.add_window(self.prefix + self.block[place + 1]);
        }
    }

    fn add_window(&mut self, mean: f64) {
        self.windows += 1;
        self.powers.add(mean);
    }

    /// The current block becomes the last one.
    fn turn_around(&mut self) {
        let mut sum = 0.0;
        for part in self.block.iter_mut().rev() {
            sum += *part;
            *part = sum;
        }
        (self.filled, self.prefix) = (0, 0.0);
    }
}

/// A sum of fourth powers that neither overflows, underflows nor loses small terms.
#[derive(Debug, Clone, Copy, Default)]
struct FourthPowers {
    /// Terms are divided by this power of two before they are raised; 0 until there is a term other than 0.
    unit: f64,
    sum: f64,
    /// What rounding has kept out of `sum` (Neumaier).
    lost: f64,
}

impl FourthPowers {
    fn add(&mut self, mean: f64) {
        let mean = mean.abs();
        // Also for the first term other than 0, as unit is 0 then. Up to 2³² of the unit, a fourth power has room.
        if mean > self.unit * 4_294_967_296.0 {
            self.change_unit(mean);
        }
        if self.unit == 0.0 {
            return;
        }
        let squared = (mean / self.unit) * (mean / self.unit);
        let term = squared * squared;
        let sum = self.sum + term;
        let (large, small) = if self.sum >= term { (self.sum, term) } else { (term, self.sum) };
        self.lost += (large - sum) + small;
        self.sum = sum;
    }

    fn change_unit(&mut self, mean: f64) {
        let unit = f64::from_bits((mean.to_bits() >> 52).max(1) << 52);
        let squared = (self.unit / unit) * (self.unit / unit);
        self.sum *= squared * squared;
        self.lost *= squared * squared;
        self.unit = unit;
    }

    fn root_of_mean(&self, count: u64) -> f64 {
        ((self.sum + self.lost) / count as f64).sqrt().sqrt() * self.unit
    }
}
