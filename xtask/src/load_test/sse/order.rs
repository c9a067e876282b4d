//! What one listener has heard of its stream, checked event by event: ids ascend, numbers have no hole and none comes
//! twice, unless a gap was told.

use std::ops::Range;

use super::event_id::EventId;
use super::ledger::Ledger;
use super::reading::Mark;

/// Kept for the report, of each kind and listener; beyond, they are only counted.
const KEPT_MAX: usize = 100;

/// A listener's record. It holds memory only for what went wrong.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Number of the event expected next.
    next: u64,
    /// Where to come back: the last id seen.
    last: Option<EventId>,
    /// Numbers passed over.
    missing: Vec<Range<u64>>,
    /// Ranges told to be lost, each as (before the first, last).
    told: Vec<(EventId, EventId)>,
    /// Events that came again although they had come before.
    again: Vec<Again>,
    faults: Faults,
}

#[derive(Clone, Copy, Debug)]
struct Again {
    n: u64,
    /// Did it come after a gap? Then what had come before may have been lost, and been published again.
    after_gap: bool,
}

/// What no gap excuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Events whose id is not above the one before.
    pub(super) descending: u64,
    /// Events with a number that had been passed over: they came late.
    pub(super) reordered: u64,
    /// Events that came again.
    pub(super) repeated: u64,
    /// Acknowledged events that never came and were not told to be lost.
    pub(super) lost: u64,
    /// Events without id, or with data nobody published, or gaps that do not say their range.
    pub(super) unreadable: u64,
    /// Events that came with another id than they were acknowledged with.
    pub(super) misnamed: u64,
}

impl Faults {
    pub(super) fn sum(&self) -> u64 {
        let Self { descending, reordered, repeated, lost, unreadable, misnamed } = self;
        descending + reordered + repeated + lost + unreadable + misnamed
    }

    pub(super) fn add(&mut self, other: Self) {
        self.descending += other.descending;
        self.reordered += other.reordered;
        self.repeated += other.repeated;
        self.lost += other.lost;
        self.unreadable += other.unreadable;
        self.misnamed += other.misnamed;
    }
}

/// What a listener's record says, held against what was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) faults: Faults,
    /// Acknowledged events that did not come, and were told to be lost.
    pub(super) told: u64,
    /// Events that came again after a gap had told of a loss, because the publisher had to send them again.
    pub(super) again: u64,
}

impl Heard {
    /// Begins after the event `last`; the next is number `next`.
    pub(super) fn after(last: Option<EventId>, next: u64) -> Self {
        Self { next, last, missing: Vec::new(), told: Vec::new(), again: Vec::new(), faults: Faults::default() }
    }

