//! The embedded queue against the bare disk and a job table in SQLite, in one process, on one disk, taking turns.
//!
//! `cargo bench -p tidegate-benches --bench queue`: about two minutes; after `--` name sections (durable, bulk, claim,
//! restart, latency, memory) to run only those. Lines that begin with `ROW` are for programs. Figures are medians; the
//! data is in a temporary folder in the target directory, since a sync in a file system of memory costs nothing.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_benches::queue::{self as load, BATCH, Opened};
use tidegate_benches::queue_raw::{Layout, Log};
use tidegate_benches::queue_sqlite::{JobTable, SharedTable, Synchronous};
use tidegate_queue::{Claim, Queue, Worker};
use tidegate_store::{Durability, Store};
use tokio::runtime::Runtime;

/// The allocator of the server: jobs are made by one thread and freed by another, where allocators differ most.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the data is: inside the target directory.
const DATA: &str = env!("CARGO_TARGET_TMPDIR");
/// Asks this program to be the process that is started again; the folder follows.
const AGAIN: &str = "start-again";

const CALLERS: usize = 64;
/// One turn of a contestant that is timed by the clock.
const TURN: Duration = Duration::from_millis(600);
const ROUNDS: usize = 5;
const FEW: usize = 10_000;
const MANY: usize = 1_000_000;
/// Jobs in one timed stretch of claim cycles over a million; five of them leave four fifths waiting.
const STRETCH: usize = 40_000;
const WORKERS: usize = 2;
const TIMED_JOBS: usize = 1500;

type Section = fn(&Runtime);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    if let [AGAIN, folder] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return start_again(&runtime, Path::new(folder));
    }
    eprintln!("data on {}", file_system(Path::new(DATA)));
    let sections: [(&str, Section); 6] = [
        ("durable", durable),
        ("bulk", bulk),
        ("claim", claim),
        ("restart", restart),
        ("latency", latency),
        ("memory", memory),
    ];
    for (name, section) in sections {
        if arguments.is_empty() || arguments.iter().any(|asked| asked == name) {
            section(&runtime);
        }
    }
}

fn row(name: &str, value: f64, unit: &str, baseline: &str, baseline_value: f64) {
    let ratio = value / baseline_value;
    println!("ROW\tqueue\t{name}\t{value:.3}\t{unit}\t{baseline}\t{baseline_value:.3}\t{ratio:.3}");
    eprintln!("{name:<44} {value:>12.2} {unit:<7} {baseline:<26} {baseline_value:>12.2}  ratio {ratio:.3}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What each contestant measures: medians of `rounds` rounds in which they take turns.
fn medians<const N: usize>(rounds: usize, mut contestants: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut values = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (values, run) in values.iter_mut().zip(&mut contestants) {
            values.push(run());
        }
    }
    values.map(median)
}

/// How often per second `work` can be done, for one turn.
fn rate(mut work: impl FnMut()) -> f64 {
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < TURN {
        work();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("queue-").tempdir_in(DATA).expect("a folder")
}

/// The file system a folder is on, as the kernel names it.
fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(place).then(|| (place.len(), format!("{kind} ({device})")))
    });
    mounts.max().map_or_else(|| "an unknown file system".to_owned(), |(_, name)| name)
}

/// A queue on disk, closed when its measurements are done.
struct OnDisk<'a> {
    runtime: &'a Runtime,
    opened: Opened,
    _folder: Option<TempDir>,
}

impl<'a> OnDisk<'a> {
    fn new(runtime: &'a Runtime, durability: Durability) -> Self {
        let folder = folder();
        let opened = runtime.block_on(load::open(load::store(folder.path(), durability)));
        Self { runtime, opened, _folder: Some(folder) }
    }

    fn in_memory(runtime: &'a Runtime) -> Self {
        let opened = runtime.block_on(load::open(Store::memory(tidegate_queue::TABLES)));
        Self { runtime, opened, _folder: None }
    }

    fn push_each(&self, callers: usize) -> f64 {
        self.runtime.block_on(load::push_each(&self.opened.queue, callers, TURN))
    }

    fn push_chunks(&self, count: usize, chunk: usize) -> f64 {
        self.runtime.block_on(load::push_chunks(&self.opened.queue, count, chunk))
    }

