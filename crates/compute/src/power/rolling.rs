//! Rolling sums without a running sum: from sums of 1 sample come sums of 2, of 6, of 30.
//!
//! No sum waits for another, so the loops vectorise (with whatever the processor has, found at run time), and none is ever taken
//! back, so there is no drift. A window of 30 = 2 · 3 · 5 costs 7 additions a sample, in three passes over a block.

use crate::{Control, Error};

/// How to put a window together: a factor without small divisors, by doubling; then factors of 2, 3 and 5, the last one apart.
#[derive(Debug)]
pub(super) struct Plan {
    window: usize,
    rough: usize,
    factors: Vec<usize>,
    last: usize,
}

/// Room for the sums of one block; grows to the largest block seen.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    front: Vec<f64>,
    back: Vec<f64>,
    windows: Vec<f64>,
}

/// The passes over one block, compiled once for each kind of processor.
struct Passes<'a> {
    plan: &'a Plan,
    samples: &'a [f64],
    buffers: &'a mut Buffers,
    control: &'a Control,
}

impl pulp::WithSimd for Passes<'_> {
    type Output = Result<f64, Error>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        self.plan.passes(self.samples, self.buffers, self.control)
    }
}

impl Plan {
    pub(super) fn new(window: usize) -> Self {
        let mut plan = Self { window, rough: window, factors: Vec::new(), last: 1 };
        for factor in [2, 3, 5] {
            while plan.rough.is_multiple_of(factor) {
                plan.rough /= factor;
                plan.factors.push(factor);
            }
        }
        plan.last = plan.factors.pop().unwrap_or(1);
        plan
    }

    /// The sum, over the windows of `samples`, of (the sum of the window)⁴. Looks for a cancel at each pass.
    pub(super) fn sum_of_fourth_powers(
        &self,
        samples: &[f64],
        buffers: &mut Buffers,
        control: &Control,
    ) -> Result<f64, Error> {
        buffers.grow(samples.len());
        pulp::Arch::new().dispatch(Passes { plan: self, samples, buffers, control })
    }

    #[inline(always)]
    fn passes(&self, samples: &[f64], buffers: &mut Buffers, control: &Control) -> Result<f64, Error> {
        let (mut width, mut length) = (1, samples.len());
        if self.rough > 1 {
            length = buffers.double_up(samples, self.rough, control)?;
            width = self.rough;
        }
        for factor in &self.factors {
            control.check()?;
            let Buffers { front, back, .. } = buffers;
            let parts = if width == 1 { samples } else { &front[..length] };
            length -= (factor - 1) * width;
            match factor {
                2 => widen::<2>(&mut back[..length], parts, width),
                3 => widen::<3>(&mut back[..length], parts, width),
                _ => widen::<5>(&mut back[..length], parts, width),
            }
            std::mem::swap(front, back);
            width *= factor;
        }
        let parts = if width == 1 { samples } else { &buffers.front[..length] };
        let count = samples.len() + 1 - self.window;
        Ok(match self.last {
            1 => fourth_powers::<1>(parts, width, count),
            2 => fourth_powers::<2>(parts, width, count),
            3 => fourth_powers::<3>(parts, width, count),
            _ => fourth_powers::<5>(parts, width, count),
        })
    }
}

impl Buffers {
    fn grow(&mut self, length: usize) {
        for buffer in [&mut self.front, &mut self.back, &mut self.windows] {
            if buffer.len() < length {
                buffer.resize(length, 0.0);
            }
        }
    }

    /// Leaves sums of `window` samples, an odd number, in `front`, put together from the doubled sums that its binary digits name.
    #[inline(always)]
    fn double_up(&mut self, samples: &[f64], window: usize, control: &Control) -> Result<usize, Error> {
        let Self { front, back, windows } = self;
        let count = samples.len() + 1 - window;
        let windows_now = &mut windows[..count];
        windows_now.copy_from_slice(&samples[..count]); // the digit 1
        let (mut width, mut offset, mut length) = (1, 1, samples.len());
        while 2 * width <= window {
            control.check()?;
            let parts = if width == 1 { samples } else { &front[..length] };
            length -= width;
            widen::<2>(&mut back[..length], parts, width);
            std::mem::swap(front, back);
            width *= 2;
            if window & width != 0 {
                add(windows_now, &front[offset..]);
                offset += width;
            }
        }
        std::mem::swap(front, windows);
        Ok(count)
    }
}

// Plain loops over eight lanes: iterator adapters are not sure to be inlined into the vectorised copies.

const LANES: usize = 8;

/// `out[i]` = the sum of `N` parts from `i` on, `width` apart.
#[inline(always)]
fn widen<const N: usize>(out: &mut [f64], parts: &[f64], width: usize) {
    let whole = out.len() / LANES * LANES;
    let mut start = 0;
    while start < whole {
        out[start..start + LANES].copy_from_slice(&joined::<N, LANES>(parts, width, start));
        start += LANES;
    }
    for (index, out) in out.iter_mut().enumerate().skip(whole) {
        *out = joined::<N, 1>(parts, width, index)[0];
    }
}

#[inline(always)]
fn add(sums: &mut [f64], parts: &[f64]) {
    let parts = &parts[..sums.len()];
    for index in 0..sums.len() {
        sums[index] += parts[index];
    }
}

/// Sum of the fourth powers of `count` windows of `N` parts each; eight lanes whatever the processor has: the same bits everywhere.
#[inline(always)]
fn fourth_powers<const N: usize>(parts: &[f64], width: usize, count: usize) -> f64 {
    let whole = count / LANES * LANES;
    let mut lanes = [0.0; LANES];
    let mut start = 0;
    while start < whole {
        let sums = joined::<N, LANES>(parts, width, start);
        for lane in 0..LANES {
            let squared = sums[lane] * sums[lane];
            lanes[lane] += squared * squared;
        }
        start += LANES;
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for index in whole..count {
        let [sum] = joined::<N, 1>(parts, width, index);
        total += (sum * sum) * (sum * sum);
    }
    total
}

/// For `L` places from `start` on, the sum of `N` parts `width` apart.
#[inline(always)]
fn joined<const N: usize, const L: usize>(parts: &[f64], width: usize, start: usize) -> [f64; L] {
    let mut sums = [0.0; L];
    sums.copy_from_slice(&parts[start..start + L]);
    for part in 1..N {
        let from = start + part * width;
        let more = &parts[from..from + L];
        for lane in 0..L {
            sums[lane] += more[lane];
        }
    }
    sums
}
