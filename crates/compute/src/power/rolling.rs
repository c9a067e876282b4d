//! Rolling sums by doubling: sums of 2 samples from sums of 1, of 4 from 2, …; a window is put together from those its binary digits name.
//!
//! No sum waits for another, so the loops vectorise (with whatever the processor has, found at run time), and none is ever taken
//! back, so there is no drift.

use crate::{Control, Error};

/// Room for the sums of one block; grows to the largest block seen.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    doubled: Vec<f64>,
    spare: Vec<f64>,
    windows: Vec<f64>,
}

/// The sum, over the windows of `samples`, of (the sum of the window)⁴. Looks for a cancel at each doubling.
pub(super) fn sum_of_fourth_powers(
    samples: &[f64],
    window: usize,
    buffers: &mut Buffers,
    control: &Control,
) -> Result<f64, Error> {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || by_doubling(samples, window, buffers, control),
    )
}

#[inline(always)]
fn by_doubling(samples: &[f64], window: usize, buffers: &mut Buffers, control: &Control) -> Result<f64, Error> {
    let Buffers { doubled, spare, windows } = buffers;
    let count = samples.len() + 1 - window;
    let (mut width, mut offset) = (1, 0);
    let top = 1 << window.ilog2();
    let mut current = samples;
    while width < top {
        control.check()?;
        if window & width != 0 {
            accumulate(windows, &current[offset..][..count], offset == 0);
            offset += width;
        }
        double(spare, current, width);
        std::mem::swap(spare, doubled);
        current = doubled;
        width *= 2;
    }
    if offset == 0 {
        windows.clear();
    }
    Ok(fourth_powers(windows, &current[offset..][..count]))
}

/// `sums[i] = parts[i] + parts[i + width]`
#[inline(always)]
fn double(sums: &mut Vec<f64>, parts: &[f64], width: usize) {
    let (left, right) = (&parts[..parts.len() - width], &parts[width..]);
    sums.clear();
    sums.extend(left.iter().zip(right).map(|(left, right)| left + right));
}

#[inline(always)]
fn accumulate(windows: &mut Vec<f64>, parts: &[f64], first: bool) {
    if first {
        windows.clear();
        windows.extend_from_slice(parts);
    } else {
        windows.iter_mut().zip(parts).for_each(|(window, part)| *window += part);
    }
}

/// Sum of (window + part)⁴, or of part⁴ if the window has no earlier parts.
#[inline(always)]
fn fourth_powers(windows: &[f64], parts: &[f64]) -> f64 {
    if windows.is_empty() {
        return in_lanes(parts, parts, |part, _| part);
    }
    in_lanes(windows, parts, |window, part| window + part)
}

/// Sum of fourth powers in eight lanes, whatever the processor has: the same bits everywhere.
#[inline(always)]
fn in_lanes(left: &[f64], right: &[f64], join: impl Fn(f64, f64) -> f64) -> f64 {
    let power = |left: f64, right: f64| {
        let squared = join(left, right) * join(left, right);
        squared * squared
    };
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..8 {
            lanes[lane] += power(left[lane], right[lane]);
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(left, right)| power(*left, *right)).sum();
    lanes.iter().sum::<f64>() + rest
}
