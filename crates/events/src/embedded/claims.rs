//! Groups: looking for deliveries, acknowledging, giving back. [`group`](super::group) has the rules; here they meet the
//! store. Deliveries are written but not awaited: a crash may forget one, and then the event is delivered again.

use std::sync::Arc;
use std::time::Duration;

use tidegate_store::Batch;

use super::Shared;
use super::group::{Held, Ledger, Members};
use super::stream::Stream;
use crate::backend::{Step, Stepped};
use crate::record::{StoredGroup, encode, group_key, held_key};
use crate::{Delivery, Error, Event, EventId, GroupName, Page, Read};

impl Shared {
    /// The group, made when it is not there yet: it begins before the oldest event kept.
    pub(super) fn group(&self, stream: &Stream, name: &GroupName) -> Result<Arc<Members>, Error> {
        let delivered_to = stream.state.lock().removed_to;
        let groups = &mut *stream.groups.lock();
        if let Some(group) = groups.by_name.get(name) {
            return Ok(Arc::clone(group));
        }
        if groups.gone {
            return Err(stream.not_found());
        }
        if groups.by_name.len() >= self.config.groups_max {
            return Err(Error::TooMany { what: "groups on this stream", capacity: self.config.groups_max });
        }
        self.store.check_growth()?;
        let no = groups.by_name.values().map(|group| group.no).max().map_or(1, |no| no + 1);
        let stored = StoredGroup { no, delivered_to };
        let mut batch = Batch::new();
        batch.put(self.tables.groups, group_key(stream.no, name.as_str()), encode(&stored));
        self.store.submit_loose(batch);
        let group = Arc::new(Members::new(stored));
        groups.by_name.insert(name.clone(), Arc::clone(&group));
        Ok(group)
    }

    /// Changes nothing until it has read what it needs, so that a dropped look leaves nothing behind.
    pub(super) async fn step(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        name: &GroupName,
        group: &Members,
        step: &Step,
    ) -> Result<Stepped, Error> {
        let _turn = group.turn.lock().await;
        let min_idle_ms = u64::try_from(step.min_idle.as_millis()).unwrap_or(u64::MAX);
        let now = self.config.clock.now_ms();
        let (idle, after, held) = {
            let ledger = &mut *group.ledger.lock();
            ledger.forgive(now);
            (ledger.idle(now, min_idle_ms, step.deliveries_max, step.limit), ledger.delivered_to, ledger.len())
        };
        let taken = match idle.is_empty() {
            true => Vec::new(),
            false => self.fetch(stream, idle).await?,
        };
        let room = step.limit.saturating_sub(taken.len()).min(step.pending_max.saturating_sub(held));
        let fresh = match room {
            0 => Page { events: Vec::new(), more: false },
            _ => self.read(stream, Read::after(after, room)).await?,
        };
        let ledger = &mut *group.ledger.lock();
        if ledger.gone {
            return Err(stream.not_found());
        }
        let mut look = Look { shared: self, stream, group: group.no, step, now, ledger, batch: Batch::new() };
        let mut stepped = Stepped::default();
        look.take_over(taken, min_idle_ms, &mut stepped);
        look.deliver(fresh.events, name, &mut stepped);
        let batch = look.batch;
        if !batch.is_empty() {
            self.store.submit_loose(batch);
        }
        stepped.next_idle = ledger.next_idle(now, min_idle_ms).map(Duration::from_millis);
        Ok(stepped)
    }

    pub(super) async fn ack(&self, stream: &Stream, group: &Members, ids: &[EventId]) -> Result<Vec<bool>, Error> {
        let (acked, ticket) = {
            let ledger = &mut *group.ledger.lock();
            let mut batch = Batch::new();
            let mut let_go = |id: &EventId| {
                let was_held = !ledger.gone && ledger.let_go(*id).is_some();
                if was_held {
                    batch.delete(self.tables.pending, held_key(stream.no, group.no, *id));
                }
                was_held
            };
            let acked: Vec<bool> = ids.iter().map(&mut let_go).collect();
            (acked, (!batch.is_empty()).then(|| self.store.submit(batch)))
        };
        if let Some(ticket) = ticket {
            ticket.await?;
        }
        Ok(acked)
    }

    pub(super) fn free(&self, stream: &Stream, group: &Members, ids: &[EventId]) -> Vec<Option<u32>> {
        let ledger = &mut *group.ledger.lock();
        let mut batch = Batch::new();
        let mut free = |id: &EventId| {
            if ledger.gone {
                return None;
            }
            let held = ledger.free(*id)?;
            batch.put(self.tables.pending, held_key(stream.no, group.no, *id), encode(&held.stored()));
            Some(held.deliveries)
        };
        let freed = ids.iter().map(&mut free).collect();
        if !batch.is_empty() {
            self.store.submit_loose(batch);
        }
        freed
    }
}

/// What a look changes.
struct Look<'a> {
    shared: &'a Shared,
    stream: &'a Stream,
    group: u32,
    step: &'a Step,
    now: u64,
    ledger: &'a mut Ledger,
    batch: Batch,
}

impl Look<'_> {
    /// Takes what is still idle, unless it was dealt with while its event was read.
    fn take_over(&mut self, taken: Vec<(EventId, Option<Event>)>, min_idle_ms: u64, stepped: &mut Stepped) {
        for (id, event) in taken {
            let Some(held) = self.ledger.get(id) else { continue };
            if held.since.saturating_add(min_idle_ms) > self.now {
                continue;
            }
            let deliveries = held.deliveries;
            let Some(event) = event else {
                self.drop_removed(id);
                continue;
            };
            if deliveries < self.step.deliveries_max {
                self.hold(id, deliveries + 1);
                stepped.deliveries.push(Delivery { event, deliveries: deliveries + 1 });
            } else {
                self.hold(id, deliveries);
                stepped.exhausted.push(Delivery { event, deliveries });
            }
        }
    }

    fn deliver(&mut self, events: Vec<Event>, name: &GroupName, stepped: &mut Stepped) {
        let Some(last) = events.last().map(|event| event.id) else { return };
        for event in events {
            self.hold(event.id, 1);
            stepped.deliveries.push(Delivery { event, deliveries: 1 });
        }
        self.ledger.delivered_to = last;
        let stored = StoredGroup { no: self.group, delivered_to: last };
        self.batch.put(self.shared.tables.groups, group_key(self.stream.no, name.as_str()), encode(&stored));
    }

    fn hold(&mut self, id: EventId, deliveries: u32) {
        let held = Held { consumer: self.step.consumer.clone(), since: self.now, deliveries };
        self.batch.put(self.key_table(), held_key(self.stream.no, self.group, id), encode(&held.stored()));
        self.ledger.hold(id, held);
    }

    fn drop_removed(&mut self, id: EventId) {
        self.ledger.let_go(id);
        self.batch.delete(self.key_table(), held_key(self.stream.no, self.group, id));
        self.shared.meters.vanished.inc();
    }

    fn key_table(&self) -> tidegate_store::Table {
        self.shared.tables.pending
    }
}
