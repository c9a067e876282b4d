//! Runs jobs that wait in a queue: handlers by kind, worker pool, timeouts, retries, cancel, cron, CPU tasks.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tidegate_queue::{NewJob, QueueName, Queues, TABLES};
//! use tidegate_scheduler::{Config, Context, HandlerError, Scheduler};
//!
//! let registry = tidegate_metrics::Registry::new();
//! let store = tidegate_store::Store::memory(TABLES);
//! let queues = Queues::open(store, tidegate_queue::Config::default(), &registry).await?;
//! let mail = QueueName::new("mail")?;
//!
//! let scheduler = Scheduler::builder(queues.clone(), registry, Config::default())
//!     .serve(mail.clone())
//!     .handle("greet", |_: Context, name: String| async move { Ok::<_, HandlerError>(format!("hello {name}")) })
//!     .start()
//!     .await?;
//!
//! queues.queue(&mail).await?.push(NewJob::new("greet", r#""Ada""#)).await?;
//! let report = scheduler.drain(Duration::from_secs(5)).await;
//! assert_eq!(report.stuck, 0);
//! # Ok(()) }
//! ```
//!
//! Contents, in reading order: [`Scheduler`] is built with handlers, which get a [`Context`] (or, on the
//! [`CpuPool`], a [`CpuContext`]) and answer with a result or a [`HandlerError`]. A [`Cron`] pushes jobs by the clock.
//! [`Stats`] says how it goes, [`DrainReport`] how it ended.

mod builder;
mod scheduler;

mod context;
mod handler;

mod attempt;
mod finish;
mod pump;
mod run;
mod sizing;

mod beat;
mod progress;
mod watch;

mod breaker;
mod cpu;
mod cron;
mod schedule;

mod config;
mod drain;
mod error;
mod stats;

pub use breaker::{BreakerConfig, BreakerState};
pub use builder::Builder;
pub use config::Config;
pub use context::{Context, CpuContext};
pub use cpu::{CpuConfig, CpuError, CpuPool, Interrupt};
pub use cron::{Cron, Missed, ScheduleStats};
pub use drain::DrainReport;
pub use error::Error;
pub use handler::{HandlerError, HandlerResult};
pub use scheduler::Scheduler;
pub use stats::{KindStats, PoolStats, Stats};
