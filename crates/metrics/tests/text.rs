//! The Prometheus text, read back line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tidegate_metrics::Registry;

/// A sample line: name, labels, value.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Everything the text says: types by family name, and the samples in order. Panics on anything not in the format.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
    let (mut types, mut samples) = (BTreeMap::new(), Vec::<Sample>::new());
    let mut family = String::new();
    let mut seen = BTreeSet::new();
    assert!(text.is_empty() || text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().expect("a name").to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert_eq!(name, family, "TYPE follows HELP");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} has one head");
        } else {
            let sample = parse_sample(line);
            let of_histogram = types.get(&family).is_some_and(|kind| kind == "histogram");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.name.strip_suffix(suffix));
            assert_eq!(base.filter(|_| of_histogram).unwrap_or(&sample.name), family, "samples follow their head");
            assert!(seen.insert(line.rsplit_once(' ').expect("a value").0.to_owned()), "{line} comes once");
            samples.push(sample);
        }
    }
    (types, samples)
}

fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().expect("a number"),
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    Sample { name: name.to_owned(), labels: parse_labels(labels), value }
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while rest != "}" {
        let (name, quoted) = rest.split_once("=\"").expect("a label");
        let mut value = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next().expect("a closing quote") {
                '"' => break,
                '\\' => value.push(match characters.next().expect("an escaped character") {
                    'n' => '\n',
                    other @ ('\\' | '"') => other,
                    other => panic!("\\{other} is no escape"),
                }),
                other => value.push(other),
            }
        }
        assert!(labels.insert(name.trim_start_matches(',').to_owned(), value).is_none());
        rest = characters.as_str();
    }
    labels
}

proptest! {
    #[test]
    fn label_values_survive_whatever_they_contain(value in "[a-z\"\\\\\n{}=, äß]{0,12}", other in any::<String>()) {
        let registry = Registry::new();
        registry.counter_with("c_total", "Help \\ with\nbreaks.", &[("a", &value), ("b", &other)]).add(3);
        let text = registry.render_prometheus();
        // A carriage return within a label is legal, but `lines` would cut it off at the end of a line only.
        let (_, samples) = parse(&text);
        let labels = BTreeMap::from([("a".to_owned(), value), ("b".to_owned(), other)]);
        prop_assert_eq!(samples, [Sample { name: "c_total".to_owned(), labels, value: 3.0 }]);
    }

    #[test]
    fn histogram_buckets_count_what_is_at_or_below_their_bound(
        nanos in prop::collection::vec((0u32..50, any::<u64>()).prop_map(|(bits, low)| low & ((1 << bits) - 1)), 0..200),
    ) {
        let registry = Registry::new();
        let timer = registry.timer_with("run_seconds", "", &[("queue", "q")]);
        nanos.iter().for_each(|nanos| timer.record(Duration::from_nanos(*nanos)));
        let (types, samples) = parse(&registry.render_prometheus());
        prop_assert_eq!(&types["run_seconds"], "histogram");
        let buckets: Vec<_> = samples.iter().filter(|sample| sample.name == "run_seconds_bucket").collect();
        let bounds: Vec<f64> = buckets.iter().map(|sample| match sample.labels["le"].as_str() {
            "+Inf" => f64::INFINITY,
            number => number.parse().expect("a bound"),
        }).collect();
        prop_assert!(bounds.is_sorted() && bounds.len() == 19);
        prop_assert!(buckets.is_sorted_by(|left, right| left.value <= right.value));
        for (bound, bucket) in bounds.iter().zip(&buckets) {
            let at_or_below = |limit: f64| nanos.iter().filter(|nanos| **nanos as f64 / 1e9 <= limit).count() as f64;
            prop_assert!(bucket.value <= at_or_below(*bound));
            prop_assert!(bucket.value >= at_or_below(*bound * (1.0 - 1.0 / 64.0)), "at most one bucket short");
        }
        let value = |name: &str| samples.iter().find(|sample| sample.name == name).map(|sample| sample.value);
        prop_assert_eq!(value("run_seconds_count"), Some(nanos.len() as f64));
        prop_assert_eq!(bounds.last().zip(buckets.last()).map(|(_, bucket)| bucket.value), Some(nanos.len() as f64));
        let sum: u128 = nanos.iter().map(|nanos| u128::from(*nanos)).sum();
        let exported = value("run_seconds_sum").expect("a sum");
        prop_assert!((exported - sum as f64 / 1e9).abs() <= 1e-9 * exported.max(1.0));
    }
}

#[test]
fn every_type_is_named_and_every_number_can_be_read() {
    let registry = Registry::new();
    registry.counter("c_total", "A counter.").add(u64::MAX);
    for (name, value) in [("g_a", 1.5), ("g_b", f64::INFINITY), ("g_c", f64::NEG_INFINITY), ("g_d", -1e300)] {
        registry.gauge(name, "A gauge.").set(value);
    }
    registry.gauge("g_nan", "Not a number.").set(f64::NAN);
    let timer = registry.timer("t_seconds", "A timer.");
    timer.start().succeed();
    let (types, samples) = parse(&registry.render_prometheus());
    assert_eq!(types["c_total"], "counter");
    assert_eq!(types["g_a"], "gauge");
    assert_eq!((&*types["t_seconds"], &*types["t_failed_total"]), ("histogram", "counter"));
    let value = |name: &str| samples.iter().find(|sample| sample.name == name).expect("exported").value;
    assert_eq!(
        [value("g_a"), value("g_b"), value("g_c"), value("g_d")],
        [1.5, f64::INFINITY, f64::NEG_INFINITY, -1e300]
    );
    assert!(value("g_nan").is_nan());
}

#[test]
fn a_duration_on_a_bound_is_counted_at_it() {
    let registry = Registry::new();
    registry.timer("t_seconds", "").record(Duration::from_millis(16));
    let text = registry.render_prometheus();
    assert!(text.contains("t_seconds_bucket{le=\"0.01\"} 0\nt_seconds_bucket{le=\"0.025\"} 1\n"));
    assert!(text.contains("t_seconds_sum 0.016000000\n"));
}

#[test]
fn an_empty_registry_renders_nothing() {
    assert_eq!(Registry::new().render_prometheus(), "");
}
