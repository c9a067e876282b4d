//! What the publisher knows: every event it sent, how often, and the id it was acknowledged with.

use super::event_id::EventId;

/// Events of all streams, by number.
#[derive(Debug)]
pub(super) struct Ledger {
    streams: Vec<Vec<Entry>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    attempts: u32,
    id: Option<EventId>,
}

impl Ledger {
    pub(super) fn new(streams: usize) -> Self {
        Self { streams: vec![Vec::new(); streams] }
    }

    /// An attempt to publish event `n` begins.
    pub(super) fn tried(&mut self, stream: usize, n: u64) {
        let entries = &mut self.streams[stream];
        let at = n as usize;
        if entries.len() <= at {
            entries.resize(at + 1, Entry::default());
        }
        entries[at].attempts += 1;
    }

    pub(super) fn acknowledge(&mut self, stream: usize, n: u64, id: EventId) {
        self.streams[stream][n as usize].id = Some(id);
    }

    /// The number after the last that was tried.
    pub(super) fn published(&self, stream: usize) -> u64 {
        self.streams[stream].len() as u64
    }

    /// The id of an acknowledged event.
    pub(super) fn acknowledged(&self, stream: usize, n: u64) -> Option<EventId> {
        self.streams[stream].get(n as usize)?.id
    }

    pub(super) fn attempts(&self, stream: usize, n: u64) -> u32 {
        self.streams[stream].get(n as usize).map_or(0, |entry| entry.attempts)
    }

    /// Events tried, acknowledged, and tried more than once.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let all = || self.streams.iter().flatten().filter(|entry| entry.attempts > 0);
        let acknowledged = all().filter(|entry| entry.id.is_some()).count() as u64;
        let again = all().filter(|entry| entry.attempts > 1).count() as u64;
        (all().count() as u64, acknowledged, again)
    }

    /// Where each stream ends: what a listener that has heard everything expects next.
    pub(super) fn ends(&self) -> Vec<u64> {
        self.streams.iter().map(|entries| entries.len() as u64).collect()
    }
}
