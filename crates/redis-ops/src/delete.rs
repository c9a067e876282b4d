//! Deleting what matches a pattern without stalling anybody.

/// How to delete many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Keys per `UNLINK`. 1000: 10 000 brings the stall of `KEYS` + `DEL` back.
    pub batch: usize,
    /// `COUNT` of the `SCAN` calls. 1000.
    pub count: u32,
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self { batch: 1000, count: 1000 }
    }
}
