//! Medians, quantiles and the lines that `cargo xtask bench` reads.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Prints the rows of one area.
#[derive(Clone, Copy, Debug)]
pub struct Area(pub &'static str);

impl Area {
    /// A figure beside what it is compared with.
    pub fn row(self, name: &str, value: f64, unit: &str, baseline: &str, theirs: f64) {
        let ratio = value / theirs;
        println!("ROW\t{}\t{name}\t{value:.3}\t{unit}\t{baseline}\t{theirs:.3}\t{ratio:.3}", self.0);
        eprintln!("{name:<52} {value:>12.2} {unit:<9} {baseline:<20} {theirs:>12.2}  ratio {ratio:.3}");
    }

    /// A figure that stands for itself.
    pub fn lone_row(self, name: &str, value: f64, unit: &str) {
        println!("ROW\t{}\t{name}\t{value:.3}\t{unit}", self.0);
        eprintln!("{name:<52} {value:>12.2} {unit}");
    }
}

/// The value in the middle.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What each contestant measures: medians of `rounds` rounds in which they take turns.
pub fn medians<const N: usize>(rounds: usize, mut contestants: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut values = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (values, run) in values.iter_mut().zip(&mut contestants) {
            values.push(run());
        }
    }
    values.map(median)
}

/// A quantile of latencies, in microseconds.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn microseconds(latencies: &[Duration], quantile: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e6
}

/// Calls per second of `tasks` tasks together, each of which counts its own until the given instant; see [`count`].
pub async fn rate<Counting>(tasks: usize, time: Duration, task: impl Fn(Instant) -> Counting) -> f64
where
    Counting: Future<Output = u32> + Send + 'static,
{
    let started = Instant::now();
    let mut counting = JoinSet::new();
    for _ in 0..tasks {
        counting.spawn(task(started + time));
    }
    let calls: u32 = counting.join_all().await.into_iter().sum();
    f64::from(calls) / started.elapsed().as_secs_f64()
}

/// How often something was done, one after the other, until this instant.
pub async fn count(until: Instant, call: impl AsyncFn()) -> u32 {
    let mut calls = 0;
    while Instant::now() < until {
        call().await;
        calls += 1;
    }
    calls
}
