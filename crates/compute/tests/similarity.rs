//! Similarities against a loop over all pairs that follows the definitions word by word.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_compute::matrix::SparseMatrix;
use tidegate_compute::similarity::{Algorithm, Entities, Options, Similarities, similarities};
use tidegate_compute::{Control, Error};

const ALL: [Algorithm; 4] = [Algorithm::Pearson, Algorithm::Cosine, Algorithm::Jaccard, Algorithm::Euclidean];

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let constant = |row: &[f64]| row.iter().all(|value| *value == row[0]);
    if a.len() < 2 || constant(a) || constant(b) {
        return None;
    }
    let mean = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let centred = |row: &[f64], mean: f64| row.iter().map(|value| value - mean).collect::<Vec<_>>();
    cosine(&centred(a, mean_a), &centred(b, mean_b))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
}

fn euclidean(a: &[f64], b: &[f64]) -> f64 {
    1.0 / (1.0 + a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt())
}

fn jaccard(a: &[bool], b: &[bool]) -> Option<f64> {
    let count = |joined: fn(bool, bool) -> bool| a.iter().zip(b).filter(|(a, b)| joined(**a, **b)).count() as f64;
    let present = |row: &[bool]| row.iter().any(|present| *present);
    (present(a) && present(b)).then(|| count(|a, b| a && b) / count(|a, b| a || b))
}

fn naive_dense(algorithm: Algorithm, a: &[f64], b: &[f64]) -> Option<f64> {
    let set = |row: &[f64]| row.iter().map(|value| *value != 0.0).collect::<Vec<_>>();
    match algorithm {
        Algorithm::Pearson => pearson(a, b),
        Algorithm::Cosine => cosine(a, b),
        Algorithm::Jaccard => jaccard(&set(a), &set(b)),
        Algorithm::Euclidean => Some(euclidean(a, b)),
    }
}

type Ratings = BTreeMap<u8, f64>;

fn naive_sparse(algorithm: Algorithm, a: &Ratings, b: &Ratings) -> Option<f64> {
    let shared = a.iter().filter_map(|(item, rating)| Some((*rating, *b.get(item)?)));
    let (left, right): (Vec<f64>, Vec<f64>) = shared.unzip();
    if left.is_empty() {
        return None;
    }
    let length = |row: &Ratings| row.values().map(|rating| rating * rating).sum::<f64>().sqrt();
    match algorithm {
        Algorithm::Pearson => pearson(&left, &right),
        Algorithm::Cosine => (length(a) * length(b) > 0.0).then(|| dot(&left, &right) / (length(a) * length(b))),
        Algorithm::Jaccard => Some(left.len() as f64 / (a.len() + b.len() - left.len()) as f64),
        Algorithm::Euclidean => Some(euclidean(&left, &right)),
    }
}

/// Each pair that has a similarity, by ids.
fn table<T>(rows: &[T], similarity: impl Fn(&T, &T) -> Option<f64>) -> BTreeMap<(usize, usize), f64> {
    let pairs = (0..rows.len()).flat_map(|first| (first + 1..rows.len()).map(move |second| (first, second)));
    pairs.filter_map(|(first, second)| Some(((first, second), similarity(&rows[first], &rows[second])?))).collect()
}

/// Every pair there is, as found, by ids; checks their order on the way.
fn found(entities: &Entities<usize>, algorithm: Algorithm, options: &Options) -> (Vec<(f64, usize, usize)>, bool) {
    let Similarities { pairs, truncated } = similarities(entities, algorithm, options, &Control::new()).unwrap();
    let named = pairs.iter().map(|pair| (pair.similarity, *entities.id(pair.first), *entities.id(pair.second)));
    let named: Vec<_> = named.collect();
    assert!(named.is_sorted_by(|a, b| a.0 > b.0 || (a.0 == b.0 && (a.1, a.2) < (b.1, b.2))), "order");
    assert!(named.iter().all(|pair| pair.1 < pair.2), "the lesser id comes first");
    (named, truncated)
}

