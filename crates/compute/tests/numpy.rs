//! Real data against figures that numpy gave (see `fixtures/README.md`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use tidegate_compute::Control;
use tidegate_compute::power::{NormalizedPowerStream, normalized_power, normalized_power_with_gaps};
use tidegate_compute::similarity::{Algorithm, Entities, Options, Pair, Similarities, similarities};

const ENTITIES: usize = 1599;

/// The 11 features of each wine.
fn wines() -> Entities<usize> {
    let lines = include_str!("fixtures/winequality-red.csv").lines().skip(1);
    let features = |line: &str| line.split(';').take(11).map(|field| field.parse().unwrap()).collect::<Vec<f64>>();
    Entities::dense(lines.map(features).enumerate()).unwrap()
}

fn ride() -> Vec<Option<f64>> {
    let lines = include_str!("fixtures/ride-power.csv").lines().skip(1);
    lines.map(|line| line.split(',').nth(1).unwrap().parse().ok()).collect()
}

fn compare(algorithm: Algorithm, options: Options) -> Similarities {
    similarities(&wines(), algorithm, &options, &Control::new()).unwrap()
}

fn all(algorithm: Algorithm) -> Similarities {
    compare(algorithm, Options { limit: usize::MAX, ..Options::default() })
}

fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{actual} is not {expected}");
}

fn of(pairs: &[Pair], first: usize, second: usize) -> f64 {
    pairs.iter().find(|pair| (pair.first, pair.second) == (first, second)).unwrap().similarity
}

#[test]
fn pearson_of_all_wines_equals_corrcoef() {
    let found = all(Algorithm::Pearson);
    assert_eq!((found.pairs.len(), found.truncated), (ENTITIES * (ENTITIES - 1) / 2, false));
    close(found.pairs.iter().map(|pair| pair.similarity).sum(), 1_154_989.413_901_921);
    close(of(&found.pairs, 0, 1), 0.985_376_027_418_682_5);
    close(of(&found.pairs, 0, 1598), 0.989_727_523_729_775_8);
    close(of(&found.pairs, 3, 700), 0.996_637_922_361_742_1);
    let last = found.pairs.last().unwrap();
    close(last.similarity, 0.211_729_763_384_253_5);
    assert!(found.pairs.iter().all(|pair| pair.similarity <= 1.0), "clamped");
}

#[test]
fn five_best_partners_of_each_wine_equal_numpys() {
    let found = compare(Algorithm::Pearson, Options { top_k: Some(5), ..Options::default() });
    assert!(!found.truncated);
    let mut best = vec![Vec::new(); ENTITIES];
    for pair in &found.pairs {
        best[pair.first].push(pair.similarity);
        best[pair.second].push(pair.similarity);
    }
    // Pairs come best first, so each list does; many wines are listed twice, so which of several equal ones is kept is open.
    assert!(best.iter().all(|list| list.len() >= 5));
    close(best.iter().flat_map(|list| &list[..5]).sum(), SUM_OF_FIVE_BEST);
    close(best[0][1], 0.999_710_443_290_220_3);
    close(best[0][4], 0.999_361_015_656_255_1);
}

const SUM_OF_FIVE_BEST: f64 = 7_984.475_091_262_993;

#[test]
fn cosine_and_euclidean_of_all_wines_equal_numpys() {
    let cosine = all(Algorithm::Cosine).pairs;
    close(cosine.iter().map(|pair| pair.similarity).sum(), 1_184_643.074_045_526_3);
    close(of(&cosine, 0, 3), 0.992_852_125_029_874_2);
    let euclidean = all(Algorithm::Euclidean).pairs;
    close(euclidean.iter().map(|pair| pair.similarity).sum(), 64_992.644_776_798_21);
    close(of(&euclidean, 0, 3), 0.035_756_573_906_204_57);
}

#[test]
fn normalized_power_of_a_ride_equals_numpys() {
    let samples = ride();
    assert_eq!(samples.len(), 8357);
    let filled: Vec<f64> = samples.iter().map(|sample| sample.unwrap_or(f64::NAN)).collect();
    let expected = [
        (1, 8357, 294.426_269_589_671_6),
        (7, 8351, 277.123_558_047_827_5),
        (30, 8328, 267.431_317_592_175_33),
        (300, 8058, 257.447_879_633_128_5),
        (3600, 4758, 229.378_991_421_870_32),
    ];
    for (window, windows, watts) in expected {
        let mut stream = NormalizedPowerStream::new(window).unwrap();
        samples.iter().for_each(|sample| stream.push(*sample).unwrap());
        let with_gaps = normalized_power_with_gaps(&samples, window, &Control::new()).unwrap();
        for found in [with_gaps, normalized_power(&filled, window, &Control::new()).unwrap(), stream.current()] {
            assert_eq!(found.windows, windows);
            close(found.value.unwrap(), watts);
        }
    }
}
