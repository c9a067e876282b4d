//! Percentiles of whole sets, against a sorted list.

use proptest::prelude::*;
use tidegate_metrics::{Method, PercentileConfig, Summary, percentiles};

/// p50, p90, p95, p99 by nearest rank.
fn sorted_percentiles(sorted: &[f64]) -> [f64; 4] {
    [50, 90, 95, 99].map(|percent| sorted[(percent * sorted.len()).div_ceil(100).max(1) - 1])
}

fn found(summary: &Summary) -> [f64; 4] {
    let p = summary.percentiles;
    [p.p50, p.p90, p.p95, p.p99]
}

fn approximate_always() -> PercentileConfig {
    PercentileConfig { enable_approximation: true, approximation_threshold: 0 }
}

/// Numbers of every magnitude and sign, many equal ones, and the special ones.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => any::<f64>().prop_filter("normal", |number| number.is_normal()),
        2 => (-5i32..5).prop_map(f64::from),
        4 => 0.0..1e4f64,
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
    ]
}

proptest! {
    #[test]
    fn the_exact_way_agrees_with_sorting(samples in prop::collection::vec(any_number(), 1..700)) {
        let mut sorted = samples.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let summary = percentiles(&mut samples.clone(), &PercentileConfig::exact()).expect("not empty");
        prop_assert_eq!(summary.method, Method::Exact);
        prop_assert_eq!(found(&summary), sorted_percentiles(&sorted));
        prop_assert_eq!((summary.min, summary.max), (sorted[0], sorted[sorted.len() - 1]));
        prop_assert_eq!((summary.count, summary.ignored), (samples.len(), 0));
    }

    #[test]
    fn the_approximate_way_is_within_one_percent_and_its_extremes_are_exact(
        samples in prop::collection::vec(any_number(), 1..700),
    ) {
        let mut sorted = samples.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut left_alone = samples.clone();
        let summary = percentiles(&mut left_alone, &approximate_always()).expect("not empty");
        prop_assert_eq!(summary.method, Method::Approximate);
        prop_assert_eq!((summary.min, summary.max), (sorted[0], sorted[sorted.len() - 1]));
        for (answer, truth) in found(&summary).into_iter().zip(sorted_percentiles(&sorted)) {
            let is_close = answer == truth || (answer - truth).abs() <= truth.abs() / 128.0 + 2e-310;
            prop_assert!(is_close, "{} is not within 1 % of {}", answer, truth);
        }
        prop_assert_eq!(left_alone, samples, "the order is kept");
    }

    #[test]
    fn nan_is_left_out_and_counted(numbers in prop::collection::vec(any_number(), 0..100), nans in 0usize..20, seed: u64) {
        let mut mixed = numbers.clone();
        for nan in 0..nans {
            mixed.insert((seed as usize).wrapping_mul(nan + 1) % (mixed.len() + 1), f64::NAN);
        }
        for config in [PercentileConfig::exact(), approximate_always()] {
            let with = percentiles(&mut mixed.clone(), &config);
            let without = percentiles(&mut numbers.clone(), &config);
            prop_assert_eq!(with, without.map(|summary| Summary { ignored: nans, ..summary }));
        }
    }
}

#[test]
fn no_numbers_have_no_percentiles() {
    for config in [PercentileConfig::exact(), approximate_always()] {
        assert_eq!(percentiles(&mut [], &config), None);
        assert_eq!(percentiles(&mut [f64::NAN, f64::NAN], &config), None);
    }
}

#[test]
fn the_threshold_is_ten_thousand_and_the_switch_turns_approximation_off() {
    let method = |count: usize, config: &PercentileConfig| {
        let mut samples: Vec<_> = (0..count).map(|sample| sample as f64).collect();
        percentiles(&mut samples, config).map(|summary| summary.method)
    };
    assert_eq!(method(10_000, &PercentileConfig::default()), Some(Method::Exact));
    assert_eq!(method(10_001, &PercentileConfig::default()), Some(Method::Approximate));
    assert_eq!(method(10_001, &PercentileConfig::exact()), Some(Method::Exact));
}