fn check_all(entities: &Entities<usize>, algorithm: Algorithm, expected: &BTreeMap<(usize, usize), f64>) {
    let (pairs, truncated) = found(entities, algorithm, &Options::default());
    assert!(!truncated);
    assert_eq!(pairs.len(), expected.len(), "{algorithm:?}: {pairs:?} {expected:?}");
    for (similarity, first, second) in pairs {
        let expected = expected[&(first, second)];
        assert!(
            (similarity - expected).abs() < 1e-9,
            "{algorithm:?} of {first}, {second}: {similarity}, not {expected}"
        );
    }
}

/// What the options leave of all pairs, by the words of the documentation.
fn selected(all: &[(f64, usize, usize)], options: &Options) -> (Vec<(f64, usize, usize)>, bool) {
    let enough = |pair: &(f64, usize, usize)| options.min_similarity.is_none_or(|least| pair.0 >= least);
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for pair in all.iter().filter(|pair| enough(pair)) {
        let top_k = options.top_k.unwrap_or(usize::MAX);
        let mut take = |id| {
            let left = left.entry(id).or_insert(top_k);
            let takes = *left > 0;
            *left = left.saturating_sub(1);
            takes
        };
        let (first, second) = (take(pair.1), take(pair.2));
        if first || second {
            kept.push(*pair);
        }
    }
    let truncated = kept.len() > options.limit;
    kept.truncate(options.limit);
    (kept, truncated)
}

/// Few different values, so that ties, constant rows, empty rows and doubles are common.
fn dense_rows(entities: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<f64>>> {
    let value = prop_oneof![3 => (-2..3_i32).prop_map(f64::from), 1 => -10.0..10.0, 1 => Just(1000.1)];
    (entities, 1..9_usize).prop_flat_map(move |(entities, columns)| {
        prop::collection::vec(prop::collection::vec(value.clone(), columns), entities)
    })
}

fn sparse_rows(entities: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Ratings>> {
    let rating = prop_oneof![4 => (0..6_i32).prop_map(f64::from), 1 => 0.0..5.0];
    prop::collection::vec(prop::collection::btree_map(0..12_u8, rating, 0..9), entities)
}

fn options() -> impl Strategy<Value = Options> {
    let min_similarity = prop::option::of(prop_oneof![-1.0..1.0, Just(0.0), Just(1.0), Just(-1.0), Just(0.5)]);
    (min_similarity, prop::option::of(0..12_usize), prop_oneof![0..30_usize, Just(100_000)])
        .prop_map(|(min_similarity, top_k, limit)| Options { min_similarity, top_k, limit })
}

/// Ids are shuffled, so that places, ranks and ids all differ.
fn shuffled<T: Clone>(rows: &[T]) -> Vec<(usize, T)> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|id| (id * 7919) % 104_729 % (rows.len() + 1));
    order.into_iter().map(|id| (id, rows[id].clone())).collect()
}

proptest! {
    #[test]
    fn dense_similarities_equal_the_definitions(rows in dense_rows(1..30)) {
        let entities = Entities::dense(shuffled(&rows)).unwrap();
        for algorithm in ALL {
            check_all(&entities, algorithm, &table(&rows, |a, b| naive_dense(algorithm, a, b)));
        }
    }

    #[test]
    fn sparse_similarities_equal_the_definitions(rows in sparse_rows(1..30)) {
        let entities = Entities::sparse(shuffled(&rows)).unwrap();
        for algorithm in ALL {
            check_all(&entities, algorithm, &table(&rows, |a, b| naive_sparse(algorithm, a, b)));
        }
    }

    #[test]
    fn options_select_from_all_pairs_as_documented(
        dense in dense_rows(1..40),
        sparse in sparse_rows(1..40),
        options in options(),
    ) {
        for entities in [Entities::dense(shuffled(&dense)).unwrap(), Entities::sparse(shuffled(&sparse)).unwrap()] {
            for algorithm in ALL {
                let (all, _) = found(&entities, algorithm, &Options::default());
                prop_assert_eq!(found(&entities, algorithm, &options), selected(&all, &options), "{:?}", algorithm);
            }
        }
    }
}

