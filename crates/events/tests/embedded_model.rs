//! The embedded bus against a naive list: random publishes, trims, deletions, reads, claims, acknowledgements, failures,
//! restarts, and crashes that forget what nobody awaited.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_events::{
    Bus, Claim, Clock, Config, Error, EventId, Failed, Group, GroupName, ManualClock, NewEvent, Order, Read,
    StreamName, TABLES, Trim,
};
use tidegate_metrics::Registry;
use tidegate_store::{Store, Table};

const SEEN_MAX: usize = 4;
const DELIVERIES_MAX: u32 = 3;
const PENDING_MAX: usize = 12;

/// Places are fractions of what there is, so that most of them mean something.
#[derive(Clone, Debug)]
enum Op {
    /// Under these idempotence ids; 0 is none.
    Publish(Vec<u8>),
    Wait(u64),
    TrimLength(u64),
    TrimBefore(u8),
    Delete,
    Read {
        after: u8,
        before: u8,
        limit: usize,
        order: Order,
    },
    Claim {
        consumer: u8,
        limit: usize,
        min_idle: u64,
    },
    Ack(Vec<u8>),
    Fail(u8),
    Restart,
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![Just(Order::Ascending), Just(Order::Descending)];
    prop_oneof![
        6 => prop::collection::vec(prop_oneof![2 => Just(0), 1 => 1..8_u8], 1..6).prop_map(Op::Publish),
        3 => (0..200_u64).prop_map(Op::Wait),
        1 => (0..30_u64).prop_map(Op::TrimLength),
        1 => any::<u8>().prop_map(Op::TrimBefore),
        1 => Just(Op::Delete),
        4 => (any::<u8>(), any::<u8>(), 1..20_usize, order)
            .prop_map(|(after, before, limit, order)| Op::Read { after, before, limit, order }),
        6 => (0..3_u8, 1..6_usize, prop_oneof![Just(0), Just(100), Just(1000)])
            .prop_map(|(consumer, limit, min_idle)| Op::Claim { consumer, limit, min_idle }),
        3 => prop::collection::vec(any::<u8>(), 1..4).prop_map(Op::Ack),
        2 => any::<u8>().prop_map(Op::Fail),
        1 => Just(Op::Restart),
        1 => (0..4_usize).prop_map(Op::Crash),
    ]
}

/// A group, as far as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ledger {
    exists: bool,
    delivered_to: EventId,
    /// Consumer, since, deliveries.
    held: BTreeMap<EventId, (String, u64, u32)>,
}

#[derive(Debug, Default)]
struct Model {
    exists: bool,
    /// Kept events: what they say.
    events: Vec<(EventId, String)>,
    /// The last place of this stream, or of the one deleted before it.
    last: EventId,
    removed_to: EventId,
    seen: Vec<(u8, EventId)>,
    ledger: Ledger,
    /// The group before each batch that nobody awaited, oldest first.
    loose: Vec<Ledger>,
    /// Letters of all streams of this name.
    dead: usize,
    told: usize,
}

impl Model {
    /// The place of a fraction of what is kept, and a little beyond.
    fn place(&self, fraction: u8) -> EventId {
        let at = usize::from(fraction) * (self.events.len() + 2) / 256;
        self.events.get(at.wrapping_sub(1)).map_or(if at == 0 { EventId::ZERO } else { EventId::MAX }, |(id, _)| *id)
    }

    fn held(&self, fraction: u8) -> EventId {
        let at = usize::from(fraction) * (self.ledger.held.len() + 1) / 256;
        self.ledger.held.keys().nth(at).copied().unwrap_or(EventId { ms: 1, seq: 1 })
    }

