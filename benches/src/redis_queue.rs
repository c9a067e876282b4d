//! What the queue on Redis is measured on: no-op jobs of 40 bytes, pushed, drained, timed and cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate_metrics::Registry;
use tidegate_queue::{
    Claim, Claimed, Clock, Config, Finish, NewJob, Outcome, Queue, QueueConfig, QueueName, Queues, State, UnixMillis,
    Worker,
};
use tidegate_redis_ops::Redis;
use tidegate_scheduler::{Context, HandlerError, Scheduler};
use tidegate_test_redis::Server;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// Between two timed jobs: 500 a second.
const INTERVAL: Duration = Duration::from_millis(2);
const KIND: &str = "noop";

/// What becomes of finished jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Forgotten at once, as other queues' benches do.
    Forgotten,
    /// Kept as by default: a day, the last 10 000.
    Kept,
}

/// The queue `bench` as one process sees it.
#[derive(Debug)]
pub struct Opened {
    redis: Redis,
    queues: Queues,
    /// The queue.
    pub queue: Queue,
}

impl Opened {
    /// As a new process.
    ///
    /// # Panics
    /// When Redis cannot be reached.
    pub async fn open(server: &Server) -> Self {
        Self::open_at(server, Clock::System).await
    }

    /// As a new process that reads the time from this clock.
    ///
    /// # Panics
    /// When Redis cannot be reached.
    pub async fn open_at(server: &Server, clock: Clock) -> Self {
        let redis = crate::redis::connect(server).await;
        let default = QueueConfig { jobs_max: 100_000_000, bytes_max: 1 << 40, ..QueueConfig::default() };
        let config = Config { jobs_max: 100_000_000, bytes_max: 1 << 40, default, clock, ..Config::default() };
        let queues = Queues::connect(redis.clone(), config, &Registry::new()).await.expect("queues");
        let queue = queues.queue(&name()).await.expect("a queue");
        Self { redis, queues, queue }
    }

    /// Ends its connections.
    ///
    /// # Panics
    /// When it cannot be closed.
    pub async fn close(self) {
        self.queues.close().await.expect("closed");
        self.redis.close().await;
    }
}

fn name() -> QueueName {
    QueueName::new("bench").expect("a name")
}

/// Job number `number`, 40 bytes.
#[must_use]
pub fn job(kind: &Arc<str>, number: usize, finished: Finished) -> NewJob {
    let job = NewJob::new(Arc::clone(kind), format!(r#"{{"id":{number:014},"name":"thumbnail"}}"#));
    match finished {
        Finished::Forgotten => job.retention(Duration::ZERO),
        Finished::Kept => job,
    }
}

/// Each of `callers` tasks pushes chunks, one after the other, until `count` jobs are in; jobs per second.
///
/// # Panics
/// When a push is refused.
pub async fn push_chunks(queue: &Queue, callers: usize, count: usize, chunk: usize, finished: Finished) -> f64 {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (queue, kind) = (queue.clone(), Arc::from(KIND));
        tasks.spawn(async move {
            for first in (0..count / callers).step_by(chunk) {
                let jobs = (first..first + chunk).map(|number| job(&kind, number, finished)).collect();
                let answers = queue.push_many(jobs, None).await.expect("Redis");
                assert!(answers.iter().all(Result::is_ok), "a push was refused");
            }
        });
    }
    tasks.join_all().await;
    count as f64 / started.elapsed().as_secs_f64()
}

/// Pushes `count` jobs, `chunk` at a time, that all become due at the same instant.
///
/// # Panics
/// When a push is refused.
pub async fn push_delayed(queue: &Queue, count: usize, chunk: usize, at: UnixMillis) {
    let kind: Arc<str> = Arc::from(KIND);
    for first in (0..count).step_by(chunk) {
        let job = |number| job(&kind, number, Finished::Kept).run_at(at);
        let answers = queue.push_many((first..first + chunk).map(job).collect(), None).await.expect("Redis");
        assert!(answers.iter().all(Result::is_ok), "a push was refused");
    }
}

/// Does what is due until `count` jobs can be claimed; jobs per second.
///
/// # Panics
/// When Redis fails.
pub async fn promote_all(queue: &Queue, count: usize) -> f64 {
    let started = Instant::now();
    // By a manual clock one call is one script.
    while queue.stats().await.expect("Redis").counts.of(State::Available) < count as u64 {
        for _ in 0..100 {
            queue.upkeep().await.expect("Redis");
        }
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// Each of `callers` tasks awaits its own pushes for this long; jobs per second.
///
/// # Panics
/// When a push is refused.
pub async fn push_each(queue: &Queue, callers: usize, time: Duration) -> f64 {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (queue, kind) = (queue.clone(), Arc::from(KIND));
        tasks.spawn(async move {
            let mut pushed = 0;
            while started.elapsed() < time {
                queue.push(job(&kind, pushed, Finished::Kept)).await.expect("accepted");
                pushed += 1;
            }
            pushed
        });
    }
    let pushed: usize = tasks.join_all().await.into_iter().sum();
    pushed as f64 / started.elapsed().as_secs_f64()
}

/// `loops` tasks that each complete what they claimed and claim `batch` more, until `count` jobs are done; jobs per second.
///
/// # Panics
/// When a completion is refused or the queue runs empty.
pub async fn drain(queue: &Queue, loops: usize, batch: usize, count: usize) -> f64 {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..loops {
        let queue = queue.clone();
        tasks.spawn(async move { work(&queue, &format!("w{number}"), batch, count / loops).await });
    }
    let done: usize = tasks.join_all().await.into_iter().sum();
    done as f64 / started.elapsed().as_secs_f64()
}

async fn work(queue: &Queue, name: &str, batch: usize, count: usize) -> usize {
    let worker = Worker::remote(name);
    let mut done = 0;
    let mut finishes = Vec::new();
    while done < count {
        let claim = Claim { worker: worker.clone(), limit: batch.min(count - done), wait: Duration::ZERO };
        let (outcomes, claimed) = queue.step(finishes, claim).await.expect("Redis");
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Ok), "a lease was lost");
        assert!(!claimed.is_empty(), "the queue ran empty");
        done += claimed.len();
        finishes = claimed.iter().map(complete).collect();
    }
    queue.finish(finishes).await.expect("Redis");
    done
}

