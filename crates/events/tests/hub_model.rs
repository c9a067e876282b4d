//! Listeners against a naive list: random publishes, trims, joins, stalls and reconnects; every listener hears every event
//! after its place once and in order, or is told exactly what it misses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_events::{
    Bus, Config, Cursor, EventId, GapReason, Heard, Listen, Listener, NewEvent, Slow, Source, StreamName, TABLES, Trim,
};
use tidegate_metrics::Registry;

const NAMES: [&str; 3] = ["a", "b", "deep.c"];

#[derive(Clone, Debug)]
enum Op {
    Publish {
        stream: usize,
        count: usize,
        bytes: usize,
    },
    Trim {
        stream: usize,
        keep: u64,
    },
    Delete {
        stream: usize,
    },
    Join {
        what: usize,
        from_start: bool,
        slow: Slow,
        as_frames: bool,
    },
    Read {
        listener: usize,
        most: usize,
    },
    /// Takes one thing and then nothing for so long that it counts as stalled.
    Stall {
        listener: usize,
    },
    Reconnect {
        listener: usize,
    },
    Leave {
        listener: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (stream, listener) = (0..NAMES.len(), 0..4_usize);
    let slow = prop_oneof![Just(Slow::Close), Just(Slow::Skip), Just(Slow::Latest)];
    prop_oneof![
        8 => (stream.clone(), 1..12_usize, 0..200_usize)
            .prop_map(|(stream, count, bytes)| Op::Publish { stream, count, bytes }),
        2 => (stream.clone(), 0..6_u64).prop_map(|(stream, keep)| Op::Trim { stream, keep }),
        1 => stream.prop_map(|stream| Op::Delete { stream }),
        3 => (0..5_usize, any::<bool>(), slow, any::<bool>())
            .prop_map(|(what, from_start, slow, as_frames)| Op::Join { what, from_start, slow, as_frames }),
        5 => (listener.clone(), 1..20_usize).prop_map(|(listener, most)| Op::Read { listener, most }),
        2 => listener.clone().prop_map(|listener| Op::Stall { listener }),
        3 => listener.clone().prop_map(|listener| Op::Reconnect { listener }),
        1 => listener.prop_map(|listener| Op::Leave { listener }),
    ]
}

/// What really happened to one stream.
#[derive(Default)]
struct Naive {
    events: Vec<(EventId, String)>,
    removed_to: EventId,
    /// The last event at each deletion.
    deletions: Vec<EventId>,
}

struct Reader {
    listener: Listener,
    sources: Vec<Source>,
    slow: Slow,
    as_frames: bool,
    /// By stream, how far it has come.
    places: BTreeMap<String, EventId>,
    has_stalled: bool,
    /// Heard and not looked at yet.
    queue: Vec<Said>,
    /// The cursor of the last frame.
    cursor: Option<String>,
}

#[derive(Debug)]
enum Said {
    Event { stream: String, id: EventId, data: String },
    Gap { stream: String, from: EventId, to: EventId, reason: String },
}

impl Reader {
    /// What it says next; `Err(true)` when it has ended, `Err(false)` when it stays silent.
    async fn hear(&mut self) -> Result<Said, bool> {
        // The clock stands still while anybody works, so this much silence is silence; all of a case together is too little to
        // make others count as stalled.
        let patience = Duration::from_millis(1);
        loop {
            if !self.queue.is_empty() {
                return Ok(self.queue.remove(0));
            }
            if self.as_frames {
                let mut frames: Vec<Bytes> = Vec::new();
                let polled = poll_fn(|cx| self.listener.poll_frames(cx, &mut frames, 300));
                match tokio::time::timeout(patience, polled).await {
                    Err(_) => return Err(false),
                    Ok(false) => return Err(true),
                    Ok(true) => self.parse(&String::from_utf8(frames.concat()).unwrap()),
                }
            } else {
                match tokio::time::timeout(patience, self.listener.next()).await {
                    Err(_) => return Err(false),
                    Ok(None) => return Err(true),
                    Ok(Some(heard)) => self.queue.push(said(heard)),
                }
                self.cursor = Some(self.listener.cursor().to_string());
            }
        }
    }

    fn parse(&mut self, text: &str) {
        for frame in text.split_terminator("\n\n").filter(|frame| *frame != ":") {
            let field = |name: &str| {
                let lines = frame.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                lines.collect::<Vec<_>>().join("\n")
            };
            let (cursor, data) = (field("id"), field("data"));
            if !frame.contains("data:") {
                // A place and nothing else.
                self.cursor = Some(cursor);
                continue;
            }
            let (stream, id) = match cursor.split(';').next().unwrap().split_once('=') {
                Some((stream, id)) => (stream.to_owned(), id.to_owned()),
                None => (self.only_stream(), cursor.clone()),
            };
            self.cursor = Some(cursor);
            self.queue.push(if field("event") == "gap" {
                let member = |name: &str| {
                    let rest = data.split(&format!("\"{name}\":\"")).nth(1).unwrap();
                    rest.split('"').next().unwrap().to_owned()
                };
                assert_eq!(member("stream"), stream);
                let (from, to) = (member("from").parse().unwrap(), member("to").parse().unwrap());
                Said::Gap { stream, from, to, reason: member("reason") }
            } else {
                Said::Event { stream, id: id.parse().unwrap(), data }
            });
        }
    }

