//! Keys by cursor: never `KEYS`, one page in memory.

use bytes::Bytes;

use crate::error::Error;

/// How to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// How many slots of the key table Redis looks at per call. 100.
    pub count: u32,
    /// Only keys of this type: `string`, `hash`, `zset`, `list`, `set`, `stream`.
    pub kind: Option<&'static str>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { count: 100, kind: None }
    }
}

/// A walk over keys, page by page.
#[derive(Debug)]
pub struct Scan {}

impl Scan {
    /// The next keys; `None` at the end. A page may be empty. A key may come twice, as `SCAN` promises no more.
    pub async fn next_page(&mut self) -> Option<Result<Vec<Bytes>, Error>> {
        Some(Err(Error::not_connected("not written yet")))
    }
}
