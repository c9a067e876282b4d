//! How many jobs may run at once: a pure rule that follows depth × mean service time between two bounds.
//!
//! Growing: what waits should be started within `target_wait`, so `depth × mean / target_wait` permits are wanted.
//! While nothing waits there is always one permit more than jobs running, so the next job finds a waiting claim.
//! When the rule says that those running will do and none of them ends within `target_wait`, one permit is added:
//! a long job never makes short ones wait behind it while the pool may still grow.
//!
//! Shrinking: each job that ends while nothing waits takes its permit with it. No timer is needed, and an idle pool is
//! back at its minimum.

use std::time::Duration;

/// Weight of the newest service time in the mean: about the last sixteen jobs count.
const NEWEST: f64 = 1.0 / 8.0;

#[derive(Debug)]
pub(crate) struct Sizing {
    min: usize,
    max: usize,
    target_wait: f64,
    /// Seconds; unknown before the first job ended.
    mean: Option<f64>,
    size: usize,
    /// Whether jobs waited when last looked at.
    backlog: bool,
}

impl Sizing {
    pub(crate) fn new(min: usize, max: usize, target_wait: Duration) -> Self {
        Self { min, max, target_wait: target_wait.as_secs_f64(), mean: None, size: min, backlog: false }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn free(&self, busy: usize) -> usize {
        self.size.saturating_sub(busy)
    }

    /// Jobs wait, all permits are taken, and the rule does not ask for more: worth a look after `target_wait`.
    pub(crate) fn may_stall(&self, busy: usize) -> bool {
        self.backlog && self.size < self.max && self.free(busy) == 0
    }

    pub(crate) fn can_grow(&self) -> bool {
        self.size < self.max
    }

    /// This many jobs are waiting.
    pub(crate) fn depth(&mut self, busy: usize, depth: u64) {
        self.backlog = depth > 0;
        let wanted = if depth == 0 { busy + 1 } else { self.wanted(busy, depth) };
        // Down one at a time: the next burst is likely to come soon.
        let size = if wanted < self.size { self.size - 1 } else { wanted };
        self.size = size.clamp(self.min, self.max);
    }

    /// A claim took everything there was.
    pub(crate) fn emptied(&mut self, busy: usize) {
        self.backlog = false;
        self.size = self.size.max(busy + 1).clamp(self.min, self.max);
    }

    /// Jobs wait and none ended for `target_wait`.
    pub(crate) fn stalled(&mut self, busy: usize) {
        self.size = self.size.max(busy + 1).clamp(self.min, self.max);
    }

    /// A job ended after `service`; `busy` no longer counts it.
    pub(crate) fn ended(&mut self, busy: usize, service: Duration) {
        let service = service.as_secs_f64();
        self.mean = Some(self.mean.map_or(service, |mean| mean + (service - mean) * NEWEST));
        if !self.backlog {
            self.size = (busy + 1).clamp(self.min, self.max);
        }
    }

    fn wanted(&self, busy: usize, depth: u64) -> usize {
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        match self.mean {
            None => busy.saturating_add(depth),
            // Saturates for absurd values.
            Some(mean) => (depth as f64 * mean / self.target_wait).ceil() as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_unknown_kind_of_work_gets_all_it_may() {
        let mut sizing = Sizing::new(1, 10, 100 * MS);
        sizing.depth(1, 50);
        assert_eq!(sizing.size(), 10);
    }

    #[test]
    fn short_jobs_need_few_permits_and_long_ones_many() {
        let mut sizing = Sizing::new(1, 10, 100 * MS);
        sizing.ended(0, MS);
        sizing.depth(1, 300);
        assert_eq!(sizing.size(), 3);
        sizing.depth(3, 3000);
        assert_eq!(sizing.size(), 10);
    }

    #[test]
    fn a_long_job_does_not_keep_short_ones_waiting() {
        let mut sizing = Sizing::new(1, 10, 100 * MS);
        sizing.ended(0, MS);
        sizing.depth(1, 2);
        assert_eq!(sizing.free(1), 0);
        assert!(sizing.may_stall(1));
        sizing.stalled(1);
        assert_eq!(sizing.free(1), 1);
    }

    #[test]
    fn permits_leave_with_the_jobs_when_nothing_waits() {
        let mut sizing = Sizing::new(2, 10, 100 * MS);
        sizing.depth(2, 100);
        assert_eq!(sizing.size(), 10);
        sizing.emptied(10);
        for busy in (0..10).rev() {
            sizing.ended(busy, 100 * MS);
            assert_eq!(sizing.size(), (busy + 1).max(2));
        }
    }

    proptest! {
        #[test]
        fn stays_between_its_bounds_and_never_lets_an_empty_queue_without_a_waiting_claim(
            events in prop::collection::vec((0u8..4, 0u64..5000, 0u64..100_000), 1..300)
        ) {
            let mut sizing = Sizing::new(2, 16, 100 * MS);
            let mut busy = 0usize;
            for (what, depth, micros) in events {
                match what {
                    0 => sizing.depth(busy, depth),
                    1 => { busy += sizing.free(busy); sizing.depth(busy, depth); }
                    2 => { if sizing.free(busy) > 0 { busy += sizing.free(busy) - 1; } sizing.emptied(busy); }
                    _ if busy > 0 => { busy -= 1; sizing.ended(busy, Duration::from_micros(micros)); }
                    _ => {}
                }
                prop_assert!((2..=16).contains(&sizing.size()));
                let waits_or_full = sizing.free(busy) > 0 || sizing.may_stall(busy) || busy >= 16;
                prop_assert!(waits_or_full, "{sizing:?} busy {busy}");
            }
        }
    }
}