    fn only_stream(&self) -> String {
        match &self.sources[..] {
            [Source::Stream(stream)] => stream.to_string(),
            sources => panic!("{sources:?} have no plain ids"),
        }
    }
}

fn said(heard: Heard) -> Said {
    match heard {
        Heard::Event(stream, event) => Said::Event {
            stream: stream.to_string(),
            id: event.id,
            data: String::from_utf8(event.data.to_vec()).unwrap(),
        },
        Heard::Gap(stream, gap) => {
            Said::Gap { stream: stream.to_string(), from: gap.from, to: gap.to, reason: gap.reason.as_str().to_owned() }
        }
    }
}

struct World {
    bus: Bus,
    naive: Vec<Naive>,
    readers: Vec<Reader>,
    counter: u64,
}

impl World {
    async fn new() -> Self {
        // So small that every listener falls out of the shared log again and again.
        let config = Config { ring_bytes_max: 4000, rings_bytes_max: 9000, ..Config::default() };
        let store = tidegate_store::Store::memory(TABLES);
        let bus = Bus::open(store, 0, config, &Registry::new()).await.unwrap();
        Self { bus, naive: NAMES.iter().map(|_| Naive::default()).collect(), readers: Vec::new(), counter: 0 }
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Publish { stream, count, bytes } => self.publish(stream, count, bytes).await,
            Op::Trim { stream, keep } => self.trim(stream, keep).await,
            Op::Delete { stream } => self.delete(stream).await,
            Op::Join { what, from_start, slow, as_frames } if self.readers.len() < 4 => {
                self.join(what, from_start, slow, as_frames).await;
            }
            Op::Join { .. } => {}
            Op::Read { listener, most } => {
                for _ in 0..most {
                    if !self.read(listener).await {
                        break;
                    }
                }
            }
            Op::Stall { listener } => {
                if self.read(listener).await {
                    // Time passes for all of them.
                    self.readers.iter_mut().for_each(|reader| reader.has_stalled = true);
                    tokio::time::advance(Duration::from_secs(3)).await;
                }
            }
            Op::Reconnect { listener } => self.reconnect(listener).await,
            Op::Leave { listener } => {
                if listener < self.readers.len() {
                    self.readers.remove(listener);
                }
            }
        }
    }

    async fn publish(&mut self, stream: usize, count: usize, bytes: usize) {
        let mut text = || {
            self.counter += 1;
            format!("{}{}", self.counter, " ".repeat(bytes))
        };
        let texts: Vec<_> = (0..count).map(|_| text()).collect();
        let events = texts.iter().map(|text| NewEvent::new(text.clone())).collect();
        let published = self.bus.publish(&name(stream), events).await.unwrap();
        let naive = &mut self.naive[stream];
        naive.events.extend(published.iter().map(|published| published.id).zip(texts));
        assert!(naive.events.is_sorted_by(|one, other| one.0 < other.0), "ids ascend");
    }

    async fn trim(&mut self, stream: usize, keep: u64) {
        let naive = &mut self.naive[stream];
        let removed = naive.events.len().saturating_sub(keep as usize);
        match self.bus.trim(&name(stream), Trim::MaxLength(keep)).await {
            Ok(count) => assert_eq!(count, removed as u64),
            Err(_) => assert!(naive.events.is_empty()),
        }
        if let Some((last, _)) = naive.events.drain(..removed).next_back() {
            naive.removed_to = last;
        }
    }

    async fn delete(&mut self, stream: usize) {
        self.bus.delete(&[name(stream)]).await.unwrap();
        let naive = &mut self.naive[stream];
        naive.removed_to = naive.events.last().map_or(naive.removed_to, |(last, _)| *last);
        naive.deletions.push(naive.removed_to);
        naive.events.clear();
    }

