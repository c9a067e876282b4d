//! The embedded durable store: tables of bytes, group commit, and recovery that never loses silently.
//!
//! [`Store::open`] keeps its tables in a folder; [`Store::memory`] keeps them nowhere, for tests. Writes are gathered
//! in a [`Batch`], applied atomically and in the order of submission; a [`Ticket`] tells when one is as durable as
//! [`Durability`] promises. What is *not* here: any order other than that of keys, and any knowledge of what is kept.
//! The engine (fjall) is named in `disk.rs` and, for what its files look like, in `journal.rs` and `layout.rs` only.

mod batch;
mod config;
mod disk;
mod ending;
mod error;
mod folder;
mod head;
mod journal;
mod layout;
mod memory;
mod recovery;
mod store;
mod writer;

pub use batch::{Batch, Order, Table};
pub use config::{Config, Durability};
pub use error::Error;
pub use store::{Store, Ticket};
