//! Where a sleeping listener is woken.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::StreamName;

/// Sources of one listener at most: a bit each.
pub(crate) const SOURCES_MAX: usize = 256;

/// A set of sources.
pub(crate) type Bits = [u64; SOURCES_MAX / 64];

/// Shared by a listener and the live streams it sits in.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    waker: AtomicWaker,
    /// Sources with news.
    ready: [AtomicU64; SOURCES_MAX / 64],
    /// A sign of life is wanted.
    beat: AtomicBool,
    /// The wheel's tick when something was last sent.
    sent: AtomicU64,
    /// Streams made since that match its patterns; held to add or take them.
    made: Mutex<Vec<StreamName>>,
}

impl Seat {
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// There is news from a source.
    pub(crate) fn wake(&self, source: u32) {
        let source = source as usize;
        self.ready[source / 64].fetch_or(1 << (source % 64), Ordering::Release);
        self.waker.wake();
    }

    /// There is news of another kind.
    pub(crate) fn wake_bare(&self) {
        self.waker.wake();
    }

    pub(crate) fn take_ready(&self) -> Bits {
        self.ready.each_ref().map(|word| match word.load(Ordering::Relaxed) {
            0 => 0,
            _ => word.swap(0, Ordering::Acquire),
        })
    }

    pub(crate) fn want_beat(&self) {
        self.beat.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn take_beat(&self) -> bool {
        self.beat.load(Ordering::Relaxed) && self.beat.swap(false, Ordering::Acquire)
    }

    pub(crate) fn sent_at(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self, tick: u64) {
        self.sent.store(tick, Ordering::Relaxed);
    }

    /// A stream was made. `false`: too many wait to be looked at.
    pub(crate) fn made(&self, stream: &StreamName) -> bool {
        let mut made = self.made.lock();
        if made.len() >= SOURCES_MAX {
            return false;
        }
        made.push(stream.clone());
        drop(made);
        self.waker.wake();
        true
    }

    pub(crate) fn take_made(&self) -> Vec<StreamName> {
        std::mem::take(&mut *self.made.lock())
    }
}
