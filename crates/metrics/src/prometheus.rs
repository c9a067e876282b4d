//! The Prometheus text format, version 0.0.4.
//!
//! A timer becomes a histogram in seconds. Its `le` bounds are cut at the nearest bucket edge below, so a sample up to
//! 1.6 % under a bound may be counted at the next one; `+Inf`, `_count` and `_sum` are exact.

use crate::buckets::{self, CHUNKS, PER_CHUNK};
use crate::family::{Kind, Series};
use crate::labels::escape_into;
use crate::timer::Timer;

/// As the end of a label set, and in nanoseconds. From 10 µs (a call inside the process) to 5 min (a long job), denser where people set limits.
const BOUNDS: [(&str, u64); 18] = [
    (r#"0.00001"} "#, 10_000),
    (r#"0.0001"} "#, 100_000),
    (r#"0.0005"} "#, 500_000),
    (r#"0.001"} "#, 1_000_000),
    (r#"0.0025"} "#, 2_500_000),
    (r#"0.005"} "#, 5_000_000),
    (r#"0.01"} "#, 10_000_000),
    (r#"0.025"} "#, 25_000_000),
    (r#"0.05"} "#, 50_000_000),
    (r#"0.1"} "#, 100_000_000),
    (r#"0.25"} "#, 250_000_000),
    (r#"0.5"} "#, 500_000_000),
    (r#"1"} "#, 1_000_000_000),
    (r#"2.5"} "#, 2_500_000_000),
    (r#"5"} "#, 5_000_000_000),
    (r#"10"} "#, 10_000_000_000),
    (r#"60"} "#, 60_000_000_000),
    (r#"300"} "#, 300_000_000_000),
];

/// For each bound, the first bucket that reaches above it.
const CUTS: [usize; BOUNDS.len()] = {
    let mut cuts = [0; BOUNDS.len()];
    let mut bound = 0;
    while bound < cuts.len() {
        cuts[bound] = buckets::index_of(BOUNDS[bound].1 + 1);
        bound += 1;
    }
    cuts
};

/// For each chunk, the first bound that reaches into it or beyond.
const FIRST_BOUND: [usize; CHUNKS] = {
    let mut first = [0; CHUNKS];
    let mut chunk = 0;
    while chunk < CHUNKS {
        while first[chunk] < CUTS.len() && CUTS[first[chunk]] <= chunk * PER_CHUNK {
            first[chunk] += 1;
        }
        chunk += 1;
    }
    first
};

/// Appends one family: head, then a line per series, or a histogram per series and what failed or was cancelled.
pub(crate) fn render_family(text: &mut String, name: &str, help: &str, kind: Kind, series: &[Series]) {
    if series.is_empty() {
        return;
    }
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Timer => "histogram",
    };
    head(text, name, help, kind);
    for series in series {
        match series {
            Series::Counter(counter) => line(text, &[name], &counter.labels().text, counter.get()),
            Series::Gauge(gauge) => line_with(text, &[name], &gauge.labels().text, &float(gauge.get())),
            Series::Timer(timer) => histogram(text, name, timer),
        }
    }
    let failed = "Operations that failed.";
    outcomes(text, name, FAILED, failed, series, |(failed, _)| failed);
    let cancelled = "Operations that were dropped before they had an outcome.";
    outcomes(text, name, CANCELLED, cancelled, series, |(_, cancelled)| cancelled);
}

const FAILED: &str = "_failed_total";
const CANCELLED: &str = "_cancelled_total";

/// Every name a family of this name and kind may put into the text.
pub(crate) fn exported_names(name: &str, kind: Kind) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if kind == Kind::Timer {
        names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        names.extend([FAILED, CANCELLED].map(|suffix| format!("{}{suffix}", without_unit(name))));
    }
    names
}

fn without_unit(name: &str) -> &str {
    name.strip_suffix("_seconds").unwrap_or(name)
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    push(text, &["# HELP ", name, " "]);
    escape_into(text, help, false);
    push(text, &["\n# TYPE ", name, " ", kind, "\n"]);
}

fn line(text: &mut String, name: &[&str], labels: &str, value: u64) {
    line_with(text, name, labels, itoa::Buffer::new().format(value));
}

fn line_with(text: &mut String, name: &[&str], labels: &str, value: &str) {
    push(text, name);
    if !labels.is_empty() {
        push(text, &["{", labels, "}"]);
    }
    push(text, &[" ", value, "\n"]);
}

fn push(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

/// Rust writes `inf`, Prometheus reads `+Inf`.
fn float(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        finite_or_nan => finite_or_nan.to_string(),
    }
}

fn histogram(text: &mut String, name: &str, timer: &Timer) {
    let labels = &*timer.labels().text;
    let comma = if labels.is_empty() { "" } else { "," };
    // The part all bucket lines share is put together once: this loop is most of a scrape.
    let start = text.len();
    push(text, &[name, "_bucket{", labels, comma, "le=\""]);
    let prefix = text.split_off(start);
    let mut digits = itoa::Buffer::new();
    let mut below = 0;
    for (bound, count) in BOUNDS.iter().map(|(bound, _)| *bound).chain([r#"+Inf"} "#]).zip(bound_counts(timer)) {
        below += count;
        push(text, &[&prefix, bound, digits.format(below)]);
        text.push('\n');
    }
    line_with(text, &[name, "_sum"], labels, &seconds(timer.histogram().sum()));
    line(text, &[name, "_count"], labels, below);
}

/// How many recordings lie between each bound and the one before, over all threads.
fn bound_counts(timer: &Timer) -> [u64; BOUNDS.len() + 1] {
    let mut counts = [0; BOUNDS.len() + 1];
    for chunk in timer.histogram().chunks() {
        let first = chunk.number * PER_CHUNK;
        let mut bound = FIRST_BOUND[chunk.number];
        let mut from = 0;
        while from < PER_CHUNK {
            let to = CUTS.get(bound).map_or(PER_CHUNK, |cut| (cut - first).min(PER_CHUNK));
            counts[bound] += chunk.count(from, to);
            (from, bound) = (to, bound + 1);
        }
    }
    counts
}

fn seconds(nanos: u128) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn outcomes(
    text: &mut String,
    name: &str,
    suffix: &str,
    help: &str,
    series: &[Series],
    pick: impl Fn((u64, u64)) -> u64,
) {
    let name = without_unit(name);
    let mut is_first = true;
    for series in series {
        let Series::Timer(timer) = series else { continue };
        if !timer.has_outcomes() {
            continue;
        }
        if std::mem::take(&mut is_first) {
            head(text, &format!("{name}{suffix}"), help, "counter");
        }
        line(text, &[name, suffix], &timer.labels().text, pick(timer.histogram().outcomes()));
    }
}
