//! What the tests share: real queues in a memory store, and waiting for a fact instead of for time.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_queue::{Clock, Job, JobId, ManualClock, Queue, QueueName, Queues, State, TABLES, UnixMillis};
use tidegate_redis_ops::Redis;
use tidegate_scheduler::{Builder, Config, Scheduler, Stats};
use tidegate_store::Store;

/// Long enough for the slowest machine; only a failing test waits for it.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A queue named `work` and what is needed to serve it.
pub struct Bench {
    pub queues: Queues,
    pub queue: Queue,
    pub registry: Registry,
    pub name: QueueName,
    pub clock: Clock,
}

impl Bench {
    pub async fn new() -> Self {
        Self::open(tidegate_queue::Config::default()).await
    }

    /// With a clock that stands still, and a lease of 100 ms of it.
    pub async fn with_clock() -> (Self, ManualClock) {
        let hand = ManualClock::new(UnixMillis(1_750_000_000_000));
        let clock = Clock::Manual(hand.clone());
        let lease = Duration::from_millis(100);
        (Self::open(tidegate_queue::Config { clock, lease, ..tidegate_queue::Config::default() }).await, hand)
    }

    /// The same on a Redis.
    pub async fn on_redis() -> (Self, ManualClock) {
        let hand = ManualClock::new(UnixMillis(1_750_000_000_000));
        let (registry, clock) = (Registry::new(), Clock::Manual(hand.clone()));
        let url = tidegate_test_redis::shared().await.url();
        let redis = Redis::connect(tidegate_redis_ops::Config::parse(&url).unwrap(), &registry).await.unwrap();
        let lease = Duration::from_millis(100);
        let config = tidegate_queue::Config { clock: clock.clone(), lease, ..tidegate_queue::Config::default() };
        let queues = Queues::connect(redis, config, &registry).await.unwrap();
        let name = QueueName::new("work").unwrap();
        let queue = queues.queue(&name).await.unwrap();
        (Self { queues, queue, registry, name, clock }, hand)
    }

    pub async fn open(config: tidegate_queue::Config) -> Self {
        let (registry, clock) = (Registry::new(), config.clock.clone());
        let queues = Queues::open(Store::memory(TABLES), config, &registry).await.unwrap();
        let name = QueueName::new("work").unwrap();
        let queue = queues.queue(&name).await.unwrap();
        Self { queues, queue, registry, name, clock }
    }

    pub fn config(&self) -> Config {
        Config { clock: self.clock.clone(), ..Config::default() }
    }

    /// A scheduler that serves `work`.
    pub fn scheduler(&self, config: Config) -> Builder {
        Scheduler::builder(self.queues.clone(), Registry::new(), config).serve(self.name.clone())
    }

    /// The job once it is in this state.
    pub async fn until(&self, id: &JobId, state: State) -> Job {
        let mut changes = self.queue.subscribe().await.unwrap();
        let reached = async {
            loop {
                let job = self.queues.job(id).await.unwrap();
                if job.state == state {
                    return job;
                }
                assert!(!job.state.is_finished(), "{job:?} will not become {state:?}");
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(LIMIT, reached).await.expect("the state in time")
    }
}

/// Waits for a fact in the numbers.
pub async fn until_stats(scheduler: &Scheduler, fact: impl Fn(&Stats) -> bool) -> Stats {
    let holds = async {
        loop {
            let stats = scheduler.stats();
            if fact(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, holds).await.unwrap_or_else(|_| panic!("never: {:#?}", scheduler.stats()))
}

pub fn within<F: Future>(future: F) -> tokio::time::Timeout<F> {
    tokio::time::timeout(LIMIT, future)
}
