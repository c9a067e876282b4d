//! What a load test found: percentiles, throughput, errors, and whether every acknowledged job was done.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::table::{aligned, number};

/// Counts of what went wrong, by status or by the kind of a broken connection.
pub(super) type Errors = BTreeMap<String, u64>;

/// The result of one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// From the moment a submission was due to its acknowledgement.
    pub(super) submit: Vec<Duration>,
    /// From the moment a submission was due to the job's arrival at a worker.
    pub(super) claim: Vec<Duration>,
    pub(super) planned: u64,
    pub(super) acknowledged: u64,
    /// Acknowledged jobs whose completion was answered `ok`.
    pub(super) completed: u64,
    /// Arrivals at a worker beyond the first of the same job.
    pub(super) repeated: u64,
    /// Completions refused because the lease was no longer valid.
    pub(super) stale: u64,
    /// From the start to the last acknowledgement and to the last completion.
    pub(super) submitting: Duration,
    pub(super) completing: Duration,
    pub(super) submit_errors: Errors,
    pub(super) worker_errors: Errors,
}

impl Report {
    /// Nothing acknowledged was lost, and something was acknowledged.
    pub(super) fn kept_its_word(&self) -> bool {
        self.acknowledged > 0 && self.completed == self.acknowledged
    }

    pub(super) fn text(&self) -> String {
        let mut lines = vec![["ms", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned).to_vec()];
        lines.push(percentiles("submit", &self.submit));
        lines.push(percentiles("submit → worker", &self.claim));
        let mut text = aligned(&lines, &[1, 2, 3, 4, 5]);
        let rate = |count: u64, time: Duration| number(count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE));
        let submitted = rate(self.acknowledged, self.submitting);
        let done = rate(self.completed, self.completing);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "planned {}, acknowledged {} ({submitted}/s), completed {} ({done}/s)",
            self.planned, self.acknowledged, self.completed
        );
        let _ =
            writeln!(text, "arrived at a worker more than once {}, stale completions {}", self.repeated, self.stale);
        let _ =
            writeln!(text, "errors: submit {}, workers {}", listed(&self.submit_errors), listed(&self.worker_errors));
        let lost = self.acknowledged - self.completed;
        let _ = match (self.acknowledged, lost) {
            (0, _) => write!(text, "FAILED: no job was acknowledged"),
            (_, 0) => write!(text, "every acknowledged job was completed"),
            _ => write!(text, "FAILED: {lost} acknowledged jobs were not completed in time"),
        };
        text
    }
}

fn percentiles(name: &str, latencies: &[Duration]) -> Vec<String> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let shown = |fraction| percentile(&sorted, fraction).map_or("-".to_owned(), milliseconds);
    let mut cells = vec![name.to_owned()];
    cells.extend([0.5, 0.9, 0.99, 0.999, 1.0].map(shown));
    cells
}

/// The smallest sample that is not below `fraction` of all (nearest rank); exact, for all samples are kept.
fn percentile(sorted: &[Duration], fraction: f64) -> Option<Duration> {
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e3)
}

fn listed(errors: &Errors) -> String {
    let parts: Vec<String> = errors.iter().map(|(what, count)| format!("{count} × {what}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let sorted: Vec<Duration> = (1..=1000).map(Duration::from_millis).collect();
        let at = |fraction| percentile(&sorted, fraction).unwrap().as_millis();
        assert_eq!([0.5, 0.9, 0.99, 0.999, 1.0].map(at), [500, 900, 990, 999, 1000]);
        assert_eq!(percentile(&sorted[..1], 0.5), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_lost_job_and_an_empty_run_fail() {
        let report = |acknowledged, completed| Report { acknowledged, completed, ..Report::default() };
        assert!(report(5, 5).kept_its_word());
        assert!(!report(5, 4).kept_its_word());
        assert!(!report(0, 0).kept_its_word());
        assert!(report(5, 4).text().ends_with("FAILED: 1 acknowledged jobs were not completed in time"));
    }
}
