//! The queue on Redis against bare round trips and, where they were made ready, against other queues: one private
//! redis-server on loopback that keeps nothing on disk, contestants taking turns.
//!
//! `cargo bench -p tidegate-benches --bench redis_queue`: about four minutes; after `--` name sections (drain, bulk, callers,
//! one, start, cancel, memory, delayed, scripts) to run only those. Lines that begin with `ROW` are for programs. Figures are
//! medians; the longest script is the median of each round's longest.

use std::path::Path;
use std::time::Duration;

use fred::interfaces::ClientLike;
use tidegate_benches::measure::{Area, count, median, medians, microseconds, rate};
use tidegate_benches::peers::{self, Peer};
use tidegate_benches::redis::{self, Watch, Work};
use tidegate_benches::redis_queue::{self as load, Finished, Opened};
use tidegate_queue::{Clock, ManualClock, UnixMillis};
use tidegate_test_redis::Server;
use tokio::runtime::Runtime;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AREA: Area = Area("redis_queue");
const ROUNDS: usize = 5;
/// Peers are a tenth as fast, and it shows as well in fewer rounds.
const PEER_ROUNDS: usize = 3;
/// One turn of a contestant that is timed by the clock.
const TURN: Duration = Duration::from_millis(600);
const JOBS: usize = 200_000;
const MANY: usize = 1_000_000;
const TIMED_JOBS: usize = 1500;

struct Bench {
    runtime: Runtime,
    server: Server,
    peers: Vec<Peer>,
}

type Section = fn(&Bench);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let peers = arguments.iter().find_map(|argument| argument.strip_prefix("--peers="));
    let peers = peers.map(|list| peers::read(Path::new(list))).unwrap_or_default();
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = runtime.block_on(redis::start());
    let bench = Bench { runtime, server, peers };
    let sections: [(&str, Section); 9] = [
        ("drain", drain),
        ("bulk", bulk),
        ("callers", callers),
        ("one", one),
        ("start", start),
        ("cancel", cancel),
        ("memory", memory),
        ("delayed", delayed),
        ("scripts", scripts),
    ];
    for (name, section) in sections {
        if named.is_empty() || named.iter().any(|asked| *asked == name) {
            section(&bench);
        }
    }
}

impl Bench {
    /// On an empty Redis, in a new process.
    fn fresh<T>(&self, work: impl AsyncFnOnce(&Opened) -> T) -> T {
        self.empty();
        self.runtime.block_on(async {
            let opened = Opened::open(&self.server).await;
            let value = work(&opened).await;
            opened.close().await;
            value
        })
    }

    fn empty(&self) {
        self.runtime.block_on(self.server.cli(&["FLUSHALL", "SYNC"]));
    }

    /// What a peer says on an empty Redis.
    fn ask(&self, peer: &Peer, words: &str) -> Vec<f64> {
        self.empty();
        peer.ask(&self.server.url(), words)
    }

    async fn watched(&self, work: impl Future<Output = f64>) -> (f64, Work) {
        let watch = Watch::begin(&self.server).await;
        let value = work.await;
        (value, watch.end().await)
    }

    /// A rate of ours beside that of each peer asked in these words, and the longest script meanwhile.
    fn contest(&self, name: &str, words: Option<&str>, ours: &impl AsyncFn(&Opened) -> (f64, Work)) -> Contest {
        let (mut values, mut works) = (Vec::new(), Vec::new());
        let asked = self.peers.iter().filter_map(|peer| Some((peer, words?)));
        let mut theirs: Vec<_> = asked.map(|(peer, words)| (peer, words, Vec::new())).collect();
        for round in 0..ROUNDS {
            let (value, work) = self.fresh(ours);
            values.push(value);
            works.push(work);
            for (peer, words, values) in theirs.iter_mut().filter(|_| round < PEER_ROUNDS) {
                values.push(self.ask(peer, words)[0]);
            }
        }
        let of = |field: fn(&Work) -> f64| median(works.iter().map(field).collect());
        let contest = Contest { value: median(values), longest_ms: of(|work| work.longest_ms), works };
        if theirs.is_empty() {
            AREA.lone_row(name, contest.value, "jobs/s");
        }
        for (peer, _, values) in theirs {
            AREA.row(name, contest.value, "jobs/s", &peer.name, median(values));
        }
        let (busy, micros) = (contest.of(|work| work.busy), contest.of(|work| work.script_us));
        eprintln!("    Redis computes {:.0} % of the time; a script takes {micros:.0} µs", busy * 100.0);
        contest
    }
}

