//! What the embedded queue is measured on: no-op jobs of 50 bytes, pushed and drained in every way callers do.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_metrics::Registry;
use tidegate_queue::{
    Claim, Claimed, Config, Finish, NewJob, Outcome, Queue, QueueConfig, QueueName, Queues, TABLES, Worker,
};
use tidegate_store::{Durability, Store};
use tokio::task::JoinSet;

/// Jobs per claim.
pub const BATCH: usize = 64;

/// Between two timed jobs: 500 a second.
const INTERVAL: Duration = Duration::from_millis(2);

/// A store in this folder.
///
/// # Panics
/// When it cannot be opened.
#[must_use]
pub fn store(folder: &Path, durability: Durability) -> Store {
    let config = tidegate_store::Config { durability, ..tidegate_store::Config::new(folder) };
    Store::open(config, TABLES, &Registry::new()).expect("a store")
}

/// All queues of a store, and the one that is measured.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Close these at the end.
    pub queues: Queues,
    /// The one.
    pub queue: Queue,
}

/// Opens the queue `bench` in a store.
///
/// # Panics
/// When it cannot be opened.
pub async fn open(store: Store) -> Opened {
    // The in-memory rows push without end: what they measure is the queue, not its bound.
    let default = QueueConfig { jobs_max: u64::MAX, bytes_max: u64::MAX, ..QueueConfig::default() };
    let config = Config { jobs_max: u64::MAX, bytes_max: u64::MAX, default, ..Config::default() };
    let queues = Queues::open(store, config, &Registry::new()).await.expect("queues");
    let name = QueueName::new("bench").expect("a name");
    let queue = queues.queue(&name).await.expect("a queue");
    Opened { queues, queue }
}

/// The payload of the job with this number, 50 bytes.
#[must_use]
pub fn payload(number: usize) -> Vec<u8> {
    format!(r#"{{"id":{number:010},"name":"thumbnail","to":"64x480"}}"#).into_bytes()
}

/// Makes jobs that share the bytes of their kind, as a caller would.
#[derive(Clone, Debug)]
pub struct Jobs {
    kind: Arc<str>,
    next: usize,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { kind: "noop".into(), next: 0 }
    }
}

impl Iterator for Jobs {
    type Item = NewJob;

    fn next(&mut self) -> Option<NewJob> {
        self.next += 1;
        Some(NewJob::new(Arc::clone(&self.kind), payload(self.next)))
    }
}

/// Jobs per second when each of `callers` tasks awaits its own push, one after the other, for this long.
///
/// # Panics
/// When a push is refused.
pub async fn push_each(queue: &Queue, callers: usize, time: Duration) -> f64 {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let queue = queue.clone();
        tasks.spawn(async move {
            let mut pushed = 0;
            for job in Jobs::default() {
                if started.elapsed() >= time {
                    break;
                }
                queue.push(job).await.expect("accepted");
                pushed += 1;
            }
            pushed
        });
    }
    let pushed: usize = tasks.join_all().await.into_iter().sum();
    pushed as f64 / started.elapsed().as_secs_f64()
}

/// Pushes `count` jobs, `chunk` at a time; jobs per second.
///
/// # Panics
/// When a push is refused.
pub async fn push_chunks(queue: &Queue, count: usize, chunk: usize) -> f64 {
    let started = Instant::now();
    let (queue, mut jobs) = (queue.clone(), Jobs::default());
    // On a worker of the runtime, where callers live; not on the thread that blocks on the whole.
    let pushing = tokio::spawn(async move {
        for _ in 0..count / chunk {
            let answers = queue.push_many(jobs.by_ref().take(chunk).collect(), None).await.expect("a store");
            assert!(answers.iter().all(Result::is_ok), "a push was refused");
        }
    });
    pushing.await.expect("pushed");
    count as f64 / started.elapsed().as_secs_f64()
}

/// Claims and completes `count` jobs in batches, shared by `workers` tasks; jobs per second.
///
/// # Panics
/// When a completion is refused or the queue runs empty.
pub async fn claim_cycle(queue: &Queue, workers: usize, count: usize) -> f64 {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let queue = queue.clone();
        tasks.spawn(async move { work(&queue, &format!("w{worker}"), count / workers).await });
    }
    let done: usize = tasks.join_all().await.into_iter().sum();
    done as f64 / started.elapsed().as_secs_f64()
}

async fn work(queue: &Queue, name: &str, count: usize) -> usize {
    let worker = Worker::local(name);
    let mut done = 0;
    let mut finishes = Vec::new();
    while done < count {
        let claim = Claim { worker: worker.clone(), limit: BATCH.min(count - done), wait: Duration::ZERO };
        let (outcomes, claimed) = queue.step(finishes, claim).await.expect("a store");
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Ok), "a lease was lost");
        assert!(!claimed.is_empty(), "the queue ran empty");
        done += claimed.len();
        finishes = claimed.iter().map(complete).collect();
    }
    queue.finish(finishes).await.expect("a store");
    done
}

fn complete(claimed: &Claimed) -> Finish {
    Finish::Complete { lease: claimed.lease, result: None }
}

/// From the call of `push` to the return of a waiting claim, for `count` jobs, one every 2 ms.
///
/// # Panics
/// When the store fails.
pub async fn latencies(queue: &Queue, count: usize) -> Vec<Duration> {
    let origin = Instant::now();
    let (pushing, claiming) = (queue.clone(), queue.clone());
    let receiver = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(count);
        let mut finishes = Vec::new();
        while latencies.len() < count {
            let claim = Claim { worker: Worker::local("waits"), limit: 1, wait: Duration::from_secs(10) };
            let (_, claimed) = claiming.step(finishes, claim).await.expect("a store");
            let now = origin.elapsed();
            let sent = |job: &Claimed| {
                let bytes = job.data.as_ref().try_into().expect("eight bytes");
                now.saturating_sub(Duration::from_nanos(u64::from_le_bytes(bytes)))
            };
            latencies.extend(claimed.iter().map(sent));
            finishes = claimed.iter().map(complete).collect();
        }
        latencies
    });
    let sender = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        for _ in 0..count {
            ticks.tick().await;
            let sent = origin.elapsed().as_nanos() as u64;
            pushing.push(NewJob::new("timed", sent.to_le_bytes().to_vec())).await.expect("accepted");
        }
    });
    sender.await.expect("sent");
    receiver.await.expect("received")
}

/// The same through a bare channel between two tasks: what the runtime itself takes to wake somebody.
///
/// # Panics
/// Never while both tasks live.
pub async fn channel_latencies(count: usize) -> Vec<Duration> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let receiving = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(count);
        while let Some(sent) = receiver.recv().await {
            latencies.push(sent.elapsed());
        }
        latencies
    });
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        for _ in 0..count {
            ticks.tick().await;
            sender.send(Instant::now()).expect("a receiver");
        }
    });
    sending.await.expect("sent");
    receiving.await.expect("received")
}
