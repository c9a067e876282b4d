//! What can be wrong with a network, and the plan that all connections of a proxy follow.

use std::time::Duration;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// Requests.
    Server,
    /// Replies.
    Client,
}

/// Something that goes wrong in one direction, from when it is set until [`Proxy::heal`](crate::Proxy::heal). Faults of
/// different kinds add up; one of the same kind replaces the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Each connection lets exactly this many bytes pass; the next byte ends it (both directions) instead of passing.
    /// Counted from the connection's start or the last [`Proxy::mark`](crate::Proxy::mark), whichever is later.
    CutAfter(u64),
    /// As `CutAfter`, but both sides see a reset (RST) instead of an end.
    ResetAfter(u64),
    /// Every byte arrives this much later, as over a longer line.
    Delay(Duration),
    /// At most this many bytes per second and connection; more than zero.
    BytesPerSecond(u64),
    /// Bytes are accepted and lost, the end of the stream too. A connection that lost bytes this way is cut by `heal`.
    Blackhole,
    /// Nothing passes, but nothing is lost: `heal` delivers what waited, as after a cable was plugged in again.
    Stall,
    /// The receiver is told the end of the stream and gets no more; the other direction goes on. `heal` cuts a
    /// connection that had more to say.
    HalfClose,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    Reset,
}

/// The faults in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Grows with each mark.
    pub(super) mark: u64,
    ways: [Way; 2],
}

/// The faults of one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    pub(super) cut: Option<(u64, Ending)>,
    /// A cut for whichever connection gets there first.
    pub(super) once: Option<u64>,
    pub(super) delay: Duration,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) is_blackhole: bool,
    pub(super) is_stalled: bool,
    pub(super) is_half_closed: bool,
}

impl Plan {
    pub(super) fn way(&self, toward: Toward) -> &Way {
        &self.ways[toward as usize]
    }

    pub(super) fn way_mut(&mut self, toward: Toward) -> &mut Way {
        &mut self.ways[toward as usize]
    }

    pub(super) fn heal(&mut self) {
        self.ways = Default::default();
    }
}

impl Way {
    pub(super) fn add(&mut self, fault: Fault) {
        match fault {
            Fault::CutAfter(bytes) => self.cut = Some((bytes, Ending::Close)),
            Fault::ResetAfter(bytes) => self.cut = Some((bytes, Ending::Reset)),
            Fault::Delay(delay) => self.delay = delay,
            Fault::BytesPerSecond(bytes) => self.bytes_per_second = Some(bytes.max(1)),
            Fault::Blackhole => self.is_blackhole = true,
            Fault::Stall => self.is_stalled = true,
            Fault::HalfClose => self.is_half_closed = true,
        }
    }

    /// Does it lose what it is given?
    pub(super) fn swallows(&self) -> bool {
        self.is_blackhole || self.is_half_closed
    }
}
