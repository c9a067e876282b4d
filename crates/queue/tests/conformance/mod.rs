//! What a queue promises, once for every backend. `conformance!(open)` turns each case into a test of the backend that
//! `open` builds; a case never asks which one it is.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use tidegate_queue::{
    Claim, Claimed, Clock, Config, Finish, Lease, ManualClock, NewJob, Outcome, Queue, QueueConfig, QueueName, Queues,
    Retry, State, UnixMillis, Worker,
};

pub mod fairness;
pub mod leases;
pub mod limits;
pub mod looking;
pub mod pushing;
pub mod restart;
pub mod table;

pub type Opening = Pin<Box<dyn Future<Output = Queues>>>;

/// A handle that can be let go of, as a stopped process lets go of everything.
pub struct Held<T>(Option<T>);

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held between starts")
    }
}

/// A backend in a world whose clock is moved by hand.
pub struct World {
    pub queues: Held<Queues>,
    pub queue: Held<Queue>,
    pub clock: ManualClock,
    config: Config,
    reopen: Box<dyn Fn(Config) -> Opening>,
}

impl World {
    /// `open` is called for every start; what it keeps durable it keeps between calls.
    pub async fn new(open: impl Fn(Config) -> Opening + 'static, tune: impl FnOnce(&mut Config)) -> Self {
        let clock = ManualClock::new(UnixMillis(1_700_000_000_000));
        let mut config = Config { clock: Clock::Manual(clock.clone()), seed: Some(1), ..Config::default() };
        tune(&mut config);
        let queues = open(config.clone()).await;
        let queue = queues.queue(&QueueName::new("q").unwrap()).await.unwrap();
        Self { queues: Held(Some(queues)), queue: Held(Some(queue)), clock, config, reopen: Box::new(open) }
    }

    /// Stops and starts again.
    pub async fn restart(&mut self) {
        self.queues.close().await.unwrap();
        (self.queues, self.queue) = (Held(None), Held(None));
        self.queues = Held(Some((self.reopen)(self.config.clone()).await));
        self.switch("q").await;
    }

    /// Goes on with another queue.
    pub async fn switch(&mut self, name: &str) {
        self.queue = Held(Some(self.queues.queue(&QueueName::new(name).unwrap()).await.unwrap()));
    }

    pub async fn push(&self, job: NewJob) -> String {
        self.queue.push(job).await.unwrap().id.to_string()
    }

    pub async fn claim(&self, limit: usize) -> Vec<Claimed> {
        self.claim_as(Worker::remote("w"), limit).await
    }

    pub async fn claim_as(&self, worker: Worker, limit: usize) -> Vec<Claimed> {
        self.queue.claim(Claim { worker, limit, wait: Duration::ZERO }).await.unwrap()
    }

    /// Claims one job that must be there.
    pub async fn one(&self) -> Claimed {
        self.claim(1).await.pop().expect("a job is available")
    }

    pub async fn state(&self, id: &str) -> State {
        self.queues.job(&id.parse().unwrap()).await.unwrap().state
    }

    pub async fn complete(&self, lease: Lease) -> Outcome {
        self.finish(Finish::Complete { lease, result: None }).await
    }

    pub async fn fail(&self, lease: Lease, retry: Retry) -> Outcome {
        self.finish(Finish::Fail { lease, error: "no luck".into(), retry }).await
    }

    pub async fn finish(&self, finish: Finish) -> Outcome {
        self.queue.finish(vec![finish]).await.unwrap()[0]
    }

    pub async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.queue.upkeep().await.unwrap();
    }
}

pub const LEASE: Duration = Duration::from_secs(10);

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn job(kind: &str) -> NewJob {
    NewJob::new(kind, "{}")
}

/// The ids of claimed jobs, in order.
pub fn ids(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|job| job.id.to_string()).collect()
}

/// The kinds of claimed jobs, in order.
pub fn kinds(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|job| job.kind.to_string()).collect()
}

pub fn with(change: impl FnOnce(&mut QueueConfig)) -> impl FnOnce(&mut Config) {
    |config| change(&mut config.default)
}

/// One test per case and backend.
#[macro_export]
macro_rules! conformance {
    ($open:path; $($module:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $case() {
                $crate::conformance::$module::$case($open()).await;
            })+
        })+
    };
}
