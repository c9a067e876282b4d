//! What wakes the tasks of a backend: something due earlier than upkeep thought, or the end of all waiting.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// Wakes the upkeep task when something is due earlier than it thought, and claims when there is no more waiting.
///
/// Times are milliseconds of whatever clock its owner uses.
pub(crate) struct Alarm {
    /// When the upkeep task will wake by itself.
    armed_at: AtomicI64,
    pub(crate) earlier: Notify,
    draining: AtomicBool,
    pub(crate) drain: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            armed_at: AtomicI64::new(i64::MAX),
            earlier: Notify::new(),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
        }
    }
}

impl Alarm {
    /// From here on, whoever makes anything due wakes the upkeep task.
    pub(crate) fn disarm(&self) {
        self.armed_at.store(i64::MAX, Ordering::Release);
    }

    /// The upkeep task will wake at `at` by itself.
    pub(crate) fn will_wake(&self, at: i64) {
        self.armed_at.fetch_min(at, Ordering::AcqRel);
    }

    /// Makes sure that upkeep runs at `at` or before.
    pub(crate) fn arm(&self, at: i64) {
        if at < self.armed_at.fetch_min(at, Ordering::AcqRel) {
            self.earlier.notify_one();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Lets nobody wait from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.notify_waiters();
    }
}
