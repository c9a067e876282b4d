//! Did every listener hear every acknowledged event once, in order, or was told that it would not?

use std::fmt::Write;

use super::crowd::Outcome;
use super::event_id::EventId;
use super::ledger::Ledger;
use super::order::{Faults, Verdict};

/// What is wrong with a crowd's records, summed over all listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) listeners: usize,
    pub(super) faults: Faults,
    /// Acknowledged events not heard, but told to be lost by a gap.
    pub(super) told: u64,
    /// Events heard again after a gap, because what had been heard was lost and published again.
    pub(super) again: u64,
    pub(super) gaps: u64,
    /// Listeners that never stalled, and yet were told a gap.
    pub(super) told_in_time: usize,
    pub(super) acknowledged: u64,
    /// An example of a listener with faults.
    example: String,
}

/// Holds the records against the ledger.
pub(super) fn judge(outcome: &Outcome, ledger: &Ledger) -> Judgement {
    let mut judgement = Judgement {
        listeners: outcome.listeners.len(),
        gaps: outcome.counts.gaps,
        acknowledged: ledger.counts().1,
        ..Judgement::default()
    };
    for (number, record) in outcome.listeners.iter().enumerate() {
        let Verdict { faults, told, again } = record.heard.verdict(ledger, record.stream);
        judgement.told += told;
        judgement.told_in_time += usize::from(!record.is_slow && record.heard.was_told());
        judgement.again += again;
        if faults.sum() > 0 && judgement.example.is_empty() {
            judgement.example = format!("listener {number}: {faults:?}; {}", record.heard.summary());
        }
        judgement.faults.add(faults);
    }
    judgement.faults.misnamed += misnamed(outcome, ledger);
    judgement
}

/// Events heard under two ids, or under another than they were acknowledged with. After a loss that a gap has told, what
/// was sent again has another id by right.
fn misnamed(outcome: &Outcome, ledger: &Ledger) -> u64 {
    let is_excused = |stream: usize, n: u64| outcome.counts.gaps > 0 && ledger.attempts(stream, n) > 1;
    let renamed = outcome.renamed.iter().filter(|(stream, n)| !is_excused(*stream, *n)).count();
    let streams = ledger.ends().len().max(1);
    let of_table = |(table, ids): (usize, &Vec<EventId>)| {
        let stream = table % streams;
        let is_other = |(n, heard): &(usize, &EventId)| {
            let acknowledged = ledger.acknowledged(stream, *n as u64);
            **heard != EventId::default()
                && acknowledged.is_some_and(|id| id != **heard)
                && !is_excused(stream, *n as u64)
        };
        ids.iter().enumerate().filter(is_other).count()
    };
    (renamed + outcome.ids.iter().enumerate().map(of_table).sum::<usize>()) as u64
}

impl Judgement {
    /// Nothing is wrong, and something happened.
    pub(super) fn is_exact(&self) -> bool {
        self.faults.sum() == 0 && self.acknowledged > 0
    }

    /// Two lines; the last says whether it holds.
    pub(super) fn text(&self) -> String {
        let Faults { descending, reordered, repeated, lost, unreadable, misnamed } = self.faults;
        let mut text = format!(
            "checked {} listeners: lost {lost}, repeated {repeated}, late {reordered}, ids not ascending {descending}, \
             wrong ids {misnamed}, unreadable {unreadable}; gaps told {} (events {}, sent again {})\n",
            self.listeners, self.gaps, self.told, self.again
        );
        let verdict = match (self.acknowledged, self.is_exact()) {
            (0, _) => "FAILED: no event was acknowledged".to_owned(),
            (_, true) if self.told > 0 => "every listener heard every acknowledged event once, or was told".to_owned(),
            (_, true) => "every listener heard every acknowledged event once".to_owned(),
            (_, false) => format!("FAILED: {}", self.example),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{verdict}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::crowd::Record;
    use super::super::order::Heard;
    use super::super::reading::Mark;
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    /// One listener of one stream that heard event 0 under `heard`; it was acknowledged as 5-0 at the given attempt.
    fn judged(heard: EventId, attempts: u32, gaps: u64) -> Judgement {
        let mut ledger = Ledger::new(1);
        (0..attempts).for_each(|_| ledger.tried(0, 0));
        ledger.acknowledge(0, 0, id(5));
        let mut listener = Heard::after(None, 0);
        listener.event(Some(heard), Mark { n: 0, at: 0 }, true);
        let mut outcome = Outcome { ids: vec![vec![heard]], ..Outcome::default() };
        outcome.listeners.push(Record { stream: 0, is_slow: false, heard: listener });
        outcome.counts.gaps = gaps;
        judge(&outcome, &ledger)
    }

    #[test]
    fn an_event_heard_as_it_was_acknowledged_is_right() {
        let judgement = judged(id(5), 1, 0);
        assert!(judgement.is_exact(), "{}", judgement.text());
    }

    #[test]
    fn an_event_heard_under_another_id_is_wrong_unless_a_told_loss_explains_it() {
        assert_eq!(judged(id(4), 1, 0).faults.misnamed, 1);
        assert_eq!(judged(id(4), 2, 0).faults.misnamed, 1);
        assert_eq!(judged(id(4), 1, 1).faults.misnamed, 1);
        assert!(judged(id(4), 2, 1).is_exact());
    }

    #[test]
    fn nothing_acknowledged_is_a_failure() {
        let judgement = judge(&Outcome::default(), &Ledger::new(1));
        assert!(!judgement.is_exact());
        assert!(judgement.text().contains("FAILED"));
    }
}
