//! Times an operation, looks at the last ten seconds, prints what a scrape would see.
//!
//! `cargo run -p tidegate-metrics --example timing`

use std::time::{Duration, Instant};

use tidegate_metrics::{Registry, Window};

fn main() {
    let registry = Registry::new();
    let timer = registry.timer_with("parse_seconds", "Time to parse one line.", &[("source", "example")]);
    let mut recently = Window::new(&timer, Duration::from_secs(10), Instant::now());

    for line in ["1", "2", "three", "4"].iter().cycle().take(10_000) {
        let _ = timer.time_sync(|| line.parse::<u32>());
    }

    let recent = recently.read(Instant::now());
    let (p50, p99) = (recent.distribution.quantile(0.5), recent.distribution.quantile(0.99));
    println!("recently: {:.0} per second, p50 {p50:?}, p99 {p99:?}", recent.rate());
    for operation in registry.operations() {
        println!("{}: {} calls, {} failed, avg {:?}", operation.name, operation.count, operation.failed, operation.avg);
    }
    print!("{}", registry.render_prometheus());
}
