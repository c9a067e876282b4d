//! The table a scenario prints: one fact per line, with the goal beside it where there is one.

use std::time::Duration;

use super::crowd::Outcome;
use super::histogram::Histogram;
use crate::table::{aligned, number};

/// Facts in the order they were found.
pub(super) struct Sheet {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    pub(super) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|column| (*column).to_owned()).collect(), rows: Vec::new() }
    }

    /// `name | value | goal`.
    pub(super) fn facts() -> Self {
        Self::new(&["", "value", "goal"])
    }

    pub(super) fn fact(&mut self, name: &str, value: impl Into<String>, goal: &str) {
        self.row(vec![name.to_owned(), value.into(), goal.to_owned()]);
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn print(self) {
        let right: Vec<usize> = (1..self.columns.len()).filter(|at| self.columns[*at] != "goal").collect();
        let rows: Vec<Vec<String>> = std::iter::once(self.columns).chain(self.rows).collect();
        print!("\n{}", aligned(&rows, &right));
    }
}

/// p50, p90, p99, p99.9 and max in ms.
pub(super) const PERCENTILES: [&str; 5] = ["p50 ms", "p90", "p99", "p99.9", "max"];

pub(super) fn percentiles(histogram: &Histogram) -> Vec<String> {
    [0.5, 0.9, 0.99, 0.999, 1.0].map(|at| histogram.at(at).map_or("-".to_owned(), milliseconds)).to_vec()
}

pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e3)
}

pub(super) fn microseconds(duration: Option<Duration>) -> String {
    duration.map_or("-".to_owned(), |duration| format!("{} µs", number(duration.as_secs_f64() * 1e6)))
}

/// Bytes as KB of 1000, as the goals count.
pub(super) fn kilobytes(bytes: f64) -> String {
    format!("{} KB", number(bytes / 1e3))
}

/// `a / b` as `1.23 ×`.
pub(super) fn ratio(a: f64, b: f64) -> String {
    if b > 0.0 { format!("{:.2} ×", a / b) } else { "-".to_owned() }
}

/// Share of one core.
pub(super) fn core(cpu: Duration, time: Duration) -> String {
    format!("{:.0} %", 100.0 * cpu.as_secs_f64() / time.as_secs_f64().max(1e-9))
}

/// What happened on the connections, in one line.
pub(super) fn connections(outcome: &Outcome) -> String {
    let counts = &outcome.counts;
    format!(
        "connections {}, cut {}, comments {}, retry {}, {:.1} events per read; errors {:?}",
        counts.connections,
        counts.cut,
        counts.comments,
        counts.retries,
        counts.events as f64 / counts.reads.max(1) as f64,
        counts.errors
    )
}
