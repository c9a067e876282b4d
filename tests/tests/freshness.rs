//! What a cache gives is never older than it promises, whatever breaks: a few dozen seeds of the freshness checker
//! (`cargo run --release -p tidegate-tests --bin freshness` runs as many as you like), and the checker is seen to
//! find planted bugs, in histories made by hand and in live runs.

use std::ops::ControlFlow;
use std::time::Duration;

use tidegate_tests::freshness::{
    Change, Fault, Figures, History, Origin, Plan, Planted, Read, TICK, Violation, What, judge, report, run_all,
};

/// One after the other would take twice as long; more at once would be short of processors.
const AT_ONCE: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_promised_whatever_breaks() {
    let mut figures = Figures::default();
    let mut broken = None;
    run_all((1..=24).map(Plan::of), AT_ONCE, |plan, outcome| {
        figures.add(&outcome.figures);
        if outcome.judged.violations.is_empty() {
            return ControlFlow::Continue(());
        }
        broken = Some(report(plan, &outcome.history, &outcome.judged.violations));
        ControlFlow::Break(())
    })
    .await;
    assert!(broken.is_none(), "{}", broken.unwrap_or_default());
    println!("{figures:#?}");
    // A run that did nothing proves nothing.
    let hits = figures.counters["memory_hits"];
    assert!(figures.reads > 20_000 && hits * 10 > figures.reads && figures.changes_total() > 2000, "{figures:#?}");
    for kind in ["key", "tag", "prefix", "all"] {
        assert!(figures.changes.contains_key(kind), "no change by {kind}: {figures:#?}");
    }
    let broke = Fault::ALL.iter().filter(|fault| figures.faults.contains_key(&format!("{fault:?}"))).count();
    assert!(broke >= 15, "{broke} of {} kinds of faults: {figures:#?}", Fault::ALL.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_promised_when_primaries_of_a_cluster_fail_over() {
    let (mut figures, mut broken) = (Figures::default(), None);
    // Replicas lack what was acknowledged last, and one that stood still thinks that it is primary yet.
    let faults = vec![Fault::Restart, Fault::FreezeRedis, Fault::FreezeNode];
    let plans = (1..=2).map(|seed| {
        let mut plan = Plan::on_cluster(seed);
        plan.faults.clone_from(&faults);
        plan
    });
    run_all(plans, 1, |plan, outcome| {
        figures.add(&outcome.figures);
        if !outcome.judged.violations.is_empty() {
            broken = Some(report(plan, &outcome.history, &outcome.judged.violations));
        }
        ControlFlow::Continue(())
    })
    .await;
    assert!(broken.is_none(), "{}", broken.unwrap_or_default());
    assert!(figures.reads > 1000 && figures.faults.contains_key("Restart"), "{figures:#?}");
}

/// Runs seeds until the checker finds the bug.
async fn finds(planted: Planted, seeds: u64) {
    let mut found = None;
    let mut figures = Figures::default();
    run_all((1..=seeds).map(|seed| Plan::planted(planted, seed)), AT_ONCE, |plan, outcome| {
        figures.add(&outcome.figures);
        let too_old = outcome.judged.violations.iter().filter(|one| matches!(one, Violation::TooOld { .. })).count();
        if too_old == 0 {
            return ControlFlow::Continue(());
        }
        found = Some((plan.seed, too_old));
        ControlFlow::Break(())
    })
    .await;
    println!("{planted:?}: (seed, reads too old) {found:?} after {} seeds", figures.seeds);
    assert!(found.is_some(), "{planted:?} was not found: {figures:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fills_that_nobody_guards_are_found() {
    finds(Planted::NoFillGuard, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_link_that_is_ignored_is_found() {
    finds(Planted::LostLinkIgnored, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_that_is_trusted_is_found() {
    finds(Planted::SilenceTrusted, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_is_not_heard_is_found() {
    finds(Planted::FlushIgnored, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_taken_for_the_one_it_was_is_found() {
    finds(Planted::RestartIgnored, 20).await;
}

// Histories made by hand: times in milliseconds, H is 300.

const H: Duration = Duration::from_millis(300);

fn ms(time: u64) -> u64 {
    time * 1_000_000
}

fn origin(id: u64, tags: &[&str], start: u64, end: Option<u64>) -> Origin {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Origin { node: 0, id, key: "k".to_owned(), tags, start: ms(start), end: end.map(ms) }
}

fn change(node: Option<usize>, what: What, start: u64, end: u64) -> Change {
    Change { node, what, start: ms(start), end: ms(end) }
}

fn read(node: usize, start: u64, id: Option<u64>) -> Read {
    Read { node, key: "k".to_owned(), start: ms(start), end: ms(start + 1), id }
}

fn key() -> What {
    What::Key("k".to_owned())
}

/// Value 1, there at 10, deleted by process 0 from 20 to 30.
fn deleted() -> History {
    let mut history = History::default();
    history.origins.insert(1, origin(1, &["red"], 5, Some(10)));
    history.changes.push(change(Some(0), key(), 20, 30));
    history
}

fn too_old(mut history: History, read: Read) -> bool {
    history.reads.push(read);
    match &judge(&history, H).violations[..] {
        [] => false,
        [Violation::TooOld { .. }] => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_made_a_change_is_given_nothing_older_at_once() {
    assert!(too_old(deleted(), read(0, 31, Some(1))));
    assert!(!too_old(deleted(), read(0, 29, Some(1))), "the change was not acknowledged yet");
}

#[test]
fn others_are_given_nothing_older_after_h() {
    let tick = u64::try_from(TICK.as_millis()).unwrap();
    assert!(!too_old(deleted(), read(1, 329, Some(1))));
    assert!(!too_old(deleted(), read(1, 330 + tick, Some(1))), "the clock is coarse");
    assert!(too_old(deleted(), read(1, 331 + tick, Some(1))));
    let mut by_a_stranger = deleted();
    by_a_stranger.changes[0].node = None;
    assert!(!too_old(by_a_stranger.clone(), read(0, 300, Some(1))), "not its own change");
    assert!(too_old(by_a_stranger, read(0, 400, Some(1))));
}

#[test]
fn what_overlaps_a_change_may_be_newer() {
    let mut late = deleted();
    late.origins.insert(1, origin(1, &[], 5, Some(21)));
    assert!(!too_old(late, read(0, 900, Some(1))));
    let mut unknown = deleted();
    unknown.origins.insert(1, origin(1, &[], 5, None));
    assert!(!too_old(unknown, read(0, 900, Some(1))), "nobody knows when that set was carried out");
}

#[test]
fn wide_changes_count_for_what_they_cover() {
    let by = |what| {
        let mut history = deleted();
        history.changes[0].what = what;
        too_old(history, read(0, 40, Some(1)))
    };
    assert!(by(What::All) && by(What::Prefix("k".to_owned())) && by(What::Tag("red".to_owned())));
    assert!(!by(What::Prefix("kk".to_owned())) && !by(What::Tag("blue".to_owned())));
    assert!(!by(What::Key("other".to_owned())));
}

#[test]
fn one_change_that_is_late_does_not_hide_another() {
    let mut history = deleted();
    history.changes.insert(0, change(Some(0), key(), 15, 5000));
    assert!(too_old(history, read(0, 40, Some(1))));
}

#[test]
fn an_absence_is_judged_like_a_value() {
    let mut history = History::default();
    history.absences.push(origin(2, &[], 10, Some(10)));
    history.changes.push(change(Some(0), key(), 20, 30));
    history.reads.push(read(0, 25, None));
    assert_eq!(judge(&history, H).violations, []);
    history.reads.push(read(0, 40, None));
    assert!(matches!(judge(&history, H).violations[..], [Violation::GoneTooLong { .. }]));
    history.absences.push(origin(3, &[], 35, Some(35)));
    assert_eq!(judge(&history, H).violations, []);
}

#[test]
fn values_of_other_keys_and_bytes_that_nobody_wrote_are_found() {
    let mut history = deleted();
    history.reads.push(Read { key: "other".to_owned(), ..read(0, 12, Some(1)) });
    history.garbled.push("process 0, key k".to_owned());
    let judged = judge(&history, H);
    assert!(matches!(judged.violations[..], [Violation::Garbled(_), Violation::WrongKey { .. }]), "{judged:?}");
}

#[test]
fn lines_of_a_process_are_understood() {
    let mut history = History::default();
    let lines = [
        "v 7 k red,blue 1 2",
        "v 8 k - 1 -",
        "l 9 k - 3",
        "a 10 k red 4",
        "r k 5 6 7",
        "n k 7 8",
        "c all - 9 10",
        "s loads 3",
        "r k 5",
    ];
    history.read(2, &lines.map(str::to_owned));
    assert_eq!(history.origins[&7].tags, ["red", "blue"]);
    assert_eq!((history.origins[&8].end, history.origins[&9].end), (None, Some(3)));
    assert_eq!((history.absences.len(), history.reads.len(), history.counters["loads"]), (1, 2, 3));
    assert_eq!(history.changes, [Change { node: Some(2), what: What::All, start: 9, end: 10 }]);
}