    fn publish(&mut self, ids: &[u8], given: &[(EventId, bool)], now: u64) {
        let mut news = Vec::new();
        for (at, (idempotence, (id, duplicate))) in ids.iter().zip(given).enumerate() {
            let known = self.seen.iter().chain(&news).find(|(seen, _)| *idempotence > 0 && seen == idempotence);
            assert_eq!(*duplicate, known.is_some(), "{idempotence} of {:?}", self.seen);
            if let Some((_, known)) = known {
                assert_eq!(id, known);
                continue;
            }
            assert!(*id > self.last && id.ms >= now, "{id} after {}", self.last);
            self.last = *id;
            self.events.push((*id, (self.told + at).to_string()));
            if *idempotence > 0 {
                news.push((*idempotence, *id));
            }
        }
        self.told += ids.len();
        self.seen.extend(news);
        self.seen.drain(..self.seen.len().saturating_sub(SEEN_MAX));
        self.exists = true;
    }

    fn trim(&mut self, gone: usize) {
        if let Some((id, _)) = gone.checked_sub(1).and_then(|last| self.events.get(last)) {
            self.removed_to = *id;
            self.loose.clear();
        }
        self.events.drain(..gone);
    }

    fn read(&self, read: Read) -> (Vec<(EventId, String)>, bool) {
        let inside = |(id, _): &&(EventId, String)| *id > read.after && *id < read.before;
        let mut all: Vec<_> = self.events.iter().filter(inside).cloned().collect();
        if read.order == Order::Descending {
            all.reverse();
        }
        let more = all.len() > read.limit;
        all.truncate(read.limit);
        (all, more)
    }

    /// What a look gives: events with their deliveries; and how many are put aside.
    fn claim(&mut self, consumer: &str, limit: usize, min_idle: u64, now: u64) -> (Vec<(EventId, u32)>, usize) {
        let before = self.ledger.clone();
        if !self.ledger.exists {
            self.ledger = Ledger { exists: true, delivered_to: self.removed_to, ..Ledger::default() };
            self.loose.push(before);
        }
        let before = self.ledger.clone();
        let mut idle: Vec<_> =
            self.ledger.held.iter().map(|(id, (_, since, deliveries))| (*since, *id, *deliveries)).collect();
        idle.retain(|(since, ..)| since + min_idle <= now);
        idle.sort_unstable();
        let pending = self.ledger.held.len();
        let (mut alive, mut exhausted, mut taken) = (Vec::new(), Vec::new(), 0);
        for (_, id, deliveries) in idle {
            let (list, more) = if deliveries < DELIVERIES_MAX { (&mut alive, 1) } else { (&mut exhausted, 0) };
            if list.len() == limit {
                continue;
            }
            taken += 1;
            // What was removed takes a place, and is dropped.
            let is_kept = self.events.iter().any(|(kept, _)| *kept == id);
            list.push(is_kept.then_some((id, deliveries + more)));
            if is_kept {
                self.ledger.held.insert(id, (consumer.to_owned(), now, deliveries + more));
            } else {
                self.ledger.held.remove(&id);
            }
        }
        let room = limit.saturating_sub(taken).min(PENDING_MAX.saturating_sub(pending));
        let mut claimed: Vec<_> = alive.into_iter().flatten().collect();
        let delivered_to = self.ledger.delivered_to;
        for (id, _) in self.events.iter().filter(|(id, _)| *id > delivered_to).take(room) {
            claimed.push((*id, 1));
            self.ledger.held.insert(*id, (consumer.to_owned(), now, 1));
            self.ledger.delivered_to = *id;
        }
        if self.ledger != before {
            self.loose.push(before);
        }
        let exhausted: Vec<_> = exhausted.into_iter().flatten().collect();
        for (id, _) in &exhausted {
            self.ledger.held.remove(id);
            self.loose.clear();
        }
        (claimed, exhausted.len())
    }

    fn delete(&mut self) {
        self.removed_to = self.last;
        self.events.clear();
        self.seen.clear();
        self.loose.clear();
        self.ledger = Ledger::default();
        self.exists = false;
    }
}

struct Pair {
    store: Store,
    clock: ManualClock,
    bus: Option<Bus>,
    model: Model,
    name: StreamName,
}

