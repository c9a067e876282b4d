//! `compute` against bare faer and plain loops, in one process and taking turns: medians, on a pool of two threads.
//!
//! `cargo bench -p tidegate-benches --bench compute`: about half a minute; after `--` name sections
//! (product, pearson, sparse, power, cancel) to run only those. Lines that begin with `ROW` are for programs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tidegate_benches::compute as load;
use tidegate_compute::matrix::{self, Matrix, SparseMatrix};
use tidegate_compute::power::{NormalizedPowerStream, WINDOW, normalized_power};
use tidegate_compute::similarity::{Algorithm, Entities, Options, similarities};
use tidegate_compute::{Control, Error};

const THREADS: usize = 2;

type Section = fn(&ThreadPool);

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let pool = pool(THREADS);
    let sections: [(&str, Section); 5] =
        [("product", products), ("pearson", pearson), ("sparse", sparse), ("power", power), ("cancel", cancel)];
    for (name, section) in sections {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            section(&pool);
        }
    }
}

fn products(pool: &ThreadPool) {
    let one = self::pool(1);
    for n in [64, 256, 1024] {
        product(n, &one, "1 thread", &[("faer Par::Seq", Par::Seq)]);
        product(n, pool, "2 threads", &[("faer Par::Seq", Par::Seq), ("faer Par::rayon", Par::rayon(THREADS))]);
        product_naive(n, pool);
    }
    sparse_product(pool);
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
}

fn row(name: &str, value: f64, unit: &str, baseline: &str, baseline_value: f64) {
    let ratio = value / baseline_value;
    println!("ROW\tcompute\t{name}\t{value:.3}\t{unit}\t{baseline}\t{baseline_value:.3}\t{ratio:.3}");
    eprintln!("{name:<40} {value:>10.3} {unit:<8} {baseline:<24} {baseline_value:>10.3}  ratio {ratio:.3}");
}

