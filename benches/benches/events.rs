//! Event streams: publishing, hearing, sharing among consumers; on one private redis-server on loopback that keeps nothing on
//! disk, beside bare commands, and embedded. What listeners cost over HTTP is measured by `cargo xtask load-test sse`.
//!
//! `cargo bench -p tidegate-benches --bench events`: about two minutes; after `--` name sections (publish, hear, xadd,
//! groups, embedded) to run only those. Lines that begin with `ROW` are for programs. Figures are medians.

use std::time::Duration;

use tidegate_benches::events as load;
use tidegate_benches::measure::{Area, median, medians, microseconds};
use tidegate_benches::redis::{self, Watch, Work};
use tidegate_store::Durability;
use tidegate_test_redis::Server;
use tokio::runtime::Runtime;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AREA: Area = Area("events");
const ROUNDS: usize = 5;
/// One turn of a contestant that is timed by the clock.
const TURN: Duration = Duration::from_millis(600);
const EVENTS: usize = 200_000;
const STREAMS: usize = 10_000;
const SAMPLES: usize = 2000;
const XADDS: usize = 20_000;

struct Bench {
    runtime: Runtime,
    server: Server,
}

type Section = fn(&Bench);

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = runtime.block_on(redis::start());
    let bench = Bench { runtime, server };
    let sections: [(&str, Section); 5] =
        [("publish", publish), ("hear", hear), ("xadd", xadd), ("groups", groups), ("embedded", embedded)];
    for (name, section) in sections {
        if named.is_empty() || named.iter().any(|asked| asked == name) {
            section(&bench);
        }
    }
}

impl Bench {
    /// On an empty Redis.
    fn fresh<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            self.server.cli(&["FLUSHALL", "SYNC"]).await;
            work.await
        })
    }

    async fn watched(&self, work: impl Future<Output = f64>) -> (f64, Work) {
        let watch = Watch::begin(&self.server).await;
        let value = work.await;
        (value, watch.end().await)
    }
}

/// One caller, 64 callers, chunks of a thousand; beside `XADD` one by one and in pipelines.
fn publish(bench: &Bench) {
    let bus = bench.runtime.block_on(load::on_redis(&bench.server));
    let mut work = Work::default();
    let [one, many, chunks, bare, pipelined] = medians(
        ROUNDS,
        [
            &mut || bench.fresh(load::publish_each(&bus, 1, TURN)),
            &mut || {
                let (value, worked) = bench.fresh(bench.watched(load::publish_each(&bus, 64, TURN)));
                work = worked;
                value
            },
            &mut || bench.fresh(load::publish_chunks(&bus, EVENTS, 1000)),
            &mut || bench.fresh(load::xadd_each(&bench.server, TURN)),
            &mut || bench.fresh(load::xadd_pipelined(&bench.server, 128, TURN)),
        ],
    );
    AREA.row("publish, 1 caller", one, "events/s", "XADD one by one", bare);
    AREA.row("publish, 64 callers", many, "events/s", "XADD one by one", bare);
    eprintln!("    Redis computes {:.0} % of the time; a script takes {:.0} µs", work.busy * 100.0, work.script_us);
    AREA.row("publish, chunks of 1000", chunks, "events/s", "XADD, pipelines of 128", pipelined);
    bench.runtime.block_on(bus.close()).expect("closed");
}

/// From publish to a listener, with one live stream and with ten thousand.
fn hear(bench: &Bench) {
    let mut rows: [[Vec<f64>; 2]; 4] = Default::default();
    let note = |values: &mut [Vec<f64>; 2], found: &[Duration]| {
        for (values, quantile) in values.iter_mut().zip([0.5, 0.99]) {
            values.push(microseconds(found, quantile));
        }
    };
    let bus = bench.fresh(load::on_redis(&bench.server));
    let many: Vec<String> = (0..STREAMS).map(|no| format!("stream-{no:05}")).collect();
    // With one live stream, a thousand, ten thousand.
    let mut busy = [const { Vec::new() }; 3];
    for _ in 0..3 {
        bench.fresh(async {
            note(&mut rows[0], &load::bare_latencies(&bench.server, SAMPLES).await);
            let mut listeners = [load::listen(&bus, "one").await];
            let watch = Watch::begin(&bench.server).await;
            note(&mut rows[1], &load::publish_latencies(&bus, &["one".into()], &mut listeners, SAMPLES).await);
            busy[0].push(watch.end().await.busy);
            note(&mut rows[2], &load::xadd_latencies(&bench.server, "one", &mut listeners[0], SAMPLES).await);
        });
        bench.fresh(async {
            let mut listeners = Vec::with_capacity(STREAMS);
            for name in &many[..STREAMS / 10] {
                listeners.push(load::listen(&bus, name).await);
            }
            let watch = Watch::begin(&bench.server).await;
            load::publish_latencies(&bus, &many[..STREAMS / 10], &mut listeners, SAMPLES).await;
            busy[1].push(watch.end().await.busy);
            for name in &many[STREAMS / 10..] {
                listeners.push(load::listen(&bus, name).await);
            }
            let watch = Watch::begin(&bench.server).await;
            note(&mut rows[3], &load::publish_latencies(&bus, &many, &mut listeners, SAMPLES).await);
            busy[2].push(watch.end().await.busy);
        });
    }
    let [bare, published, added, of_many] = rows.map(|values| values.map(median));
    for (at, quantile) in ["p50", "p99"].into_iter().enumerate() {
        let row = |name: &str, value: f64| {
            AREA.row(&format!("{name}, {quantile}"), value, "µs", "bare XREAD", bare[at]);
        };
        row("publish to listener", published[at]);
        row("XADD of others to listener", added[at]);
        row("publish to listener, 10 000 live streams", of_many[at]);
    }
    let [one, thousand, ten] = busy.map(|busy| median(busy) * 100.0);
    AREA.row("Redis busy, some 700 events/s, 10 000 live streams", ten, "%", "1 live stream", one);
    AREA.row("Redis busy, some 700 events/s, 10 000 live streams", ten, "%", "1000 live streams", thousand);
    bench.runtime.block_on(bus.close()).expect("closed");
}

