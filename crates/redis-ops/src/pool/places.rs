//! Who has how many: the free list and its counts. No I/O, no clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Wire;
use crate::link::Node;

/// What the pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections open or being dialled; never above [`max`](crate::PoolConfig::max).
    pub total: usize,
    /// Of these, those that somebody has.
    pub in_use: usize,
    /// Of these, those that lie free.
    pub available: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    /// By when they were given back, the oldest first.
    free: VecDeque<Free>,
    in_use: usize,
    closed: bool,
    /// A task closes what lies idle.
    sweeping: bool,
}

#[derive(Debug)]
struct Free {
    wire: Wire,
    since: Instant,
}

/// What a new user of a place gets.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// A free connection to the right node, and since when it lies idle.
    pub(super) wire: Option<(Wire, Instant)>,
    /// Closed, to make room or because they are out of date.
    pub(super) closed: Vec<Wire>,
}

impl Places {
    /// In use, available.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.in_use, self.free.len())
    }

    /// One more user, and for it the free connection to `node` that was used last. Where there is none, room is made for one more.
    pub(super) fn take(&mut self, node: &Arc<Node>, epoch: u64, max: usize) -> Taken {
        let mut taken = Taken::default();
        self.in_use += 1;
        for at in (0..self.free.len()).rev() {
            let wire = &self.free[at].wire;
            if !wire.is_current(epoch) {
                taken.closed.extend(self.free.remove(at).map(|free| free.wire));
            } else if wire.leads_to(node) {
                taken.wire = self.free.remove(at).map(|free| (free.wire, free.since));
                return taken;
            }
        }
        while self.in_use + self.free.len() > max
            && let Some(oldest) = self.free.pop_front()
        {
            taken.closed.push(oldest.wire);
        }
        taken
    }

    /// A user is done. Hands back what is not kept.
    pub(super) fn give_back(&mut self, wire: Option<Wire>, now: Instant) -> Option<Wire> {
        self.in_use -= 1;
        if self.closed {
            return wire;
        }
        self.free.extend(wire.map(|wire| Free { wire, since: now }));
        None
    }

    /// Whether somebody must begin to [`sweep`](Self::sweep), and if so, that somebody is the caller.
    pub(super) fn begin_sweep(&mut self, min: usize) -> bool {
        let begin = !self.sweeping && !self.closed && self.is_above(min);
        self.sweeping |= begin;
        begin
    }

    /// Takes out what has been idle for `limit`, as far as more than `min` are open, and says when to look again; never
    /// when nothing idle is above the minimum.
    pub(super) fn sweep(&mut self, min: usize, limit: Duration, now: Instant) -> (Vec<Wire>, Option<Instant>) {
        let mut closed = Vec::new();
        while self.is_above(min)
            && let Some(oldest) = self.free.front()
        {
            let due = oldest.since + limit;
            if due > now {
                return (closed, Some(due));
            }
            closed.extend(self.free.pop_front().map(|free| free.wire));
        }
        self.sweeping = false;
        (closed, None)
    }

    fn is_above(&self, min: usize) -> bool {
        !self.free.is_empty() && self.in_use + self.free.len() > min
    }

    pub(super) fn close(&mut self) -> Vec<Wire> {
        self.closed = true;
        self.free.drain(..).map(|free| free.wire).collect()
    }
}