impl Pair {
    async fn open(store: &Store, clock: &ManualClock) -> Bus {
        let config = Config {
            clock: Clock::Manual(clock.clone()),
            idempotence_max: SEEN_MAX,
            deliveries_max: DELIVERIES_MAX,
            pending_max: PENDING_MAX,
            ..Config::default()
        };
        Bus::open(store.clone(), 0, config, &Registry::new()).await.unwrap()
    }

    fn bus(&self) -> &Bus {
        self.bus.as_ref().unwrap()
    }

    fn group(&self) -> Group {
        self.bus().group(&self.name, &GroupName::new("g").unwrap())
    }

    fn now(&self) -> u64 {
        Clock::Manual(self.clock.clone()).now_ms()
    }

    async fn run(&mut self, op: Op) {
        let now = self.now();
        match op {
            Op::Publish(ids) => {
                let event = |(at, id): (usize, &u8)| {
                    let event = NewEvent::new((self.model.told + at).to_string());
                    if *id > 0 { event.idempotence_id(vec![b'a' + id]) } else { event }
                };
                let events = ids.iter().enumerate().map(event).collect();
                let published = self.bus().publish(&self.name, events).await.unwrap();
                let given: Vec<_> = published.iter().map(|published| (published.id, published.duplicate)).collect();
                let is_new = given.iter().any(|(_, duplicate)| !duplicate);
                self.model.publish(&ids, &given, now);
                if is_new {
                    self.model.loose.clear();
                }
            }
            Op::Wait(ms) => self.clock.advance(Duration::from_millis(ms)),
            Op::TrimLength(length) => {
                let gone = self.model.events.len().saturating_sub(length as usize);
                self.trim(Trim::MaxLength(length), gone).await;
            }
            Op::TrimBefore(fraction) => {
                let before = self.model.place(fraction);
                let gone = self.model.events.iter().filter(|(id, _)| *id < before).count();
                self.trim(Trim::Before(before), gone).await;
            }
            Op::Delete => {
                let deleted = self.bus().delete(std::slice::from_ref(&self.name)).await.unwrap();
                assert_eq!(deleted, [self.model.exists]);
                if self.model.exists {
                    self.model.delete();
                }
                // What is written in the background makes what is loose durable, sooner or later.
                while self.has_doomed() {
                    tokio::task::yield_now().await;
                }
            }
            Op::Read { after, before, limit, order } => {
                let read = Read { after: self.model.place(after), before: self.model.place(before), limit, order };
                match self.bus().read(&self.name, read).await {
                    Ok(page) => {
                        let said = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        let events: Vec<_> = page.events.iter().map(|event| (event.id, said(&event.data))).collect();
                        assert_eq!((events, page.more), self.model.read(read), "{read:?}");
                    }
                    Err(error) => self.is_absent(&error),
                }
            }
            Op::Claim { consumer, limit, min_idle } => self.claim(&format!("c{consumer}"), limit, min_idle).await,
            Op::Ack(fractions) => {
                let ids: Vec<_> = fractions.iter().map(|fraction| self.model.held(*fraction)).collect();
                let acked = self.group().ack(&ids).await.unwrap();
                let expected: Vec<_> = ids.iter().map(|id| self.model.ledger.held.remove(id).is_some()).collect();
                assert_eq!(acked, expected);
                if acked.contains(&true) {
                    self.model.loose.clear();
                }
            }
            Op::Fail(fraction) => self.fail(self.model.held(fraction)).await,
            Op::Restart => {
                self.bus().close().await.unwrap();
                self.model.loose.clear();
                self.bus = Some(Self::open(&self.store, &self.clock).await);
            }
            Op::Crash(batches) => {
                self.bus = None;
                self.store.crash(batches);
                for _ in 0..batches {
                    if let Some(before) = self.model.loose.pop() {
                        self.model.ledger = before;
                    }
                }
                // A start awaits a batch of its own: what it has read is not forgotten any more.
                self.model.loose.clear();
                self.bus = Some(Self::open(&self.store, &self.clock).await);
            }
        }
    }

