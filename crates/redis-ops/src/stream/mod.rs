//! Streams: ids, entries, and questions about many streams at once.
//!
//! Keys of any other type are no streams: they are absent here, and never deleted.

mod entry;
mod id;
mod info;
mod many;
mod range;
mod scripts;

pub use entry::{AutoClaimed, StreamEntry};
pub use id::{ParseStreamIdError, StreamId};
pub use info::StreamInfo;
pub use range::Order;
