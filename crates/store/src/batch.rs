//! What is written together.

/// A table, by its place in the list the store was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(pub u8);

/// Which way a [range](crate::Store::range) is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the smallest key.
    Forward,
    /// From the greatest key.
    Backward,
}

/// Writes that are applied together or not at all. A later write to a key replaces an earlier one.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) writes: Vec<Write>,
    pub(crate) bytes: usize,
}

/// One write; `value: None` deletes.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Batch {
    /// Room for a value and its key beyond their bytes.
    const OVERHEAD: usize = 64;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`. Keys are 1 to 65 535 bytes, values below 4 GiB.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.push(Write { table, key: key.into(), value: Some(value.into()) });
    }

    /// Deletes `key`, if it is there.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.push(Write { table, key: key.into(), value: None });
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    fn push(&mut self, write: Write) {
        self.bytes += write.key.len() + write.value.as_ref().map_or(0, Vec::len) + Self::OVERHEAD;
        self.writes.push(write);
    }
}
