//! Harness for journeys over HTTP: starts the real binary, talks to it as any client would, kills it, and checks
//! recorded histories against the promises. It depends on no product crate.

mod api;
mod binary;
mod browser;
mod checker;
mod client;
mod disk;
pub mod freshness;
mod gateway;
mod history;
mod process;
mod raw;
mod reply;
mod server;
mod soak;
mod sse;
mod streams;
mod wait;

pub use api::{Claimed, Claims, JobList, JobView, Submitted, Worked, comparing_job, endless_job};
pub use binary::{Exit, repository, run};
pub use browser::Browser;
pub use checker::{Judged, Violation, check, check_failovers};
pub use client::{Call, Client, Failure, Payload};
pub use disk::SmallDisk;
pub use gateway::Gateway;
pub use history::{Answer, Event, Finish, History, Recorder, Stamp};
pub use process::Process;
pub use raw::RawConnection;
pub use reply::Reply;
pub use server::{Builder, Server};
pub use soak::{Figures, Place, Plan, Plant, Soak};
pub use sse::{SseEvent, SseReader};
pub use streams::{Delivered, DeliveredEvent, EventView, PendingView, StreamList, StreamView, place, stream_path};
pub use wait::{eventually, within};
