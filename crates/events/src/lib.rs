//! Durable event streams: publish, replay from an id or a time, listeners with exact resume, consumer groups.
//!
//! A [`Bus`] is opened once per process, on the embedded store or on Redis. A stream is a log of events with ascending
//! ids; a listener is a cursor over it, so live and replay are the same read and there is no seam to lose events in.
//!
//! Contents, in reading order: [`NewEvent`] goes in, [`Event`] is what is kept, [`Listener`] hears them, [`Group`] shares
//! them among consumers, [`Consumer`] runs handlers. [`Config`] holds every bound, [`Error`] says why not.

mod backend;
mod bus;
mod clock;
mod config;
mod consumer;
mod cursor;
mod embedded;
mod error;
mod event;
mod frame;
mod group;
mod hub;
mod id;
mod name;
mod pattern;
mod record;
mod redis;
mod router;
mod stats;
mod stream;

pub use bus::Bus;
pub use clock::{Clock, ManualClock};
pub use config::{Config, Retention};
pub use consumer::{Consumed, Consumer, ConsumerBuilder, ConsumerConfig, ConsumerStats};
pub use cursor::Cursor;
pub use error::Error;
pub use event::{Event, NewEvent, Published};
pub use group::{Claim, Delivery, Failed, Group, GroupInfo, Pending};
pub use hub::{Gap, GapReason, Heard, Listen, Listener, Slow, Source};
pub use id::EventId;
pub use name::{GroupName, StreamName};
pub use pattern::Pattern;
pub use record::TABLES;
pub use redis::redis_reference;
pub use stats::Stats;
pub use stream::{Order, Page, Read, StreamInfo, StreamPage, Trim};
