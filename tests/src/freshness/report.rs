//! A broken promise as a person wants to see it: the seed, and what happened to the key.

use std::fmt::Write as _;

use super::history::{Change, History, Origin, Read};
use super::judge::Violation;
use super::plan::Plan;

/// Lines shown around the evidence.
const LINES_MAX: usize = 60;
/// 50 ms before the value was made, and after it was given, in nanoseconds.
const AROUND: u64 = 50_000_000;

/// Tells the first broken promises of a run, each with the history of its key in milliseconds from when the value was made.
#[must_use]
pub fn report(plan: &Plan, history: &History, violations: &[Violation]) -> String {
    let mut text = format!("{} violations with {plan:?}\n", violations.len());
    for violation in violations.iter().take(3) {
        let shown = match violation {
            Violation::TooOld { read, origin, change } => told(history, read, Some(origin), Some(change)),
            Violation::GoneTooLong { read } => told(history, read, None, None),
            Violation::WrongKey { read, origin } => told(history, read, Some(origin), None),
            Violation::Garbled(what) => format!("bytes that nobody wrote: {what}\n"),
        };
        text.push_str(&shown);
    }
    text
}

fn told(history: &History, read: &Read, origin: Option<&Origin>, change: Option<&Change>) -> String {
    let zero = origin.map_or(read.start.saturating_sub(1_000_000_000), |origin| origin.start);
    let at = |time: u64| format!("{:>9.3}", (time as f64 - zero as f64) / 1e6);
    let mut text = format!(
        "process {} asked for {} at {} and was given {:?} at {}\n",
        read.node,
        read.key,
        at(read.start),
        read.id,
        at(read.end)
    );
    if let Some(origin) = origin {
        let _ = writeln!(
            text,
            "  made by process {} for {} with {:?}, done at {:?}",
            origin.node,
            origin.key,
            origin.tags,
            origin.end.map(at)
        );
    }
    if let Some(change) = change {
        let _ = writeln!(
            text,
            "  changed by {:?}: {:?} from {} to {}",
            change.node,
            change.what,
            at(change.start),
            at(change.end)
        );
    }
    let span = zero.saturating_sub(AROUND)..read.end + AROUND;
    let mut lines: Vec<(u64, String)> = lines_about(history, read);
    lines.retain(|(time, _)| span.contains(time));
    lines.sort();
    let many = lines.len();
    for (number, (time, line)) in lines.into_iter().enumerate() {
        if number == LINES_MAX / 2 && many > LINES_MAX {
            let _ = writeln!(text, "            … {} more …", many - LINES_MAX);
        }
        if number < LINES_MAX / 2 || number + LINES_MAX / 2 >= many {
            let _ = writeln!(text, "  {} {line}", at(time));
        }
    }
    text
}

/// Everything about the key, without other reads of other values: there are too many.
fn lines_about(history: &History, read: &Read) -> Vec<(u64, String)> {
    let mut lines: Vec<(u64, String)> = history.faults.clone();
    let changes = history.changes.iter().filter(|change| {
        let tags = read.id.and_then(|id| history.origins.get(&id)).map_or(&[][..], |origin| &origin.tags);
        change.what.covers(&read.key, tags)
    });
    for change in changes {
        lines.push((change.start, format!("process {:?} changes {:?}", change.node, change.what)));
        lines.push((change.end, format!("process {:?} has changed {:?}", change.node, change.what)));
    }
    for origin in history.origins.values().filter(|origin| origin.key == read.key) {
        lines.push((origin.start, format!("process {} makes {} with {:?}", origin.node, origin.id, origin.tags)));
    }
    for origin in history.absences.iter().filter(|origin| origin.key == read.key) {
        lines.push((origin.start, format!("process {} finds nothing, with {:?}", origin.node, origin.tags)));
    }
    let same = |other: &&Read| other.key == read.key && (other.id == read.id || other.node == read.node);
    for other in history.reads.iter().filter(same) {
        let took = (other.end - other.start) / 1_000_000;
        lines.push((other.start, format!("process {} asks and is given {:?} after {took} ms", other.node, other.id)));
    }
    lines
}