/// What listeners cost those who write.
fn xadd(bench: &Bench) {
    let bus = bench.fresh(load::on_redis(&bench.server));
    let mut values = [const { Vec::new() }; 3];
    let mut connections = 0;
    let time = async || microseconds(&load::xadd_times(&bench.server, "written", XADDS).await, 0.5);
    for _ in 0..ROUNDS {
        bench.fresh(async {
            values[0].push(time().await);
            let same = load::waiting_listeners(&bus, (0..STREAMS).map(|_| "heard".into())).await;
            values[1].push(time().await);
            drop(same);
            values[0].push(time().await);
            let each = load::waiting_listeners(&bus, (0..STREAMS).map(|no| format!("heard-{no}"))).await;
            values[2].push(time().await);
            // All but the one that asks.
            connections = bench.server.cli(&["CLIENT", "LIST"]).await.lines().count() - 1;
            drop(each);
        });
    }
    let [none, same, each] = values.map(median);
    AREA.row("XADD p50, 10 000 listeners of one stream", same, "µs", "no listener", none);
    AREA.row("XADD p50, listeners of 10 000 streams", each, "µs", "no listener", none);
    AREA.lone_row("connections to Redis, 10 000 live streams", connections as f64, "");
    bench.runtime.block_on(bus.close()).expect("closed");
}

/// Consumers that claim and acknowledge a hundred at a time.
fn groups(bench: &Bench) {
    let bus = bench.fresh(load::on_redis(&bench.server));
    for (consumers, batch) in [(1, 100), (4, 100), (1, 1000)] {
        let mut values = Vec::new();
        for _ in 0..3 {
            values.push(bench.fresh(async {
                load::publish_chunks(&bus, EVENTS, 1000).await;
                load::claim_and_ack(&bus, consumers, batch, EVENTS).await
            }));
        }
        let name = format!("claim and acknowledge, {consumers} consumer(s), batches of {batch}");
        AREA.lone_row(&name, median(values), "events/s");
    }
    bench.runtime.block_on(bus.close()).expect("closed");
}

/// Durable publishes on the embedded store.
fn embedded(bench: &Bench) {
    let rates = |callers: usize| {
        let folder = tempfile::tempdir().expect("a folder");
        bench.runtime.block_on(async {
            let bus = load::on_disk(folder.path(), Durability::Sync).await;
            let rate = load::publish_each(&bus, callers, TURN).await;
            bus.close().await.expect("closed");
            rate
        })
    };
    let [one, many] = medians(ROUNDS, [&mut || rates(1), &mut || rates(64)]);
    AREA.lone_row("embedded: durable publish, 1 caller", one, "events/s");
    AREA.lone_row("embedded: durable publish, 64 callers", many, "events/s");
    let mut latencies = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let found = bench.runtime.block_on(async {
            let bus = load::on_disk(folder.path(), Durability::Sync).await;
            let mut listeners = [load::listen(&bus, "one").await];
            let found = load::publish_latencies(&bus, &["one".into()], &mut listeners, SAMPLES).await;
            bus.close().await.expect("closed");
            found
        });
        for (values, quantile) in latencies.iter_mut().zip([0.5, 0.99]) {
            values.push(microseconds(&found, quantile));
        }
    }
    let [p50, p99] = latencies.map(median);
    AREA.lone_row("embedded: durable publish to listener, p50", p50, "µs");
    AREA.lone_row("embedded: durable publish to listener, p99", p99, "µs");
}
