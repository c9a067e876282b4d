//! Durable job queues: priorities, delay, per-key limits and fairness, dedup, expiry, bounds, leases with fencing.
//!
//! A [`Queues`] is opened once per process on a backend; a [`Queue`] is a cheap handle to one named queue. The rules
//! live in the pure state machine `core`, which takes the time as an argument and does no I/O; the backend moves bytes.
//!
//! Contents, in reading order: [`NewJob`] goes in, [`Job`] is what is known about it, [`Claimed`] is the right to run
//! it, [`Finish`] ends it. [`Config`] holds every bound, [`Error`] and [`Rejected`] say why not.

mod alarm;
mod backend;
mod check;
mod clock;
mod config;
mod core;
mod embedded;
mod error;
mod followers;
mod history;
mod id;
mod job;
mod lease;
mod meters;
mod queue;
mod queues;
mod random;
mod record;
mod redis;
mod state;
mod stats;
mod totals;
mod waiting;

pub use clock::{Clock, ManualClock, UnixMillis};
pub use config::{Config, LimitsError, Overflow, QueueConfig};
pub use error::{Error, Rejected};
pub use history::{Change, Transition};
pub use id::{JobId, QueueName};
pub use job::{Backoff, Idempotency, Job, JobFilter, JobPage, NewJob, Pushed};
pub use lease::{Beat, Claim, Claimed, Finish, Lease, Outcome, Progress, Retry, Worker};
pub use queue::Queue;
pub use queues::Queues;
pub use record::TABLES;
pub use redis::redis_reference;
pub use state::State;
pub use stats::{Counts, QueueStats};