/// Seconds per call of each contestant: medians of `rounds` rounds, one call of each (after one to warm up) in turn.
fn medians<const N: usize>(rounds: usize, mut contestants: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut seconds = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for (seconds, run) in seconds.iter_mut().zip(&mut contestants) {
            let start = Instant::now();
            run();
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    seconds.map(median)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn product(n: usize, pool: &ThreadPool, threads: &str, peers: &[(&str, Par)]) {
    let (left, right) = (load::uniform(n * n, 1), load::uniform(n * n, 2));
    let [a, b] = [&left, &right].map(|values| Matrix::from_flat(n, n, values.clone()).expect("finite"));
    let [x, y] = [&left, &right].map(|values| MatRef::from_row_major_slice(values, n, n).to_owned());
    let repeat = (4 << 20) / (n * n * n) + 1;
    let gigaflops = (2 * n * n * n * repeat) as f64 / 1e9;
    for (name, par) in peers {
        let [ours, theirs] = pool.install(|| {
            let mut ours = || {
                for _ in 0..repeat {
                    black_box(matrix::multiply(&a, &b, matrix::ELEMENTS_MAX, &Control::new()).expect("fits"));
                }
            };
            let mut theirs = || {
                for _ in 0..repeat {
                    let mut out = Mat::<f64>::zeros(n, n);
                    matmul(&mut out, Accum::Replace, &x, &y, 1.0, *par);
                    black_box(out);
                }
            };
            medians(21, [&mut ours, &mut theirs])
        });
        row(&format!("matrix product {n}, {threads}"), gigaflops / ours, "GFLOP/s", name, gigaflops / theirs);
    }
}

fn product_naive(n: usize, pool: &ThreadPool) {
    let (left, right) = (load::uniform(n * n, 1), load::uniform(n * n, 2));
    let [a, b] = [&left, &right].map(|values| Matrix::from_flat(n, n, values.clone()).expect("finite"));
    let gigaflops = (2 * n * n * n) as f64 / 1e9;
    let mut ours = || _ = black_box(matrix::multiply(&a, &b, matrix::ELEMENTS_MAX, &Control::new()));
    let mut naive = || _ = black_box(load::naive_product(&left, &right, n));
    let rounds = if n > 512 { 1 } else { 5 };
    let [ours, naive] = pool.install(|| medians(rounds, [&mut ours, &mut naive]));
    row(&format!("matrix product {n}, 2 threads"), gigaflops / ours, "GFLOP/s", "nested loops", gigaflops / naive);
}

fn pearson(pool: &ThreadPool) {
    let (rows, columns) = (2000, 500);
    let values = load::uniform(rows * columns, 3);
    let matrix = Matrix::from_flat(rows, columns, values.clone()).expect("finite");
    let entities = Entities::from_matrix((0..rows).collect(), matrix).expect("distinct");
    let run = |options: Options| _ = black_box(similarities(&entities, Algorithm::Pearson, &options, &Control::new()));
    let mut best = || run(Options::default());
    let mut all = || run(Options { limit: usize::MAX, ..Options::default() });
    let mut top = || run(Options { top_k: Some(20), ..Options::default() });
    let mut gram = || {
        let x = MatRef::from_row_major_slice(&values, rows, columns);
        let mut out = Mat::<f64>::zeros(rows, rows);
        matmul(&mut out, Accum::Replace, x, x.transpose(), 1.0, Par::rayon(THREADS));
        black_box(out);
    };
    let mut naive = || _ = black_box(load::naive_pearson(&values, columns));
    let ([best, all, top, gram], [naive]) =
        pool.install(|| (medians(15, [&mut best, &mut all, &mut top, &mut gram]), medians(3, [&mut naive])));
    let milliseconds =
        |name: &str, value: f64, baseline: &str, by: f64| row(name, value * 1e3, "ms", baseline, by * 1e3);
    milliseconds("pearson 2000 × 500, best 100 000", best, "pair loop", naive);
    milliseconds("pearson 2000 × 500, best 100 000", best, "faer XXᵀ alone", gram);
    milliseconds("pearson 2000 × 500, top 20", top, "faer XXᵀ alone", gram);
    milliseconds("pearson 2000 × 500, all, sorted", all, "pair loop", naive);
}

fn sparse(pool: &ThreadPool) {
    let rows = load::ratings(20_000, 2_000, 20);
    let matrix = SparseMatrix::from_rows(2_000, &rows).expect("well formed");
    let entities = Entities::from_sparse((0..rows.len()).collect(), matrix).expect("distinct");
    let options = Options { top_k: Some(20), limit: usize::MAX, ..Options::default() };
    let [cosine, pearson] = pool.install(|| {
        let run = |algorithm| _ = black_box(similarities(&entities, algorithm, &options, &Control::new()));
        medians(5, [&mut || run(Algorithm::Cosine), &mut || run(Algorithm::Pearson)])
    });
    // A pair loop over all rows takes many seconds: 1 % of them, times 100, by 2 since half the pairs are enough.
    let [naive] = medians(3, [&mut || _ = black_box(load::naive_sparse_cosine(&rows, rows.len() / 100))]);
    row("sparse cosine 20k × 2k at 1 %, top 20", cosine * 1e3, "ms", "pair loop (from 1 %)", naive * 50.0 * 1e3);
    row("sparse pearson 20k × 2k at 1 %, top 20", pearson * 1e3, "ms", "pair loop (from 1 %)", naive * 50.0 * 1e3);
}

fn sparse_product(pool: &ThreadPool) {
    let n = 1024;
    let rows = load::ratings(n, n as u64, 10);
    let sparse = SparseMatrix::from_rows(n, &rows).expect("well formed");
    let mut dense = vec![0.0; n * n];
    for (row, entries) in rows.iter().enumerate() {
        entries.iter().for_each(|(column, value)| dense[row * n + *column as usize] = *value);
    }
    let dense = Matrix::from_flat(n, n, dense).expect("finite");
    let [sparse, dense] = pool.install(|| {
        let mut ours = || _ = black_box(matrix::multiply_sparse(&sparse, &sparse, n * n, &Control::new()));
        let mut dense = || _ = black_box(matrix::multiply(&dense, &dense, n * n, &Control::new()));
        medians(11, [&mut ours, &mut dense])
    });
    row("sparse product 1024 at 1 %", sparse * 1e3, "ms", "dense product", dense * 1e3);
}

fn power(pool: &ThreadPool) {
    let samples = load::ride(10_000_000);
    let [batch, stream, naive] = pool.install(|| {
        let mut batch = || _ = black_box(normalized_power(&samples, WINDOW, &Control::new()));
        let mut stream = || {
            let mut stream = NormalizedPowerStream::new(WINDOW).expect("a window");
            samples.iter().for_each(|sample| stream.push(Some(*sample)).expect("finite"));
            black_box(stream.current());
        };
        let mut naive = || _ = black_box(load::naive_normalized_power(&samples, WINDOW));
        medians(15, [&mut batch, &mut stream, &mut naive])
    });
    row("normalized power, 10 M samples", batch * 1e3, "ms", "running sum", naive * 1e3);
    row("normalized power, 10 M pushes", stream * 1e3, "ms", "running sum", naive * 1e3);
}

/// From the cancel to the return: median of 30, cancelled at different moments of work that would take much longer.
fn cancel(pool: &ThreadPool) {
    let (rows, columns) = (6000, 2000);
    let matrix = Matrix::from_flat(rows, columns, load::uniform(rows * columns, 5)).expect("finite");
    let square = Matrix::from_flat(3000, 3000, load::uniform(9_000_000, 5)).expect("finite");
    let entities = Entities::from_matrix((0..rows).collect(), matrix).expect("distinct");
    let rated = load::ratings(20_000, 2_000, 40);
    let rated = SparseMatrix::from_rows(2_000, &rated).expect("well formed");
    let rated = Entities::from_sparse((0..20_000).collect(), rated).expect("distinct");
    let options = Options { top_k: Some(20), ..Options::default() };
    let pearson = |of: &Entities<usize>, control: &Control| {
        similarities(of, Algorithm::Pearson, &options, control).map(|found| _ = black_box(found))
    };
    cancelled(pool, "cancel of pearson 6000 × 2000", |control| pearson(&entities, control));
    cancelled(pool, "cancel of sparse pearson 20k × 2k", |control| pearson(&rated, control));
    cancelled(pool, "cancel of a matrix product 3000", |control| {
        matrix::multiply(&square, &square, matrix::ELEMENTS_MAX, control).map(|product| _ = black_box(product))
    });
}

fn cancelled(pool: &ThreadPool, name: &str, work: impl Fn(&Control) -> Result<(), Error> + Sync) {
    let latency = |after: u64| {
        let control = Control::new();
        let (returned, asked) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| (pool.install(|| work(&control)), Instant::now()));
            std::thread::park_timeout(Duration::from_millis(after)); // only a starting point, not a measure
            let asked = Instant::now();
            control.cancel();
            let (result, returned) = worker.join().expect("no panic");
            assert_eq!(result, Err(Error::Cancelled), "{name}: the work was too short to cancel");
            (returned, asked)
        });
        returned.saturating_duration_since(asked).as_secs_f64()
    };
    let latencies: Vec<f64> = (0..30).map(|round| latency(5 + round)).collect();
    row(name, median(latencies) * 1e3, "ms", "goal", 2.0);
}
