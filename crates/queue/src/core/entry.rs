//! A live job in memory, and the slab that holds them all.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;

use crate::State;

/// A payload: here, or in its own table with this length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    Here(Bytes),
    Apart(u32),
}

impl Payload {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Apart(length) => *length as usize,
        }
    }
}

/// What was submitted; never changes but for `expires_at`, which a retry by hand lifts.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Arc<str>,
    pub(crate) data: Payload,
    pub(crate) key: Option<Arc<str>>,
    /// The key and the end of its window.
    pub(crate) dedup: Option<Box<(Arc<str>, i64)>>,
    pub(crate) created_at: i64,
    /// `i64::MAX`: never.
    pub(crate) expires_at: i64,
    pub(crate) timeout_ms: u64,
    pub(crate) backoff_base_ms: u64,
    pub(crate) backoff_cap_ms: u64,
    pub(crate) retention_ms: u64,
    pub(crate) max_attempts: u16,
    pub(crate) priority: u8,
}

impl Spec {
    /// Bytes counted against the queue's bound.
    pub(crate) fn weight(&self) -> u64 {
        let key = self.key.as_ref().map_or(0, |key| key.len());
        let dedup = self.dedup.as_ref().map_or(0, |dedup| dedup.0.len());
        (self.data.len() + self.kind.len() + key + dedup) as u64
    }
}

/// A live job.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) spec: Spec,
    pub(crate) state: State,
    /// `run_at` when scheduled or retryable, available since, or the lease's expiry when running.
    pub(crate) at: i64,
    /// Of the latest attempt; 0 before the first.
    pub(crate) started_at: i64,
    /// Of the running attempt.
    pub(crate) deadline: i64,
    /// The grant it runs under; when it does not run, the last one that concerned it.
    pub(crate) grant: u64,
    /// Its place in the line, or that of its lane when it last stood there; 0 until it has had one. Kept while it runs, for
    /// when it comes back unfinished.
    pub(crate) turn: i64,
    /// Its lane while it is available or running and has a key.
    pub(crate) lane: Option<u32>,
    pub(crate) attempt: u16,
    pub(crate) cancelling: bool,
    /// Its last lease ran out, failed or was given back, and a crash could still forget that.
    pub(crate) rescued: bool,
    pub(crate) error: Option<Arc<str>>,
    /// Progress and note of the running attempt.
    pub(crate) report: Option<Box<(f64, Option<Arc<str>>)>>,
}

impl Entry {
    pub(crate) fn new(number: u64, spec: Spec, state: State, at: i64) -> Self {
        Self {
            number,
            spec,
            state,
            at,
            started_at: 0,
            deadline: 0,
            grant: 0,
            turn: 0,
            lane: None,
            attempt: 0,
            cancelling: false,
            rescued: false,
            error: None,
            report: None,
        }
    }
}

/// Entries in one piece of the slab. Pieces never move, so growing never copies what is there.
const PIECE: usize = 1024;

/// Live jobs under small indices that stay put, found by number.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    pieces: Vec<Vec<Option<Entry>>>,
    free: Vec<u32>,
    by_number: HashMap<u64, u32>,
}

impl Slab {
    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn find(&self, number: u64) -> Option<u32> {
        self.by_number.get(&number).copied()
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> u32 {
        let number = entry.number;
        let index = match self.free.pop() {
            Some(index) => {
                self.pieces[index as usize / PIECE][index as usize % PIECE] = Some(entry);
                index
            }
            None => self.append(entry),
        };
        self.by_number.insert(number, index);
        index
    }

    fn append(&mut self, entry: Entry) -> u32 {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let full = (self.pieces.len() - 1) * PIECE;
        let Some(piece) = self.pieces.last_mut() else { return u32::MAX };
        piece.push(Some(entry));
        // Fewer than 2^32 live jobs: their entries alone would take a terabyte.
        u32::try_from(full + piece.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes an entry out; its memory is used again.
    pub(crate) fn remove(&mut self, index: u32) -> Option<Entry> {
        let entry = self.pieces.get_mut(index as usize / PIECE)?.get_mut(index as usize % PIECE)?.take()?;
        self.by_number.remove(&entry.number);
        self.free.push(index);
        if self.by_number.is_empty() {
            *self = Self::default();
        }
        Some(entry)
    }
}

impl Index<u32> for Slab {
    type Output = Entry;

    fn index(&self, index: u32) -> &Entry {
        let entry = self.pieces[index as usize / PIECE][index as usize % PIECE].as_ref();
        entry.expect("an index is used only while its entry lives")
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, index: u32) -> &mut Entry {
        let entry = self.pieces[index as usize / PIECE][index as usize % PIECE].as_mut();
        entry.expect("an index is used only while its entry lives")
    }
}
