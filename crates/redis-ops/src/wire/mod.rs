//! The wire: bytes, streams, connections, and where keys live. No policy: nothing here repeats, waits or gives up by
//! itself.
//!
//! Why our own and not a client crate, see ARCHITECTURE.md, "Redis".

mod connection;
mod dial;
mod resp;
mod sentinel;
mod single;
mod slots;
mod stream;

pub(crate) use connection::{Connection, Request};
pub(crate) use dial::{Dialer, Opened, exchange};
pub(crate) use resp::{Parser, encode};
pub(crate) use single::Single;
pub(crate) use slots::{SlotMap, parse_slots, slot_of};
pub(crate) use stream::Stream;
