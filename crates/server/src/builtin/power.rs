//! `normalized_power`: of a series of samples, `null` where one is missing.

use serde::{Deserialize, Serialize};
use tidegate_compute::Control;
use tidegate_compute::power::{WINDOW, normalized_power_with_gaps};

use super::{Failure, Limits, input, output};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    power: Vec<Option<f64>>,
    #[serde(default = "usual_window")]
    window_size: usize,
}

fn usual_window() -> usize {
    WINDOW
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    normalized_power: Option<f64>,
    windows: u64,
}

pub(super) fn run(data: &[u8], limits: &Limits, control: &Control) -> Result<Vec<u8>, Failure> {
    let Input { power, window_size } = input(data)?;
    let answer = normalized_power_with_gaps(&power, window_size, control)?;
    output(&Output { normalized_power: answer.value, windows: answer.windows }, limits)
}