    pub(super) fn last(&self) -> Option<EventId> {
        self.last
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// An event of ours. `has_id`: whether this server's ids are to be checked.
    pub(super) fn event(&mut self, id: Option<EventId>, mark: Mark, has_id: bool) {
        match id {
            Some(id) => {
                self.faults.descending += u64::from(self.last.is_some_and(|last| id <= last));
                self.last = Some(id);
            }
            None => self.faults.unreadable += u64::from(has_id),
        }
        let n = mark.n;
        if n == self.next {
            self.next += 1;
        } else if n > self.next {
            self.missing.push(self.next..n);
            self.next = n + 1;
        } else if let Some(at) = self.missing.iter().position(|range| range.contains(&n)) {
            self.faults.reordered += 1;
            let range = self.missing.swap_remove(at);
            self.missing.extend([range.start..n, n + 1..range.end].into_iter().filter(|part| !part.is_empty()));
        } else if self.again.len() < KEPT_MAX {
            self.again.push(Again { n, after_gap: !self.told.is_empty() });
        } else {
            self.faults.repeated += 1;
        }
    }

    /// History after `from` up to `to` is told to be lost; of a rewound stream `to` is before `from`, and what was heard
    /// between is no longer there.
    pub(super) fn gap(&mut self, range: Option<(EventId, EventId)>) {
        let Some((from, to)) = range else {
            self.faults.unreadable += 1;
            return;
        };
        self.told.push((from.min(to), from.max(to)));
        self.last = Some(to);
    }

    /// Where the server says that this listener is. Were it wrong, the numbers of events would show it.
    pub(super) fn place(&mut self, id: EventId) {
        self.last = Some(id);
    }

    /// A frame that is no event of ours and no gap.
    pub(super) fn unreadable(&mut self) {
        self.faults.unreadable += 1;
    }

    /// Was any history told to be missing?
    pub(super) fn was_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// For a report of what is wrong.
    pub(super) fn summary(&self) -> String {
        let first = |ranges: &[Range<u64>]| ranges.iter().take(5).map(|range| format!("{range:?}")).collect::<Vec<_>>();
        let last = self.last.unwrap_or_default();
        let again: Vec<u64> = self.again.iter().take(5).map(|again| again.n).collect();
        let told: Vec<String> = self.told.iter().take(5).map(|(from, to)| format!("{from}…{to}")).collect();
        format!(
            "next {}, last id {last}, passed over {:?}, again {again:?}, gaps {told:?}",
            self.next,
            first(&self.missing)
        )
    }

    /// Every event acknowledged in `ledger`, for stream `stream`, came once or was told to be lost; one not acknowledged
    /// came at most once.
    pub(super) fn verdict(&self, ledger: &Ledger, stream: usize) -> Verdict {
        let mut verdict = Verdict { faults: self.faults, ..Verdict::default() };
        let rest = self.next..ledger.published(stream).max(self.next);
        for n in self.missing.iter().cloned().chain([rest]).flatten() {
            let Some(id) = ledger.acknowledged(stream, n) else { continue };
            if self.told.iter().any(|(from, to)| *from < id && id <= *to) {
                verdict.told += 1;
            } else {
                verdict.faults.lost += 1;
            }
        }
        for again in &self.again {
            if again.after_gap && ledger.attempts(stream, again.n) > 1 {
                verdict.again += 1;
            } else {
                verdict.faults.repeated += 1;
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    /// Events 1 to 9 with ids 10 to 90, all acknowledged at the first attempt; 0 is the start.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(1);
        (0..10).for_each(|n| {
            ledger.tried(0, n);
            ledger.acknowledge(0, n, id(10 * n));
        });
        ledger
    }

    fn heard(numbers: impl IntoIterator<Item = u64>) -> Heard {
        let mut heard = Heard::after(Some(id(0)), 1);
        numbers.into_iter().for_each(|n| heard.event(Some(id(10 * n)), Mark { n, at: 0 }, true));
        heard
    }

    fn faults(numbers: impl IntoIterator<Item = u64>) -> Faults {
        heard(numbers).verdict(&ledger(), 0).faults
    }

    #[test]
    fn all_events_in_order_are_no_fault() {
        assert_eq!(heard(1..10).verdict(&ledger(), 0), Verdict::default());
    }

    #[test]
    fn a_hole_is_a_loss_at_the_start_amid_and_at_the_end() {
        for absent in 1..10 {
            let heard = (1..10).filter(|n| *n != absent);
            assert_eq!(faults(heard), Faults { lost: 1, ..Faults::default() }, "without {absent}");
        }
        assert_eq!(faults([]).lost, 9);
    }

    #[test]
    fn a_repeat_is_found_with_the_same_id_and_with_another() {
        let same = faults((1..5).chain([4]).chain(5..10));
        assert_eq!(same, Faults { repeated: 1, descending: 1, ..Faults::default() });
        let mut heard = heard(1..10);
        heard.event(Some(id(95)), Mark { n: 4, at: 0 }, true);
        assert_eq!(heard.verdict(&ledger(), 0).faults, Faults { repeated: 1, ..Faults::default() });
    }

    #[test]
    fn a_swap_is_found() {
        let swapped = faults([1, 2, 4, 3, 5, 6, 7, 8, 9]);
        assert_eq!(swapped, Faults { reordered: 1, descending: 1, ..Faults::default() });
    }

    #[test]
    fn a_told_gap_takes_exactly_its_range_out() {
        let listener = |from, to| {
            let mut heard = heard([1, 2]);
            heard.gap(Some((id(from), id(to))));
            (6..10).for_each(|n| heard.event(Some(id(10 * n)), Mark { n, at: 0 }, true));
            heard.verdict(&ledger(), 0)
        };
        assert_eq!(listener(20, 59), Verdict { told: 3, ..Verdict::default() });
        assert_eq!(listener(20, 49).faults.lost, 1, "what the gap does not cover is lost");
        assert_eq!(listener(30, 59).faults.lost, 1, "`from` itself is not covered");
    }

    #[test]
    fn a_rewound_stream_may_bring_again_only_what_was_sent_again() {
        let mut ledger = ledger();
        ledger.tried(0, 9);
        let mut heard = heard(1..10);
        heard.gap(Some((id(90), id(85))));
        heard.event(Some(id(88)), Mark { n: 9, at: 0 }, true);
        assert_eq!(heard.verdict(&ledger, 0), Verdict { again: 1, ..Verdict::default() });
        heard.event(Some(id(89)), Mark { n: 8, at: 0 }, true);
        assert_eq!(heard.verdict(&ledger, 0).faults.repeated, 1);
    }

    #[test]
    fn what_was_never_acknowledged_may_be_absent() {
        let mut ledger = ledger();
        ledger.tried(0, 10);
        ledger.tried(0, 11);
        ledger.acknowledge(0, 11, id(110));
        let heard = heard((1..10).chain([11]));
        assert_eq!(heard.verdict(&ledger, 0), Verdict::default());
    }

    #[test]
    fn ids_are_asked_for_only_where_they_are_known_to_be_there() {
        let mut heard = Heard::after(None, 0);
        heard.event(None, Mark { n: 0, at: 0 }, false);
        assert_eq!(heard.faults, Faults::default());
        heard.event(None, Mark { n: 1, at: 0 }, true);
        heard.gap(None);
        assert_eq!(heard.faults.unreadable, 2);
    }
}
