//! Redis behind one small surface: errors that tell what happened, scripts, wake-ups, coalescing, health.
//!
//! `fred` is named only in this crate, and in no signature of it.

mod config;
mod redis;

mod script;
mod value;

mod coalesce;
mod delete;
mod durability;
mod health;
mod scan;
mod subscription;

mod acl;
mod error;

pub use acl::acl_line;
pub use coalesce::Coalescer;
pub use config::{BreakerConfig, Config, ConfigError, Topology};
pub use delete::DeleteOptions;
pub use durability::Durability;
pub use error::{Class, Error};
pub use health::{BreakerState, Health, Warning};
pub use redis::Redis;
pub use scan::{Scan, ScanOptions};
pub use script::Script;
pub use subscription::{Signal, Subscription};
pub use value::Value;