    async fn join(&mut self, what: usize, from_start: bool, slow: Slow, as_frames: bool) {
        let sources = [&["a"][..], &["a", "b"], &["*"], &["**"], &["b", "deep.*"]][what];
        let sources: Vec<_> = sources.iter().map(|text| Source::parse(text).unwrap()).collect();
        let from = from_start.then(|| Cursor::at(EventId::ZERO));
        let listener = self.listen(&sources, from, slow).await;
        let wants = |name: &str| {
            sources.iter().any(|source| match source {
                Source::Stream(stream) => stream.as_str() == name,
                Source::Pattern(pattern) => pattern.matches(name),
            })
        };
        let place = |stream: usize| match (&self.naive[stream], from_start) {
            (_, true) => EventId::ZERO,
            (naive, false) => naive.events.last().map_or(EventId::ZERO, |(id, _)| *id),
        };
        let wanted = NAMES.iter().enumerate().filter(|(_, name)| wants(name));
        let places = wanted.map(|(stream, name)| ((*name).to_owned(), place(stream))).collect();
        let (queue, cursor) = (Vec::new(), None);
        self.readers.push(Reader { listener, sources, slow, as_frames, places, has_stalled: false, queue, cursor });
    }

    async fn listen(&self, sources: &[Source], from: Option<Cursor>, slow: Slow) -> Listener {
        self.bus.listen(Listen { sources: sources.to_vec(), from, slow }).await.unwrap()
    }

    async fn reconnect(&mut self, at: usize) {
        while self.readers.get(at).is_some_and(|reader| !reader.queue.is_empty()) {
            self.read(at).await;
        }
        let Some(reader) = self.readers.get(at) else { return };
        let Some(cursor) = reader.cursor.clone() else { return };
        let listener = self.listen(&reader.sources, Some(cursor.parse().unwrap()), reader.slow).await;
        let reader = &mut self.readers[at];
        (reader.listener, reader.has_stalled) = (listener, false);
    }

    /// Lets one reader hear one thing and compares. `false`: there was nothing.
    async fn read(&mut self, at: usize) -> bool {
        let Some(reader) = self.readers.get_mut(at) else { return false };
        match reader.hear().await {
            Ok(said) => {
                self.compare(at, said);
                true
            }
            Err(false) => false,
            Err(true) => {
                assert!(reader.has_stalled && reader.slow == Slow::Close, "closed for no reason");
                match reader.cursor {
                    Some(_) => Box::pin(self.reconnect(at)).await,
                    None => drop(self.readers.remove(at)),
                }
                false
            }
        }
    }

    fn compare(&mut self, at: usize, said: Said) {
        let reader = &mut self.readers[at];
        match said {
            Said::Event { stream, id, data } => {
                let place = reader.places.get_mut(&stream).expect("a stream it asked for");
                let naive = &self.naive[number(&stream)];
                let next = naive.events.iter().find(|(other, _)| other > place);
                if let Some((next_id, text)) = next.filter(|(next, _)| *next <= id) {
                    assert_eq!((&id, &data), (next_id, text), "of {stream} after {place}");
                } else {
                    // Held for listeners when it was trimmed or its stream deleted.
                    assert!(id > *place, "{stream}: {id} again after {place}");
                    let is_gone = id <= naive.removed_to || naive.deletions.iter().any(|last| id <= *last);
                    assert!(is_gone, "{stream}: {id} was never there");
                }
                *place = id;
            }
            Said::Gap { stream, from, to, reason } => {
                let place = reader.places.get_mut(&stream).expect("a stream it asked for");
                // A cursor does not name streams that were deleted when it was written, nor those a pattern has not met; of
                // these it knows no more than a time.
                let is_known = reader.sources.iter().all(|source| matches!(source, Source::Stream(_)));
                let is_rough = from == EventId::ZERO || *place == EventId::ZERO || (from <= *place && !is_known);
                assert!(from == *place || is_rough, "{stream}: {reason} from {from}, not {place}");
                let naive = &self.naive[number(&stream)];
                if reason == GapReason::Trimmed.as_str() {
                    assert!(to <= naive.removed_to && from < to, "{stream}: {from} to {to}, {}", naive.removed_to);
                } else if reason == GapReason::Slow.as_str() {
                    assert!(reader.has_stalled && reader.slow != Slow::Close);
                } else {
                    assert!(!naive.deletions.is_empty(), "{stream}: {reason}");
                }
                *place = to;
            }
        }
    }

    /// In the end everybody has heard everything.
    async fn finish(mut self) {
        for at in 0..self.readers.len() {
            // A closed one comes back and goes on.
            for _ in 0..3 {
                while self.read(at).await {}
            }
            let Some(reader) = self.readers.get(at) else { continue };
            for (stream, place) in &reader.places {
                let naive = &self.naive[number(stream)];
                let missed = naive.events.iter().find(|(id, _)| id > place);
                assert!(missed.is_none(), "{stream}: {missed:?} after {place} was never told to {:?}", reader.sources);
            }
        }
        self.bus.close().await.unwrap();
    }
}

fn name(stream: usize) -> StreamName {
    StreamName::new(NAMES[stream]).unwrap()
}

fn number(stream: &str) -> usize {
    NAMES.iter().position(|name| *name == stream).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_listener_hears_everything_once_or_is_told(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in ops {
                world.apply(op).await;
            }
            world.finish().await;
        });
    }
}
