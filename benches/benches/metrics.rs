//! What measuring costs: a recording, a scrape, exact percentiles, bytes per series. Compared with prometheus-client
//! and with the plainest atomic log-linear array, in the same run.
//!
//! Prints `ROW` lines for machines on stdout, sentences on stderr. Each figure is the best of several rounds, since a
//! neighbour on a shared core can only make a round slower.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter as PeerCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram as PeerHistogram;
use prometheus_client::registry::Registry as PeerRegistry;
use tidegate_metrics::{Config, PercentileConfig, Registry, Summary, Timer, Window, percentiles};

/// The bounds our own text has, so that both sides render the same number of lines.
const BOUNDS: [f64; 18] =
    [1e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

const ROUNDS: usize = 7;
const RECORDINGS: usize = 2_000_000;
const FAMILIES: [&str; 10] = [
    "a_seconds",
    "b_seconds",
    "c_seconds",
    "d_seconds",
    "e_seconds",
    "f_seconds",
    "g_seconds",
    "h_seconds",
    "i_seconds",
    "j_seconds",
];
const SERIES_PER_FAMILY: usize = 1000;
const SAMPLES_PER_SERIES: usize = 200;

fn main() {
    record();
    count();
    percentiles_of_a_million();
    memory();
    scrape();
}

fn row(name: &str, value: f64, unit: &str, baseline: &str, baseline_value: f64) {
    let ratio = value / baseline_value;
    println!("ROW\tmetrics\t{name}\t{value:.2}\t{unit}\t{baseline}\t{baseline_value:.2}\t{ratio:.3}");
    eprintln!("{name}: {value:.2} {unit} ({baseline}: {baseline_value:.2}, ratio {ratio:.2})");
}

/// Durations as services have them: log-normal around 1 ms, three powers of ten wide.
fn latencies(count: usize) -> Vec<Duration> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let latency = |random: &mut Random| {
        // The sum of twelve uniform numbers is normal enough.
        let normal = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        Duration::from_secs_f64(1e-3 * normal.exp())
    };
    (0..count).map(|_| latency(&mut random)).collect()
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The plainest shared histogram: one array of atomics, 64 buckets per power of two, nothing else kept.
struct PlainArray(Box<[AtomicU64]>);

impl PlainArray {
    fn new() -> Self {
        Self((0..58 * 64 + 64).map(|_| AtomicU64::new(0)).collect())
    }

    fn record(&self, d: Duration) {
        let value = d.as_nanos() as u64;
        let shift = 57 - u64::from((value | 64).leading_zeros());
        self.0[((shift << 6) + (value >> shift)) as usize].fetch_add(1, Relaxed);
    }
}

/// Nanoseconds per call when `threads` threads call `work` with every latency in turn; best round.
fn nanos_per_call<R>(threads: usize, latencies: &[Duration], work: impl Fn(Duration) -> R + Sync) -> f64 {
    let round = || {
        let barrier = Barrier::new(threads);
        let one = || {
            barrier.wait();
            let started = Instant::now();
            for _ in 0..RECORDINGS / latencies.len() {
                for latency in latencies {
                    black_box(work(black_box(*latency)));
                }
            }
            started.elapsed().as_nanos() as f64 / RECORDINGS as f64
        };
        thread::scope(|scope| {
            let runs: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            runs.into_iter().map(|run| run.join().unwrap_or(f64::NAN)).fold(0.0, f64::max)
        })
    };
    best(round)
}

fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn record() {
    let latencies = latencies(4000);
    for threads in [1, 2] {
        let timer = Registry::new().timer("record_seconds", "Recordings.");
        let ours = nanos_per_call(threads, &latencies, |d| timer.record(d));
        let peer = PeerHistogram::new(BOUNDS);
        let peer = nanos_per_call(threads, &latencies, |d| peer.observe(d.as_secs_f64()));
        let array = PlainArray::new();
        let plain = nanos_per_call(threads, &latencies, |d| array.record(d));
        row(&format!("record, {threads} thread(s), one series"), ours, "ns", "prometheus-client", peer);
        row(&format!("record, {threads} thread(s), one series"), ours, "ns", "plain atomic array", plain);
    }
    let timer = Registry::new().timer("guard_seconds", "Guards.");
    let guard = nanos_per_call(1, &latencies, |_| timer.start().succeed());
    let clock = nanos_per_call(1, &latencies, |_| Instant::now().elapsed());
    row("start and succeed", guard, "ns", "reading the clock twice", clock);
}

fn count() {
    let latencies = latencies(4000);
    for threads in [1, 2] {
        let counter = Registry::new().counter("events_total", "Events.");
        let ours = nanos_per_call(threads, &latencies, |_| counter.inc());
        let peer: PeerCounter = PeerCounter::default();
        let peer = nanos_per_call(threads, &latencies, |_| peer.inc());
        row(&format!("count, {threads} thread(s), one series"), ours, "ns", "prometheus-client", peer);
    }
}

fn percentiles_of_a_million() {
    let samples: Vec<f64> = latencies(1_000_000).iter().map(Duration::as_secs_f64).collect();
    let timed = |work: &dyn Fn(&mut [f64]) -> Option<Summary>| {
        best(|| {
            let mut copy = samples.clone();
            let started = Instant::now();
            black_box(work(black_box(&mut copy)));
            started.elapsed().as_secs_f64() * 1e3
        })
    };
    let sort = timed(&|samples| {
        samples.sort_unstable_by(f64::total_cmp);
        None
    });
    let exact = timed(&|samples| percentiles(samples, &PercentileConfig::exact()));
    let approximate = timed(&|samples| percentiles(samples, &PercentileConfig::default()));
    row("p50 p90 p95 p99 of 1 M, exact", exact, "ms", "full sort", sort);
    row("p50 p90 p95 p99 of 1 M, approximate", approximate, "ms", "full sort", sort);
}

/// One series that two threads have recorded a million latencies each to, with windows of 10 s, 1 min and 5 min.
fn memory() {
    let timer = Registry::new().timer("memory_seconds", "Memory.");
    let opened = Instant::now();
    let spans = [10, 60, 300].map(Duration::from_secs);
    let mut windows = spans.map(|span| Window::new(&timer, span, opened));
    let latencies = latencies(1_000_000);
    // 400 seconds at 2 × 2500 recordings, read every 2.5 s.
    for (step, part) in latencies.chunks(latencies.len() / 160).enumerate() {
        let record = || part.iter().for_each(|latency| timer.record(*latency));
        thread::scope(|scope| {
            scope.spawn(record);
        });
        record();
        let now = opened + Duration::from_millis(2500) * (step as u32 + 1);
        windows.iter_mut().for_each(|window| drop(window.read(now)));
    }
    let series = timer.memory_bytes() as f64 / 1024.0;
    let all = series + windows.iter().map(Window::memory_bytes).sum::<usize>() as f64 / 1024.0;
    let hdr = timer.snapshot().to_hdr();
    let counters = hdr.distinct_values() as f64 * 8.0 / 1024.0;
    row("series with two recording threads", series, "KB", "hdrhistogram of the same range", counters);
    row("series with three windows", all, "KB", "hdrhistogram of the same range", counters);
}

fn scrape() {
    let before = resident_kb();
    let registry = Registry::with_config(Config { series_max: SERIES_PER_FAMILY });
    fill(|family, series| {
        let timer = registry.timer_with(FAMILIES[family], "Help.", &[("queue", series)]);
        move |d| Timer::record(&timer, d)
    });
    let between = resident_kb();
    let mut peer = PeerRegistry::default();
    let families = FAMILIES.map(|name| {
        let family =
            Family::<Vec<(String, String)>, PeerHistogram>::new_with_constructor(|| PeerHistogram::new(BOUNDS));
        peer.register(name, "Help", family.clone());
        family
    });
    fill(|family, series| {
        let labels = vec![("queue".to_owned(), series.to_owned())];
        let histogram = families[family].get_or_create_owned(&labels);
        move |d: Duration| histogram.observe(d.as_secs_f64())
    });
    let after = resident_kb();

    let milliseconds = |work: &mut dyn FnMut() -> usize| {
        best(|| {
            let started = Instant::now();
            black_box(work());
            started.elapsed().as_secs_f64() * 1e3
        })
    };
    let ours = milliseconds(&mut || registry.render_prometheus().len());
    let mut kept = String::new();
    let ours_kept = milliseconds(&mut || {
        kept.clear();
        registry.render_prometheus_into(&mut kept);
        kept.len()
    });
    let theirs = milliseconds(&mut || {
        let mut text = String::new();
        let _ = encode(&mut text, &peer);
        text.len()
    });
    let operations = milliseconds(&mut || registry.operations().len());
    row("scrape 10 k histogram series", ours, "ms", "prometheus-client", theirs);
    row("scrape 10 k histogram series, buffer kept", ours_kept, "ms", "prometheus-client", theirs);
    row("operations of 10 k timers", operations, "ms", "prometheus-client scrape", theirs);
    let per_series = 1.0 / (FAMILIES.len() * SERIES_PER_FAMILY) as f64;
    let (ours, theirs) = ((between - before) * per_series, (after - between) * per_series);
    row("resident memory per histogram series, one thread, 200 samples", ours, "KB", "prometheus-client", theirs);
}

/// Makes 10 k series and gives each the same few latencies.
fn fill<R: Fn(Duration)>(make: impl Fn(usize, &str) -> R) {
    let latencies = latencies(SAMPLES_PER_SERIES);
    for family in 0..FAMILIES.len() {
        for series in 0..SERIES_PER_FAMILY {
            let record = make(family, &format!("queue-{series}"));
            latencies.iter().for_each(|latency| record(*latency));
        }
    }
}

/// Resident memory of this process as the kernel tells it; 0 where it does not.
fn resident_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0.0)
}
