//! apalis-redis as a peer of our benches: `<program> <redis url> <verb> <number…>` prints figures in one line; the verbs
//! are described in `benches/src/peers.rs`. Workers fetch 100 at a time; all else is as apalis has it by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::layers::WorkerBuilderExt;
use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    id: u64,
    name: String,
}

/// Jobs that wait at once when they are drained.
const WAVE: usize = 5000;

type Storage = RedisStorage<Job, apalis_redis::ConnectionManager>;

fn job(id: u64) -> Job {
    Job { id, name: "thumbnail".to_owned() }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).map_or(0, |word| word.parse::<usize>().expect("a number"));
    let (count, parameter) = (number(2), number(3));
    let connection = apalis_redis::connect(words[0].as_str()).await.expect("a Redis");
    let storage = RedisStorage::new(connection).with_config(Config::default().queue("bench").batch_size(100));
    let figures = match words[1].as_str() {
        "bulk" => vec![bulk(storage, count, parameter).await],
        "fill" => {
            bulk(storage, count, 1000).await;
            Vec::new()
        }
        "callers" => vec![callers(&storage, count, parameter).await],
        "drain" => vec![drain(storage, count, parameter).await],
        // Left out: both of its storages, the one woken by messages too, started jobs only with the heartbeat, up to 30 s
        // later. Until it is clear whether that is apalis or how we use it, there is no figure.
        "start" => Vec::new(),
        verb => panic!("no verb is called {verb}"),
    };
    println!("{}", figures.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    std::process::exit(0);
}

async fn bulk(mut storage: Storage, count: usize, chunk: usize) -> f64 {
    let began = Instant::now();
    for first in (0..count).step_by(chunk) {
        let jobs = (first..first + chunk).map(|number| job(number as u64)).collect();
        storage.push_bulk(jobs).await.expect("pushed");
    }
    count as f64 / began.elapsed().as_secs_f64()
}

async fn callers(storage: &Storage, count: usize, tasks: usize) -> f64 {
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let mut storage = storage.clone();
        running.spawn(async move {
            for number in 0..count / tasks {
                storage.push(job(number as u64)).await.expect("pushed");
            }
        });
    }
    running.join_all().await;
    count as f64 / began.elapsed().as_secs_f64()
}

/// In waves: with more than about 8000 jobs waiting its worker ends with "too many results to unpack". Only the time of
/// the workers counts.
async fn drain(storage: Storage, count: usize, concurrency: usize) -> f64 {
    let mut took = Duration::ZERO;
    for wave in 0..count / WAVE {
        bulk(storage.clone(), WAVE, 1000).await;
        let began = Instant::now();
        work_off(storage.clone(), &format!("bench-{wave}"), concurrency).await;
        took += began.elapsed();
    }
    (count / WAVE * WAVE) as f64 / took.as_secs_f64()
}

async fn work_off(storage: Storage, name: &str, concurrency: usize) {
    let (left, all_done) = (Arc::new(AtomicUsize::new(WAVE)), Arc::new(Notify::new()));
    let ring = Arc::clone(&all_done);
    let handler = move |_: Job| {
        let (left, ring) = (Arc::clone(&left), Arc::clone(&ring));
        async move {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                ring.notify_one();
            }
            Ok::<(), BoxDynError>(())
        }
    };
    let worker = WorkerBuilder::new(name).backend(storage).concurrency(concurrency).build(handler);
    tokio::select! {
        end = worker.run() => panic!("the worker ended: {end:?}"),
        () = all_done.notified() => {}
    }
}