    fn claim_cycle(&self, workers: usize, count: usize) -> f64 {
        self.runtime.block_on(load::claim_cycle(&self.opened.queue, workers, count))
    }

    fn latencies(&self) -> Vec<Duration> {
        self.runtime.block_on(load::latencies(&self.opened.queue, TIMED_JOBS))
    }
}

impl Drop for OnDisk<'_> {
    fn drop(&mut self) {
        self.runtime.block_on(self.opened.queues.close()).expect("closed");
    }
}

/// A job is accepted when it is on the disk; one caller, and 64 that share syncs.
fn durable(runtime: &Runtime) {
    let raw = folder();
    let log = |name: &str, layout| Log::create(&raw.path().join(name), layout).expect("a file");
    let mut sparse = log("sparse", Layout::Sparse);
    let mut appending = log("appending", Layout::Appending);
    let mut overwriting = log("overwriting", Layout::Overwriting);
    let mut table = JobTable::create(&raw.path().join("one.sqlite"), Synchronous::Full).expect("a table");
    let job = load::payload(1);
    let ours = OnDisk::new(runtime, Durability::Sync);
    let [one, sparse, appending, overwriting, sqlite] = medians(
        ROUNDS,
        [
            &mut || ours.push_each(1),
            &mut || rate(|| sparse.append().expect("appended")),
            &mut || rate(|| appending.append().expect("appended")),
            &mut || rate(|| overwriting.append().expect("appended")),
            &mut || rate(|| table.push([job.as_slice()]).expect("inserted")),
        ],
    );
    let name = "durable enqueue, 1 caller";
    row(name, one, "jobs/s", "fdatasync", sparse);
    row(name, one, "jobs/s", "fdatasync, growing file", appending);
    row(name, one, "jobs/s", "fdatasync, overwriting", overwriting);
    row(name, one, "jobs/s", "SQLite WAL FULL", sqlite);

    let shared = JobTable::create(&raw.path().join("many.sqlite"), Synchronous::Full).expect("a table");
    let shared = SharedTable::start(shared);
    let [many, sqlite] =
        medians(ROUNDS, [&mut || ours.push_each(CALLERS), &mut || runtime.block_on(push_each_sqlite(&shared))]);
    let name = "durable enqueue, 64 callers";
    row(name, many, "jobs/s", "SQLite WAL FULL", sqlite);
    row(name, many, "jobs/s", "fdatasync", sparse);
}

async fn push_each_sqlite(table: &SharedTable) -> f64 {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let requests = table.caller();
        tasks.spawn(async move {
            let mut pushed = 0;
            while started.elapsed() < TURN {
                let (answer, answered) = tokio::sync::oneshot::channel();
                requests.send((load::payload(pushed), answer)).expect("a table");
                answered.await.expect("an answer");
                pushed += 1;
            }
            pushed
        });
    }
    let pushed: usize = tasks.join_all().await.into_iter().sum();
    pushed as f64 / started.elapsed().as_secs_f64()
}

/// One caller that brings many jobs at a time.
fn bulk(runtime: &Runtime) {
    let modes = [
        (Durability::Sync, Synchronous::Full, "SQLite WAL FULL"),
        (Durability::EverySecond, Synchronous::Normal, "SQLite WAL NORMAL"),
    ];
    for (durability, synchronous, baseline) in modes {
        for (chunk, count) in [(50, 50_000), (1000, 100_000)] {
            let ours = OnDisk::new(runtime, durability);
            let sqlite = folder();
            let mut table = JobTable::create(&sqlite.path().join("jobs.sqlite"), synchronous).expect("a table");
            let [ours, theirs] = medians(
                3,
                [&mut || ours.push_chunks(count, chunk), &mut || push_chunks_sqlite(&mut table, count, chunk)],
            );
            row(&format!("bulk enqueue, chunks of {chunk}, {durability}"), ours, "jobs/s", baseline, theirs);
        }
    }
}

