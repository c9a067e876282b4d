//! What happened, as lines on the output.

use std::fmt::{Arguments, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};

/// Lines are given away from this many bytes on: a process that is killed takes few of them along.
const CHUNK: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<String>);

impl Record {
    pub(crate) fn tell(&self, line: Arguments<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A string takes everything.
        let _ = writeln!(lines, "{line}");
        if lines.len() >= CHUNK {
            give(&mut lines);
        }
    }

    /// Says it at once, after everything that was told.
    pub(crate) fn say(&self, line: Arguments<'_>) {
        self.tell(line);
        give(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A checker that does not listen any more is gone, and so will this process be.
fn give(lines: &mut String) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    lines.clear();
}

/// Nanoseconds of the clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