    fn has_doomed(&self) -> bool {
        let mut found = false;
        let each = |_: &[u8], _: &[u8]| {
            found = true;
            Ok::<_, tidegate_store::Error>(false)
        };
        self.store.scan(Table(0), b"d", each).unwrap();
        found
    }

    async fn trim(&mut self, trim: Trim, gone: usize) {
        match self.bus().trim(&self.name, trim).await {
            Ok(removed) => {
                assert_eq!(removed, gone as u64);
                self.model.trim(gone);
            }
            Err(error) => self.is_absent(&error),
        }
    }

    async fn claim(&mut self, consumer: &str, limit: usize, min_idle: u64) {
        let now = self.now();
        let min_idle_time = Some(Duration::from_millis(min_idle));
        let claimed = self.group().claim(Claim { limit, min_idle: min_idle_time, ..Claim::new(consumer) }).await;
        match claimed {
            Ok(claimed) => {
                let claimed: Vec<_> = claimed.iter().map(|delivery| (delivery.event.id, delivery.deliveries)).collect();
                let (expected, buried) = self.model.claim(consumer, limit, min_idle, now);
                assert_eq!(claimed, expected);
                self.model.dead += buried;
            }
            Err(error) => self.is_absent(&error),
        }
    }

    async fn fail(&mut self, id: EventId) {
        let failed = self.group().fail(&[id], "no").await.unwrap()[0];
        let Some((consumer, _, deliveries)) = self.model.ledger.held.get(&id).cloned() else {
            assert_eq!(failed, Failed::NotPending);
            return;
        };
        let before = self.model.ledger.clone();
        if deliveries < DELIVERIES_MAX {
            assert_eq!(failed, Failed::Retried);
            self.model.loose.push(before);
            self.model.ledger.held.insert(id, (consumer, 0, deliveries));
        } else {
            assert_eq!(failed, Failed::DeadLettered);
            self.model.dead += usize::from(self.model.events.iter().any(|(kept, _)| *kept == id));
            self.model.ledger.held.remove(&id);
            self.model.loose.clear();
        }
    }

    fn is_absent(&self, error: &Error) {
        assert!(matches!(error, Error::StreamNotFound { .. }) && !self.model.exists, "{error}");
    }

    /// Everything that can be seen.
    async fn compare(&self) {
        let model = &self.model;
        match self.bus().info(&self.name).await {
            Ok(info) => {
                let ends = (model.events.first().map(|(id, _)| *id), model.events.last().map(|(id, _)| *id));
                assert_eq!((info.length as usize, (info.first, info.last)), (model.events.len(), ends));
            }
            Err(error) => self.is_absent(&error),
        }
        match self.group().pending(EventId::ZERO, 1000).await {
            Ok(pending) => {
                let now = self.now();
                let told: Vec<_> = pending
                    .into_iter()
                    .map(|p| (p.id, p.consumer.to_string(), p.idle.as_millis(), p.deliveries))
                    .collect();
                let held = model.ledger.held.iter();
                let expected: Vec<_> =
                    held.map(|(id, (who, since, times))| (*id, who.clone(), u128::from(now - since), *times)).collect();
                assert_eq!(told, expected);
                assert!(model.ledger.exists);
            }
            Err(Error::GroupNotFound { .. }) => assert!(model.exists && !model.ledger.exists),
            Err(error) => self.is_absent(&error),
        }
        let dead = self.bus().info(&self.name.dead_letters(&GroupName::new("g").unwrap()).unwrap()).await;
        assert_eq!(dead.map_or(0, |info| info.length as usize), model.dead);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bus_agrees_with_a_list(ops in prop::collection::vec(op(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (store, clock) = (Store::memory(TABLES), ManualClock::new(1_700_000_000_000));
            let bus = Some(Pair::open(&store, &clock).await);
            let name = StreamName::new("s").unwrap();
            let mut pair = Pair { store, clock, bus, model: Model::default(), name };
            for op in ops {
                pair.run(op).await;
                pair.compare().await;
            }
        });
    }
}