struct Contest {
    value: f64,
    longest_ms: f64,
    works: Vec<Work>,
}

impl Contest {
    fn of(&self, field: fn(&Work) -> f64) -> f64 {
        median(self.works.iter().map(field).collect())
    }

    fn longest(&self, of: &str) {
        AREA.lone_row(&format!("longest script: {of}"), self.longest_ms, "ms");
    }
}

/// No-op jobs that wait are claimed and completed, 100 in flight: by hand, and by handlers of the scheduler.
fn drain(bench: &Bench) {
    let by_hand = |loops: usize, batch: usize, finished: Finished| {
        async move |opened: &Opened| {
            load::push_chunks(&opened.queue, 1, JOBS, 1000, finished).await;
            bench.watched(load::drain(&opened.queue, loops, batch, JOBS)).await
        }
    };
    let by_handlers = |finished: Finished| {
        async move |opened: &Opened| {
            load::push_chunks(&opened.queue, 1, JOBS, 1000, finished).await;
            bench.watched(load::drain_by_handlers(opened, 100, JOBS)).await
        }
    };
    let name = "drain, 100 in flight";
    let contest = bench.contest(name, None, &by_hand(1, 100, Finished::Forgotten));
    contest.longest(name);
    let per_job = |count: u64| count as f64 / JOBS as f64;
    let work = &contest.works[0];
    AREA.lone_row("drain, calls of Redis per job", per_job(work.scripts), "calls");
    AREA.lone_row("drain, commands inside of scripts per job", per_job(work.inner_calls), "commands");
    let kept = bench.contest("drain, 100 in flight, finished kept", None, &by_hand(1, 100, Finished::Kept));
    kept.longest("drain, finished kept");
    bench.contest("drain, 2 loops of 50", None, &by_hand(2, 50, Finished::Forgotten));
    bench
        .contest("drain, batches of 1000", None, &by_hand(1, 1000, Finished::Forgotten))
        .longest("drain, batches of 1000");
    // The others' workers are handlers, too.
    let (name, words) = ("drain by 100 handlers", format!("drain {JOBS} 100"));
    bench.contest(name, Some(&words), &by_handlers(Finished::Forgotten)).longest(name);
    bench.contest("drain by 100 handlers, finished kept", None, &by_handlers(Finished::Kept));
}

/// Callers that bring many jobs at a time.
fn bulk(bench: &Bench) {
    for chunk in [50, 1000] {
        for callers in [1, 4] {
            let words = (callers == 1).then(|| format!("bulk {JOBS} {chunk}"));
            let name = match callers {
                1 => format!("bulk enqueue, chunks of {chunk}"),
                _ => format!("bulk enqueue, chunks of {chunk}, {callers} callers"),
            };
            let push = async |opened: &Opened| {
                bench.watched(load::push_chunks(&opened.queue, callers, JOBS, chunk, Finished::Kept)).await
            };
            let contest = bench.contest(&name, words.as_deref(), &push);
            contest.longest(&name);
        }
    }
    let push = async |opened: &Opened| {
        bench.watched(load::push_chunks(&opened.queue, 1, JOBS, 1000, Finished::Forgotten)).await
    };
    bench.contest("bulk enqueue, chunks of 1000, with options", None, &push).longest("bulk enqueue with options");
}

/// 64 tasks that each await their own enqueue, one after the other.
fn callers(bench: &Bench) {
    let push = async |opened: &Opened| bench.watched(load::push_each(&opened.queue, 64, TURN)).await;
    let name = "enqueue, 64 callers";
    bench.contest(name, Some("callers 100000 64"), &push).longest(name);
}

