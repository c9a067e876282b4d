//! What is recorded is what is read: against hdrhistogram, against a sorted list, and from many threads at once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_metrics::{Counter, HdrHistogram, Registry, Snapshot, Timer};

fn timer() -> Timer {
    Registry::new().timer("model_seconds", "Model.")
}

fn record_all(nanos: &[u64]) -> Timer {
    let timer = timer();
    nanos.iter().for_each(|nanos| timer.record(Duration::from_nanos(*nanos)));
    timer
}

/// Nanoseconds of every magnitude the buckets cover.
fn any_nanos() -> impl Strategy<Value = u64> {
    (0u32..50, any::<u64>()).prop_map(|(bits, low)| (1 << bits) | (low & ((1 << bits) - 1)))
}

fn nearest_rank(sorted: &[u64], quantile: f64) -> u64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn assert_within_one_percent(answer: Duration, truth: u64) {
    let (answer, truth) = (answer.as_nanos() as f64, truth as f64);
    assert!((answer - truth).abs() <= truth * 0.01, "{answer} is not within 1 % of {truth}");
}

proptest! {
    #[test]
    fn quantiles_are_within_one_percent_of_the_sorted_list(
        mut nanos in prop::collection::vec(any_nanos(), 1..400),
        quantile in 0.0..=1.0f64,
    ) {
        let snapshot = record_all(&nanos).snapshot();
        nanos.sort_unstable();
        for quantile in [quantile, 0.5, 0.9, 0.95, 0.99] {
            assert_within_one_percent(snapshot.quantile(quantile), nearest_rank(&nanos, quantile));
        }
        prop_assert_eq!(snapshot.quantile(0.0), Duration::from_nanos(nanos[0]));
        prop_assert_eq!(snapshot.quantile(1.0), Duration::from_nanos(nanos[nanos.len() - 1]));
    }

    #[test]
    fn count_total_and_extremes_are_exact(nanos in prop::collection::vec(any_nanos(), 1..400)) {
        let stats = record_all(&nanos).stats();
        let total: u128 = nanos.iter().map(|nanos| u128::from(*nanos)).sum();
        prop_assert_eq!(stats.count, nanos.len() as u64);
        prop_assert_eq!(stats.total.as_nanos(), total);
        prop_assert_eq!(Some(stats.min.as_nanos() as u64), nanos.iter().min().copied());
        prop_assert_eq!(Some(stats.max.as_nanos() as u64), nanos.iter().max().copied());
        prop_assert_eq!(stats.avg.as_nanos(), total / nanos.len() as u128);
    }

    #[test]
    fn the_export_agrees_with_an_hdrhistogram_fed_directly(nanos in prop::collection::vec(any_nanos(), 1..400)) {
        let ours = record_all(&nanos).snapshot().to_hdr();
        let mut oracle = HdrHistogram::new(3).expect("three digits");
        nanos.iter().for_each(|nanos| oracle.record(*nanos).expect("resizes"));
        prop_assert_eq!(ours.len(), oracle.len());
        prop_assert_eq!((ours.min(), ours.max()), (oracle.min(), oracle.max()));
        for quantile in [0.1, 0.5, 0.9, 0.95, 0.99] {
            let (ours, oracle) = (ours.value_at_quantile(quantile), oracle.value_at_quantile(quantile));
            prop_assert!(ours.abs_diff(oracle) as f64 <= 1.0 + oracle as f64 * 0.01, "{} for {}", ours, oracle);
        }
    }

    #[test]
    fn the_difference_of_two_readings_is_what_was_recorded_between(
        before in prop::collection::vec(any_nanos(), 0..200),
        after in prop::collection::vec(any_nanos(), 0..200),
    ) {
        let timer = record_all(&before);
        let earlier = timer.snapshot();
        after.iter().for_each(|nanos| timer.record(Duration::from_nanos(*nanos)));
        let between = timer.snapshot().since(&earlier);
        let alone = record_all(&after).snapshot();
        prop_assert_eq!((between.count(), between.total()), (alone.count(), alone.total()));
        if let (Some(min), Some(max)) = (after.iter().min(), after.iter().max()) {
            let (low, high) = (between.min().as_nanos() as f64, between.max().as_nanos() as f64);
            prop_assert!(low <= *min as f64 && *min as f64 <= low * 65.0 / 64.0 + 1.0);
            prop_assert!(high >= *max as f64 && high <= *max as f64 * 65.0 / 64.0 + 1.0);
        } else {
            prop_assert_eq!(between, Snapshot::default());
        }
    }

    #[test]
    fn merging_two_readings_equals_recording_into_one(
        left in prop::collection::vec(any_nanos(), 0..200),
        right in prop::collection::vec(any_nanos(), 0..200),
    ) {
        let both = [left.clone(), right.clone()].concat();
        prop_assert_eq!(record_all(&left).snapshot().merge(&record_all(&right).snapshot()), record_all(&both).snapshot());
    }
}