fn complete(claimed: &Claimed) -> Finish {
    Finish::Complete { lease: claimed.lease, result: None }
}

/// Runs `count` jobs through handlers, up to `concurrency` at once, to the last completion; jobs per second.
///
/// # Panics
/// When the scheduler does not start.
pub async fn drain_by_handlers(opened: &Opened, concurrency: usize, count: usize) -> f64 {
    let (left, all_done) = (Arc::new(AtomicUsize::new(count)), Arc::new(Notify::new()));
    let config = tidegate_scheduler::Config {
        permits_min: concurrency,
        permits_max: concurrency,
        ..tidegate_scheduler::Config::default()
    };
    let started = Instant::now();
    let ring = Arc::clone(&all_done);
    let scheduler = Scheduler::builder(opened.queues.clone(), Registry::new(), config)
        .serve(name())
        .handle_raw(KIND, move |_: Context, _| {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                ring.notify_one();
            }
            async { Ok::<_, HandlerError>(None) }
        })
        .start()
        .await
        .expect("a scheduler");
    all_done.notified().await;
    let report = scheduler.drain(Duration::from_secs(10)).await;
    assert_eq!(report.stuck, 0, "completions were lost");
    count as f64 / started.elapsed().as_secs_f64()
}

/// From the call of `push` in one process to the start of the handler in another (or in the same), for `count` jobs, one
/// every 2 ms.
///
/// # Panics
/// When Redis fails.
pub async fn start_latencies(pushes: &Queue, handles: &Opened, count: usize) -> Vec<Duration> {
    let origin = Instant::now();
    let (started, mut starts) = mpsc::unbounded_channel();
    let scheduler = Scheduler::builder(handles.queues.clone(), Registry::new(), tidegate_scheduler::Config::default())
        .serve(name())
        .handle_raw("timed", move |_: Context, data| {
            let now = origin.elapsed();
            let sent = Duration::from_nanos(u64::from_le_bytes(data.as_ref().try_into().expect("eight bytes")));
            started.send(now.saturating_sub(sent)).expect("a listener");
            async { Ok::<_, HandlerError>(None) }
        })
        .start()
        .await
        .expect("a scheduler");
    let pushes = pushes.clone();
    let sender = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        for _ in 0..count {
            ticks.tick().await;
            let sent = origin.elapsed().as_nanos() as u64;
            pushes.push(NewJob::new("timed", sent.to_le_bytes().to_vec())).await.expect("accepted");
        }
    });
    let mut latencies = Vec::with_capacity(count);
    while latencies.len() < count {
        latencies.push(starts.recv().await.expect("a start"));
    }
    sender.await.expect("sent");
    scheduler.drain(Duration::from_secs(10)).await;
    latencies
}

/// From the call of `cancel` in one process to the handler in another hearing of it, one running job at a time.
///
/// # Panics
/// When Redis fails.
pub async fn cancel_latencies(asks: &Queue, handles: &Opened, count: usize) -> Vec<Duration> {
    let (started, mut starts) = mpsc::unbounded_channel();
    let (heard, mut hearings) = mpsc::unbounded_channel();
    let scheduler = Scheduler::builder(handles.queues.clone(), Registry::new(), tidegate_scheduler::Config::default())
        .serve(name())
        .handle_raw("waits", move |context: Context, _| {
            let (started, heard) = (started.clone(), heard.clone());
            async move {
                started.send(()).expect("a listener");
                context.token().cancelled().await;
                heard.send(Instant::now()).expect("a listener");
                Err(HandlerError::cancelled())
            }
        })
        .start()
        .await
        .expect("a scheduler");
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let pushed = asks.push(NewJob::new("waits", "")).await.expect("accepted");
        starts.recv().await.expect("a start");
        let asked = Instant::now();
        let (answer, heard) = tokio::join!(asks.cancel(&pushed.id), hearings.recv());
        answer.expect("asked to stop");
        latencies.push(heard.expect("heard").saturating_duration_since(asked));
    }
    scheduler.drain(Duration::from_secs(10)).await;
    latencies
}