/// One task that awaits each of its enqueues, beside the bare round trip of clients that do nothing else.
fn one(bench: &Bench) {
    let fred = bench.runtime.block_on(bare_fred(&bench.server));
    let redis = bench.runtime.block_on(redis::connect(&bench.server));
    let [enqueue, fred_ping, ping] = medians(
        2 * ROUNDS,
        [
            &mut || bench.fresh(async |opened| load::push_each(&opened.queue, 1, TURN).await),
            &mut || {
                let ping = |until| {
                    count(until, {
                        let fred = fred.clone();
                        async move || fred.ping::<()>(None).await.expect("PONG")
                    })
                };
                bench.runtime.block_on(rate(1, TURN, ping))
            },
            &mut || {
                let ping = |until| {
                    count(until, {
                        let redis = redis.clone();
                        async move || _ = redis.ping().await.expect("PONG")
                    })
                };
                bench.runtime.block_on(rate(1, TURN, ping))
            },
        ],
    );
    AREA.row("enqueue, 1 caller", enqueue, "jobs/s", "fred PING", fred_ping);
    AREA.row("enqueue, 1 caller", enqueue, "jobs/s", "our PING", ping);
    AREA.row("PING, 1 caller", ping, "calls/s", "fred PING", fred_ping);
    for peer in &bench.peers {
        let theirs = median((0..PEER_ROUNDS).map(|_| bench.ask(peer, "callers 10000 1")[0]).collect());
        AREA.row("enqueue, 1 caller", enqueue, "jobs/s", &peer.name, theirs);
    }
}

async fn bare_fred(server: &Server) -> fred::clients::Client {
    let config = fred::types::config::Config::from_url(&server.url()).expect("a URL");
    let client = fred::types::Builder::from_config(config).build().expect("a client");
    client.init().await.expect("a Redis");
    client
}

/// 500 jobs a second to a scheduler that waits, in the process that enqueues and in another.
fn start(bench: &Bench) {
    let (mut here, mut there) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut theirs: Vec<[Vec<f64>; 2]> = vec![Default::default(); bench.peers.len()];
    let note = |values: &mut [Vec<f64>; 2], found: &[f64]| {
        values.iter_mut().zip(found).for_each(|(values, value)| values.push(*value));
    };
    let quantiles = |latencies: &[Duration]| [microseconds(latencies, 0.5), microseconds(latencies, 0.99)];
    for round in 0..ROUNDS {
        bench.fresh(async |opened| {
            note(&mut here, &quantiles(&load::start_latencies(&opened.queue, opened, TIMED_JOBS).await));
            let other = Opened::open(&bench.server).await;
            note(&mut there, &quantiles(&load::start_latencies(&opened.queue, &other, TIMED_JOBS).await));
            other.close().await;
        });
        for (peer, values) in bench.peers.iter().zip(&mut theirs).filter(|_| round < PEER_ROUNDS) {
            note(values, &bench.ask(peer, &format!("start {TIMED_JOBS}")));
        }
    }
    let medians = |values: [Vec<f64>; 2]| values.map(median);
    let theirs = bench.peers.iter().zip(theirs).filter(|(_, values)| !values[0].is_empty());
    let theirs: Vec<(&Peer, [f64; 2])> = theirs.map(|(peer, values)| (peer, medians(values))).collect();
    for (place, values) in [("same process", medians(here)), ("another process", medians(there))] {
        for (at, quantile) in ["p50", "p99"].into_iter().enumerate() {
            let name = format!("enqueue to handler at 500/s, {place}, {quantile}");
            if theirs.is_empty() {
                AREA.lone_row(&name, values[at], "µs");
            }
            theirs.iter().for_each(|(peer, theirs)| AREA.row(&name, values[at], "µs", &peer.name, theirs[at]));
        }
    }
}

/// One process asks for a running job of another to be cancelled.
fn cancel(bench: &Bench) {
    let mut values = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        bench.fresh(async |opened| {
            let other = Opened::open(&bench.server).await;
            let latencies = load::cancel_latencies(&opened.queue, &other, 300).await;
            other.close().await;
            for (values, quantile) in values.iter_mut().zip([0.5, 0.99]) {
                values.push(microseconds(&latencies, quantile) / 1e3);
            }
        });
    }
    let [p50, p99] = values.map(median);
    AREA.lone_row("cancel to handler in another process, p50", p50, "ms");
    AREA.lone_row("cancel to handler in another process, p99", p99, "ms");
}