#[test]
fn before_the_first_recording_everything_is_zero() {
    let stats = timer().stats();
    assert_eq!((stats.count, stats.failed, stats.cancelled), (0, 0, 0));
    for figure in [stats.total, stats.min, stats.max, stats.avg, stats.p50, stats.p90, stats.p95, stats.p99] {
        assert_eq!(figure, Duration::ZERO);
    }
}

#[test]
fn a_duration_beyond_the_range_is_recorded_as_the_longest() {
    let timer = timer();
    timer.record(Duration::MAX);
    timer.record(Duration::ZERO);
    let stats = timer.stats();
    assert_eq!((stats.count, stats.min), (2, Duration::ZERO));
    assert_eq!(stats.max, Duration::from_nanos((1 << 50) - 1));
}

/// More threads at once than there are private stripes, so that some share.
const THREADS: u64 = 48;
const PER_THREAD: u64 = 20_000;

#[test]
fn nothing_is_lost_when_many_threads_record_at_once() {
    let registry = Registry::new();
    let (timer, counter, gauge) = (registry.timer("t", ""), registry.counter("c", ""), registry.gauge("g", ""));
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (timer, counter, gauge, barrier) = (&timer, &counter, &gauge, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for i in 0..PER_THREAD {
                    timer.record(Duration::from_nanos(1 + thread * PER_THREAD + i));
                    counter.add(2);
                    gauge.add(1.0);
                }
            });
        }
    });
    let n = THREADS * PER_THREAD;
    let stats = timer.stats();
    assert_eq!(stats.count, n);
    assert_eq!(stats.total.as_nanos(), u128::from(n) * u128::from(n + 1) / 2);
    assert_eq!((stats.min, stats.max), (Duration::from_nanos(1), Duration::from_nanos(n)));
    assert_eq!((counter.get(), gauge.get()), (2 * n, n as f64));
}

#[test]
fn nothing_is_lost_when_threads_come_and_go() {
    let counter = Registry::new().counter("c", "");
    for _ in 0..50 {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| counter.inc()));
            }
        });
    }
    assert_eq!(counter.get(), 50 * 8 * 100);
}

/// Counts in its destructor, when the thread is already giving its stripe back.
struct CountsAtEnd(Counter);

impl Drop for CountsAtEnd {
    fn drop(&mut self) {
        (0..1000).for_each(|_| self.0.inc());
    }
}

#[test]
fn nothing_is_lost_that_is_recorded_while_a_thread_ends() {
    thread_local!(static AT_END: std::cell::RefCell<Vec<CountsAtEnd>> = const { std::cell::RefCell::new(Vec::new()) });
    let counter = Registry::new().counter("c", "");
    for _ in 0..20 {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let counter = counter.clone();
                thread::spawn(move || {
                    // Registered first, so it is destroyed after what the counter registers.
                    AT_END.with_borrow_mut(|at_end| at_end.push(CountsAtEnd(counter.clone())));
                    counter.inc();
                })
            })
            .collect();
        // Joining waits for the destructors too.
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
    assert_eq!(counter.get(), 20 * 8 * 1001);
}

#[test]
fn readings_made_meanwhile_never_go_back() {
    let timer = timer();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = timer.snapshot();
            while !done.load(Relaxed) {
                let next = timer.snapshot();
                assert!(next.count() >= last.count() && next.total() >= last.total());
                assert_eq!(next.since(&last).count(), next.count() - last.count());
                last = next;
            }
        });
        let writers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..200_000).for_each(|nanos| timer.record(Duration::from_nanos(nanos)))))
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        done.store(true, Relaxed);
        reader.join().expect("no reading went back");
    });
    assert_eq!(timer.stats().count, 600_000);
}
