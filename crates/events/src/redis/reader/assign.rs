//! Which live streams are read directly, and which are rung for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::{Reader, same, stay};
use crate::StreamName;
use crate::hub::Live;

/// Between two looks at what is live. 5 ms: when thousands come and go, the blocked read is not broken off for each.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a key that is no stream is left out.
const SPOILED: Duration = Duration::from_secs(10);

/// The live streams, divided.
#[derive(Clone, Default)]
pub(super) struct Assigned {
    pub(super) direct: Arc<[Arc<Live>]>,
    pub(super) rung: Arc<[Arc<Live>]>,
    /// Whether the bell is to be heard.
    pub(super) listens: bool,
    /// Whether streams made by others are wanted.
    pub(super) follows_patterns: bool,
}

/// What the parts that read have found out.
#[derive(Default)]
pub(super) struct Wishes {
    /// Held to note or to look.
    noted: Mutex<Noted>,
    changed: Notify,
}

#[derive(Default)]
struct Noted {
    /// Streams others write to, and when that was last seen.
    foreign: HashMap<StreamName, Instant>,
    /// Keys that are no streams, and until when they are left out.
    spoiled: HashMap<StreamName, Instant>,
}

impl Wishes {
    /// Others write to this stream without ringing.
    pub(super) fn is_foreign(&self, stream: &StreamName) {
        let mut noted = self.noted.lock();
        if noted.foreign.insert(stream.clone(), Instant::now()).is_none() {
            self.changed.notify_one();
        }
    }

    /// The key is no stream: reading it among others would spoil the read for all.
    pub(super) fn is_spoiled(&self, stream: &StreamName) {
        self.noted.lock().spoiled.insert(stream.clone(), Instant::now() + SPOILED);
        self.changed.notify_one();
    }
}

pub(super) async fn run(reader: Arc<Reader>, assigned: watch::Sender<Assigned>) {
    let mut changes = reader.shared.hub.changes();
    loop {
        changes.borrow_and_update();
        let began = Instant::now();
        let next = divide(&reader, &assigned.borrow().direct);
        assigned.send_if_modified(|current| {
            let is_same = current.listens == next.listens
                && current.follows_patterns == next.follows_patterns
                && same(&current.direct, &next.direct)
                && same(&current.rung, &next.rung);
            *current = next;
            !is_same
        });
        let is_spoiled = !reader.wishes.noted.lock().spoiled.is_empty();
        // Ten thousand live streams take a while to look through.
        sleep(PAUSE.max(began.elapsed() * 10)).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = reader.wishes.changed.notified() => {}
            () = sleep(SPOILED), if is_spoiled => {}
        }
    }
}

/// Whoever is direct stays so, but for making room for streams others write to.
fn divide(reader: &Reader, before: &[Arc<Live>]) -> Assigned {
    let shared = &reader.shared;
    let mut live = shared.hub.live();
    let (foreign, is_wanted) = {
        let mut noted = reader.wishes.noted.lock();
        let now = Instant::now();
        noted.spoiled.retain(|_, until| *until > now);
        let names: HashSet<StreamName> = match noted.foreign.is_empty() {
            true => HashSet::new(),
            false => live.iter().map(|live| live.name().clone()).collect(),
        };
        noted.foreign.retain(|name, _| names.contains(name));
        live.retain(|live| !noted.spoiled.contains_key(live.name()));
        (noted.foreign.clone(), shared.hub.wants_news())
    };
    let room = if shared.is_cluster() { 0 } else { shared.config.direct_streams_max };
    let direct: HashSet<usize> = if live.len() <= room {
        live.iter().map(stay).collect()
    } else {
        let mut first: Vec<(Instant, &Arc<Live>)> =
            live.iter().filter_map(|live| Some((*foreign.get(live.name())?, live))).collect();
        // Those found last come first.
        first.sort_by_key(|(found, _)| std::cmp::Reverse(*found));
        let known: HashSet<usize> = live.iter().map(stay).collect();
        let known_before = before.iter().filter(|live| known.contains(&stay(live)));
        let mut direct = HashSet::with_capacity(room);
        for live in first.into_iter().map(|(_, live)| live).chain(known_before).chain(&live) {
            if direct.len() >= room {
                break;
            }
            direct.insert(stay(live));
        }
        direct
    };
    let (mut direct, mut rung): (Vec<_>, Vec<_>) = live.into_iter().partition(|live| direct.contains(&stay(live)));
    direct.sort_unstable_by(|one, other| one.name().cmp(other.name()));
    rung.sort_unstable_by_key(stay);
    Assigned {
        listens: is_wanted || !rung.is_empty(),
        follows_patterns: shared.hub.follows_patterns(),
        direct: direct.into(),
        rung: rung.into(),
    }
}