/// What a job of 40 bytes costs Redis while it waits.
fn memory(bench: &Bench) {
    let used = || bench.runtime.block_on(bench.server.used_memory()) as f64;
    let grown = |count: usize, fill: &dyn Fn()| {
        bench.empty();
        let before = used();
        fill();
        (used() - before) / count as f64
    };
    let ours = |count: usize| {
        grown(count, &|| {
            bench.runtime.block_on(async {
                let opened = Opened::open(&bench.server).await;
                load::push_chunks(&opened.queue, 1, count, 1000, Finished::Kept).await;
                opened.close().await;
                print_keys(&bench.server, count).await;
            });
        })
    };
    AREA.lone_row("Redis memory per waiting job, 1 M", ours(MANY), "bytes");
    if !bench.peers.is_empty() {
        let few = ours(JOBS);
        for peer in &bench.peers {
            let theirs = grown(JOBS, &|| drop(peer.ask(&bench.server.url(), &format!("fill {JOBS}"))));
            AREA.row("Redis memory per waiting job, 200 k", few, "bytes", &peer.name, theirs);
        }
    }
    bench.empty();
}

/// Where the memory goes, for those who want less of it.
async fn print_keys(server: &Server, jobs: usize) {
    // A queue has some twenty keys: one page, after its cursor.
    for key in server.cli(&["SCAN", "0", "COUNT", "1000"]).await.lines().skip(1) {
        let bytes = server.command(&["MEMORY", "USAGE", key, "SAMPLES", "1000"]).await.int() as f64 / jobs as f64;
        if bytes >= 0.1 {
            eprintln!("    {key}: {bytes:.1} bytes per job");
        }
    }
}

/// A million jobs become due at the same instant.
fn delayed(bench: &Bench) {
    let (mut promoted, mut drained, mut longest) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..3 {
        bench.empty();
        let (promotion, drain) = bench.runtime.block_on(async {
            let clock = ManualClock::new(UnixMillis(1_800_000_000_000));
            let opened = Opened::open_at(&bench.server, Clock::Manual(clock.clone())).await;
            load::push_delayed(&opened.queue, MANY, 1000, clock.now().after(Duration::from_secs(3600))).await;
            clock.advance(Duration::from_secs(7200));
            let promotion = bench.watched(load::promote_all(&opened.queue, MANY)).await;
            load::push_delayed(&opened.queue, JOBS, 1000, clock.now().after(Duration::from_secs(3600))).await;
            clock.advance(Duration::from_secs(3700));
            let drain = bench.watched(load::drain(&opened.queue, 1, 100, JOBS)).await;
            opened.close().await;
            (promotion, drain)
        });
        for ((values, longest), (value, work)) in
            [&mut promoted, &mut drained].into_iter().zip(&mut longest).zip([promotion, drain])
        {
            values.push(value);
            longest.push(work.longest_ms);
        }
    }
    AREA.lone_row("1 M delayed jobs due at once, promoted", median(promoted), "jobs/s");
    AREA.lone_row("drained while 200 k more fall due", median(drained), "jobs/s");
    let [promoting, draining] = longest.map(median);
    AREA.lone_row("longest script: 1 M delayed jobs due at once", promoting, "ms");
    AREA.lone_row("longest script: drained while jobs fall due", draining, "ms");
}

/// What one call of a script costs Redis, by its size.
fn scripts(bench: &Bench) {
    for (finished, what) in [(Finished::Kept, "plain jobs"), (Finished::Forgotten, "jobs with options")] {
        for (size, calls) in [(1, 5000), (50, 1000), (100, 500), (1000, 100)] {
            let (mut pushes, mut steps) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                bench.fresh(async |opened| {
                    let push = load::push_chunks(&opened.queue, 1, size * calls, size, finished);
                    pushes.push(bench.watched(push).await.1);
                    steps.push(bench.watched(load::drain(&opened.queue, 1, size, size * calls)).await.1);
                });
            }
            for (script, works) in [("push", pushes), ("step", steps)] {
                let micros = median(works.iter().map(|work| work.script_us).collect());
                AREA.lone_row(&format!("script {script}, {size} {what}"), micros, "µs");
                print_inner(&works[0], size * calls);
            }
        }
    }
}

/// Where a script's time goes, for those who make it faster.
fn print_inner(work: &Work, jobs: usize) {
    let mut inner = work.inner.clone();
    inner.sort_by(|one, other| (other.1 as f64 * other.2).total_cmp(&(one.1 as f64 * one.2)));
    let part = |(name, calls, micros): &(String, u64, f64)| {
        format!("{name} {:.3} × {micros:.2} µs", *calls as f64 / jobs as f64)
    };
    let whole: f64 = inner.iter().map(|(_, calls, micros)| *calls as f64 * micros).sum();
    let parts: Vec<String> = inner.iter().map(part).collect();
    eprintln!("    commands {:.2} µs per job: {}", whole / jobs as f64, parts.join(", "));
}