/// 700 rows in 3 × 3 tiles, values spread enough that ties are rare and few enough that some occur.
fn many() -> Vec<Vec<f64>> {
    let value = |row: u32, column: u32| f64::from((row * 31 + column).wrapping_mul(2_654_435_761) >> 27);
    (0..700).map(|row| (0..20).map(|column| value(row, column)).collect()).collect()
}

fn many_rated() -> Vec<Ratings> {
    let rated = |row: &Vec<f64>| {
        row.iter().enumerate().filter(|(_, value)| **value > 20.0).map(|(item, value)| (item as u8, *value)).collect()
    };
    many().iter().map(rated).collect()
}

#[test]
fn tiles_blocks_and_compactions_leave_no_seam() {
    let choices = [(None, None, 5000), (None, Some(3), 100_000), (Some(0.3), Some(7), 900), (None, Some(650), 1000)];
    for entities in [Entities::dense(shuffled(&many())).unwrap(), Entities::sparse(shuffled(&many_rated())).unwrap()] {
        for algorithm in ALL {
            let everything = Options { limit: usize::MAX, ..Options::default() };
            let (all, _) = found(&entities, algorithm, &everything);
            for (min_similarity, top_k, limit) in choices {
                let options = Options { min_similarity, top_k, limit };
                let (expected, actual) = (selected(&all, &options), found(&entities, algorithm, &options));
                assert!(actual == expected, "{algorithm:?} {options:?}");
            }
        }
    }
}