fn push_chunks_sqlite(table: &mut JobTable, count: usize, chunk: usize) -> f64 {
    let started = Instant::now();
    for first in (0..count).step_by(chunk) {
        let jobs: Vec<Vec<u8>> = (first..first + chunk).map(load::payload).collect();
        table.push(jobs.iter().map(Vec::as_slice)).expect("inserted");
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// Complete 64, claim 64, under `everysec`; whatever the number of jobs in line.
fn claim(runtime: &Runtime) {
    let ours = OnDisk::new(runtime, Durability::EverySecond);
    let theirs = folder();
    let mut table = JobTable::create(&theirs.path().join("jobs.sqlite"), Synchronous::Normal).expect("a table");
    // Once unmeasured: from then on as many finished jobs are kept as may be, and each completion forgets one.
    ours.push_chunks(FEW, 1000);
    ours.claim_cycle(1, FEW);
    let [few, few_shared, few_sqlite] = medians(
        ROUNDS,
        [
            &mut || {
                ours.push_chunks(FEW, 1000);
                ours.claim_cycle(1, FEW)
            },
            &mut || {
                ours.push_chunks(FEW, 1000);
                ours.claim_cycle(WORKERS, FEW)
            },
            &mut || {
                push_chunks_sqlite(&mut table, FEW, 1000);
                claim_cycle_sqlite(&mut table, FEW)
            },
        ],
    );
    ours.push_chunks(MANY, 1000);
    push_chunks_sqlite(&mut table, MANY, 1000);
    settle(runtime);
    let [many, many_shared, many_sqlite] = medians(
        ROUNDS,
        [&mut || ours.claim_cycle(1, STRETCH), &mut || ours.claim_cycle(WORKERS, STRETCH), &mut || {
            claim_cycle_sqlite(&mut table, STRETCH)
        }],
    );
    row("claim cycle, 10 k waiting", few, "jobs/s", "SQLite WAL NORMAL", few_sqlite);
    row("claim cycle, 1 M waiting", many, "jobs/s", "10 k waiting", few);
    row("claim cycle, 1 M waiting", many, "jobs/s", "SQLite WAL NORMAL", many_sqlite);
    row("claim cycle, 10 k waiting, 2 workers", few_shared, "jobs/s", "1 worker", few);
    row("claim cycle, 1 M waiting, 2 workers", many_shared, "jobs/s", "1 worker", many);
}

/// Lets the store write out in the background what was pushed to get there.
fn settle(runtime: &Runtime) {
    runtime.block_on(async { tokio::time::sleep(Duration::from_secs(2)).await });
}

fn claim_cycle_sqlite(table: &mut JobTable, count: usize) -> f64 {
    let started = Instant::now();
    let mut claimed = Vec::new();
    let mut done = 0;
    while done < count {
        claimed =
            table.step(&claimed, BATCH.min(count - done)).expect("claimed").into_iter().map(|(id, _)| id).collect();
        assert!(!claimed.is_empty(), "the table ran empty");
        done += claimed.len();
    }
    table.step(&claimed, 0).expect("completed");
    done as f64 / started.elapsed().as_secs_f64()
}

/// A process starts on a folder in which a million jobs wait; each time a new process, so that its memory is its own,
/// and on a copy of the folder, since a start tidies up what the next one would have to do.
fn restart(runtime: &Runtime) {
    let data = folder();
    {
        let Opened { queues, queue } = runtime.block_on(load::open(load::store(data.path(), Durability::EverySecond)));
        runtime.block_on(load::push_chunks(&queue, MANY, 1000));
        runtime.block_on(queues.close()).expect("closed");
    }
    let peer = folder();
    let sqlite = peer.path().join("jobs.sqlite");
    push_chunks_sqlite(&mut JobTable::create(&sqlite, Synchronous::Normal).expect("a table"), MANY, 1000);
    let mut starts = [const { Vec::new() }; 4];
    let mut baselines = [const { Vec::new() }; 2];
    for _ in 0..3 {
        let copy = folder();
        copy_all(data.path(), copy.path());
        baselines[0].push(seconds(|| _ = read_all(copy.path())));
        baselines[1].push(seconds(|| drop(JobTable::open(&sqlite).expect("a table").step(&[], BATCH))));
        for (values, value) in starts.iter_mut().zip(new_process(copy.path())) {
            values.push(value);
        }
    }
    let [store, queues, claim, resident] = starts.map(median);
    let [reading, sqlite] = baselines.map(median);
    let whole = store + queues + claim;
    row("restart with 1 M waiting", whole, "s", "reading the files", reading);
    row("restart with 1 M waiting", whole, "s", "SQLite", sqlite);
    row("restart: opening the store", store, "s", "whole restart", whole);
    row("restart: building the index", queues, "s", "whole restart", whole);
    row("resident memory per waiting job", resident, "bytes", "payload", load::payload(0).len() as f64);
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// Every byte of every file, read once.
fn read_all(folder: &Path) -> u64 {
    entries(folder).map(|path| if path.is_dir() { read_all(&path) } else { read(&path) }).sum()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
}

fn copy_all(from: &Path, to: &Path) {
    for path in entries(from) {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("a folder");
            copy_all(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

fn read(path: &PathBuf) -> u64 {
    let mut chunk = vec![0; 1 << 18];
    let mut file = std::fs::File::open(path).expect("a file");
    std::iter::from_fn(|| file.read(&mut chunk).ok().filter(|read| *read > 0)).map(|read| read as u64).sum()
}

/// Seconds to open the store, to build the index and to claim; bytes of memory per job.
fn new_process(folder: &Path) -> [f64; 4] {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).arg(AGAIN).arg(folder).output().expect("a process");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().expect("four numbers")
}

fn start_again(runtime: &Runtime, folder: &Path) {
    let before = resident_bytes();
    let mut store = None;
    let opening = seconds(|| store = Some(load::store(folder, Durability::EverySecond)));
    let mut opened = None;
    let building = seconds(|| opened = Some(runtime.block_on(load::open(store.take().expect("a store")))));
    let Opened { queues, queue } = opened.expect("queues");
    let claiming = seconds(|| runtime.block_on(claim_some(&queue)));
    let per_job = (resident_bytes() - before) / MANY as f64;
    println!("{opening} {building} {claiming} {per_job}");
    runtime.block_on(queues.close()).expect("closed");
}

async fn claim_some(queue: &Queue) {
    // Local: the next start takes these jobs back at once.
    let claim = Claim { worker: Worker::local("again"), limit: BATCH, wait: Duration::ZERO };
    let claimed = queue.claim(claim).await.expect("a store");
    assert_eq!(claimed.len(), BATCH);
}

/// Resident memory of this process as the kernel tells it; 0 where it does not.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// 500 jobs a second to one worker that waits.
fn latency(runtime: &Runtime) {
    let bare = runtime.block_on(load::channel_latencies(TIMED_JOBS));
    let (bare_50, bare_99) = (microseconds(&bare, 0.5), microseconds(&bare, 0.99));
    for durability in [Durability::EverySecond, Durability::Sync] {
        let ours = OnDisk::new(runtime, durability).latencies();
        let name = format!("enqueue to claim at 500/s, {durability}");
        row(&format!("{name}, p50"), microseconds(&ours, 0.5), "µs", "bare channel", bare_50);
        row(&format!("{name}, p99"), microseconds(&ours, 0.99), "µs", "bare channel", bare_99);
    }
}

fn microseconds(latencies: &[Duration], quantile: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e6
}

/// The same verbs on a store without a disk: what the rules cost, and what is left is the disk's.
fn memory(runtime: &Runtime) {
    let disk = OnDisk::new(runtime, Durability::EverySecond);
    let memory = OnDisk::in_memory(runtime);
    let everysec = "everysec";
    let [disk_one, one] = medians(3, [&mut || disk.push_each(1), &mut || memory.push_each(1)]);
    row("enqueue in memory, 1 caller", one, "jobs/s", everysec, disk_one);
    let [disk_many, many] = medians(3, [&mut || disk.push_each(CALLERS), &mut || memory.push_each(CALLERS)]);
    row("enqueue in memory, 64 callers", many, "jobs/s", everysec, disk_many);
    let [disk_bulk, bulk] =
        medians(3, [&mut || disk.push_chunks(100_000, 1000), &mut || memory.push_chunks(100_000, 1000)]);
    row("bulk enqueue in memory, chunks of 1000", bulk, "jobs/s", everysec, disk_bulk);
    let [disk_claim, claim] =
        medians(3, [&mut || disk.claim_cycle(1, STRETCH), &mut || memory.claim_cycle(1, STRETCH)]);
    row("claim cycle in memory", claim, "jobs/s", everysec, disk_claim);
}
