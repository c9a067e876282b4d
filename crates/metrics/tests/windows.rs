//! Windows show what is recent, and say how far they look.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate_metrics::{Registry, Timer, Window};

const SPAN: Duration = Duration::from_secs(10);

fn timer() -> Timer {
    Registry::new().timer("window_seconds", "Windows.")
}

#[test]
fn what_was_recorded_before_the_window_opened_is_not_in_it() {
    let timer = timer();
    timer.record(Duration::from_secs(5));
    let opened = Instant::now();
    let mut window = Window::new(&timer, SPAN, opened);
    timer.record(Duration::from_millis(3));
    let recent = window.read(opened + Duration::from_secs(1));
    assert_eq!((recent.distribution.count(), recent.covered), (1, Duration::from_secs(1)));
    assert_eq!(recent.distribution.total(), Duration::from_millis(3));
    assert!(recent.distribution.max() < Duration::from_millis(4), "the old maximum is forgotten");
}

#[test]
fn what_is_older_than_the_window_leaves_it() {
    let timer = timer();
    let opened = Instant::now();
    let mut window = Window::new(&timer, SPAN, opened);
    timer.record(Duration::from_secs(1));
    for second in 1..=10 {
        assert_eq!(window.read(opened + Duration::from_secs(second)).distribution.count(), 1, "after {second} s");
    }
    for second in 11..=15 {
        window.read(opened + Duration::from_secs(second));
    }
    let recent = window.read(opened + Duration::from_secs(16));
    assert_eq!(recent.distribution.count(), 0);
    assert!(recent.covered >= SPAN && recent.covered <= SPAN * 3 / 2);
}

#[test]
fn a_window_nobody_read_for_long_tells_that_it_looks_back_further() {
    let timer = timer();
    let opened = Instant::now();
    let mut window = Window::new(&timer, SPAN, opened);
    timer.record(Duration::from_secs(1));
    let recent = window.read(opened + Duration::from_secs(3600));
    assert_eq!((recent.distribution.count(), recent.covered), (1, Duration::from_secs(3600)));
    let recent = window.read(opened + Duration::from_secs(3610));
    assert_eq!((recent.distribution.count(), recent.covered), (0, SPAN));
}

#[test]
fn failures_and_cancellations_are_windowed_too() {
    let timer = timer();
    timer.start().fail();
    let opened = Instant::now();
    let mut window = Window::new(&timer, SPAN, opened);
    timer.start().fail();
    drop(timer.start());
    let recent = window.read(opened + Duration::from_secs(2));
    assert_eq!((recent.distribution.failed(), recent.distribution.cancelled(), recent.rate()), (1, 1, 1.0));
}

#[test]
fn a_window_keeps_its_size_however_long_it_is_read() {
    let timer = timer();
    let opened = Instant::now();
    let mut window = Window::new(&timer, SPAN, opened);
    let mut sizes = (1..1000).map(|second| {
        (0..100).for_each(|i| timer.record(Duration::from_micros(second * i)));
        window.read(opened + Duration::from_secs(second));
        window.memory_bytes()
    });
    assert!(sizes.all(|size| size < 6000));
}

proptest! {
    /// Against the naive window: every recording with its instant, filtered by what the window says it covers.
    #[test]
    fn a_window_holds_exactly_what_was_recorded_in_the_time_it_says_it_covers(
        steps in prop::collection::vec((1u64..6000, prop::collection::vec(1u64..1_000_000_000, 0..5)), 1..60),
    ) {
        let timer = timer();
        let opened = Instant::now();
        let mut window = Window::new(&timer, SPAN, opened);
        let mut recorded = Vec::new();
        let mut age = Duration::ZERO;
        let mut longest_pause = Duration::ZERO;
        for (pause, nanos) in steps {
            let pause = Duration::from_millis(pause);
            let middle = age + pause / 2;
            age += pause;
            longest_pause = longest_pause.max(pause);
            for nanos in nanos {
                timer.record(Duration::from_nanos(nanos));
                recorded.push((middle, nanos));
            }
            let recent = window.read(opened + age);
            prop_assert!(recent.covered >= SPAN.min(age));
            prop_assert!(recent.covered <= SPAN * 3 / 2 + longest_pause);
            let from = age - recent.covered;
            let inside: Vec<_> = recorded.iter().filter(|(at, _)| *at > from).map(|(_, nanos)| *nanos).collect();
            prop_assert_eq!(recent.distribution.count(), inside.len() as u64);
            prop_assert_eq!(recent.distribution.total(), Duration::from_nanos(inside.iter().sum()));
        }
    }
}