#[test]
fn large_blocks_equal_the_definitions_too() {
    for algorithm in ALL {
        let (rows, rated) = (many(), many_rated());
        let everything = Options { limit: usize::MAX, ..Options::default() };
        let dense = found(&Entities::dense(shuffled(&rows)).unwrap(), algorithm, &everything).0;
        let sparse = found(&Entities::sparse(shuffled(&rated)).unwrap(), algorithm, &everything).0;
        for (similarity, first, second) in dense {
            assert!((similarity - naive_dense(algorithm, &rows[first], &rows[second]).unwrap()).abs() < 1e-9);
        }
        for (similarity, first, second) in sparse {
            assert!((similarity - naive_sparse(algorithm, &rated[first], &rated[second]).unwrap()).abs() < 1e-9);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let entities = Entities::dense(shuffled(&many())).unwrap();
    let rated = Entities::sparse(shuffled(&many_rated())).unwrap();
    let options = Options { top_k: Some(9), limit: 2000, ..Options::default() };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            ALL.map(|algorithm| (found(&entities, algorithm, &options), found(&rated, algorithm, &options)))
        })
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn hostile_magnitudes_keep_their_correlation() {
    for scale in [1e-300, 1e-150, 1.0, 1e150, 1e300] {
        let rows = [(0, [1.0, 2.0, 4.0]), (1, [3.0, 5.0, 9.0]), (2, [-1.0, -2.0, -4.0])];
        let rows = rows.map(|(id, row)| (id, row.map(|value| value * scale)));
        let rated = rows.map(|(id, row)| (id, row.into_iter().enumerate().collect::<Vec<_>>()));
        for entities in [Entities::dense(rows).unwrap(), Entities::sparse(rated).unwrap()] {
            let (pairs, _) = found(&entities, Algorithm::Pearson, &Options::default());
            let expected = [(1.0, 0, 1), (-1.0, 0, 2), (-1.0, 1, 2)];
            for (pair, expected) in pairs.iter().zip(expected) {
                assert!((pair.0 - expected.0).abs() < 1e-12, "{pair:?} at {scale}");
            }
            let euclidean = found(&entities, Algorithm::Euclidean, &Options::default()).0;
            assert!(euclidean.iter().all(|pair| (0.0..=1.0).contains(&pair.0)), "{euclidean:?} at {scale}");
        }
    }
}

#[test]
fn near_rows_far_from_the_origin_keep_their_distance() {
    let rows = [(0, [1e9, 1e9 + 1.0]), (1, [1e9, 1e9 + 1.5]), (2, [-1e9, 0.0])];
    let (pairs, _) = found(&Entities::dense(rows).unwrap(), Algorithm::Euclidean, &Options::default());
    assert!((pairs[0].0 - 1.0 / 1.5).abs() < 1e-12, "{pairs:?}");
}

#[test]
fn entities_without_a_similarity_form_no_pair() {
    let rows = [(0, [0.1; 7]), (1, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), (2, [0.0; 7])];
    let entities = Entities::dense(rows).unwrap();
    let count = |algorithm| found(&entities, algorithm, &Options::default()).0.len();
    assert_eq!(ALL.map(count), [0, 1, 1, 3]);
    let one = Entities::dense([("only", [1.0, 2.0])]).unwrap();
    let nothing = Similarities { pairs: Vec::new(), truncated: false };
    assert_eq!(similarities(&one, Algorithm::Cosine, &Options::default(), &Control::new()), Ok(nothing));
}

#[test]
fn malformed_entities_are_refused_with_their_place() {
    let dense = |rows: Vec<(&'static str, Vec<f64>)>| Entities::dense(rows).unwrap_err();
    assert_eq!(dense(vec![]), Error::Empty { what: "entities" });
    assert_eq!(dense(vec![("a", vec![])]), Error::Empty { what: "columns" });
    let ragged = dense(vec![("a", vec![1.0]), ("b", vec![1.0, 2.0])]);
    assert_eq!(ragged, Error::Ragged { row: 1, actual: 2, expected: 1 });
    let twice = dense(vec![("b", vec![1.0]), ("a", vec![2.0]), ("b", vec![3.0])]);
    assert_eq!(twice, Error::DuplicateId { first: 0, second: 2 });
    let rated = Entities::sparse([(1, vec![("x", 1.0), ("y", 1.0)]), (2, vec![("y", 1.0), ("x", 2.0), ("y", 3.0)])]);
    assert_eq!(rated.unwrap_err(), Error::DuplicateEntry { row: 1, entry: 2 });
    let infinite = Entities::sparse([(1, vec![("x", f64::INFINITY)])]);
    assert_eq!(infinite.unwrap_err(), Error::NotFinite { row: 0, column: 0 });
    let matrix = SparseMatrix::from_rows(1, &[vec![]]).unwrap();
    let length = Entities::from_sparse(vec![1, 2], matrix).unwrap_err();
    assert_eq!(length, Error::Length { what: "ids", actual: 2, expected: 1 });
}

#[test]
fn a_minimum_that_is_not_a_number_is_refused() {
    let entities = Entities::dense([(0, [1.0, 2.0])]).unwrap();
    let options = Options { min_similarity: Some(f64::NAN), ..Options::default() };
    let refused = similarities(&entities, Algorithm::Cosine, &options, &Control::new());
    assert_eq!(refused, Err(Error::MinSimilarityNan));
}

#[test]
fn a_cancelled_comparison_gives_no_pairs() {
    let control = Control::new();
    control.cancel();
    for entities in [Entities::dense(shuffled(&many())).unwrap(), Entities::sparse(shuffled(&many_rated())).unwrap()] {
        for algorithm in ALL {
            assert_eq!(similarities(&entities, algorithm, &Options::default(), &control), Err(Error::Cancelled));
        }
    }
}

#[test]
fn progress_reaches_its_end_and_a_cancel_from_another_thread_stops_short_of_it() {
    let entities = Entities::dense(shuffled(&many())).unwrap();
    let control = Control::new();
    assert_eq!(control.progress().fraction(), 0.0);
    similarities(&entities, Algorithm::Pearson, &Options::default(), &control).unwrap();
    assert_eq!((control.progress().done, control.progress().total), (6, 6));

    let pattern = many();
    let rows: Vec<_> = (0..6000).map(|id| (id, pattern[id % 700].clone())).collect();
    let entities = Entities::dense(rows).unwrap();
    let control = Control::new();
    let stopped = std::thread::scope(|scope| {
        let work = scope.spawn(|| similarities(&entities, Algorithm::Euclidean, &Options::default(), &control));
        while control.progress().done < 3 && !work.is_finished() {
            std::thread::yield_now();
        }
        control.cancel();
        work.join().unwrap()
    });
    assert_eq!(stopped, Err(Error::Cancelled));
    assert!(control.progress().fraction() < 1.0);
}
