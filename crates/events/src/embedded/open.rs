//! What a start reads: streams, idempotence ids, groups and their deliveries, but no events.
//!
//! After an unclean end it also looks at both ends of every stream: a repair may have given up some records and not others.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashSet, HashSetExt};
use tidegate_store::{Batch, Durability, Order, Store, Table};

use super::damaged;
use super::group::{Held, Members};
use super::stream::Stream;
use super::tombs::Tombs;
use crate::record::{
    DOOMED, LOSS, STREAM, StoredGroup, StoredHeld, StoredStream, TOMB, Tables, decode, decode_bytes, encode, event_key,
    id_of, key, number_at, weight,
};
use crate::{Config, Error, EventId, GroupName, StreamName};

/// Losses remembered: beyond, the oldest is forgotten.
const LOSSES_MAX: usize = 1000;

/// Everything a start knows.
pub(super) struct Loaded {
    pub(super) streams: BTreeMap<StreamName, Arc<Stream>>,
    pub(super) tombs: Tombs,
    /// Numbers of deleted streams with records left.
    pub(super) doomed: Vec<u32>,
    /// Instants between which events may have been lost, in milliseconds since 1970.
    pub(super) losses: Vec<(u64, u64)>,
    pub(super) next_no: u32,
    /// What the start found out and the store must know.
    pub(super) batch: Batch,
}

struct Loader<'a> {
    store: &'a Store,
    tables: Tables,
    by_no: HashMap<u32, Arc<Stream>>,
    doomed: HashSet<u32>,
    /// Streams whose record is gone, while others of theirs are there: a repair gave it up.
    orphans: HashSet<u32>,
    /// Events are gone that were there.
    has_lost: bool,
    batch: Batch,
}

/// Reads the tables. Blocks.
pub(super) fn load(store: &Store, tables: Tables, config: &Config) -> Result<Loaded, Error> {
    let is_clean = store.ended_cleanly();
    let (mut streams, mut tombs, mut losses) = (BTreeMap::new(), Tombs::default(), Vec::new());
    let mut loader = Loader {
        store,
        tables,
        by_no: HashMap::default(),
        doomed: HashSet::new(),
        orphans: HashSet::new(),
        has_lost: false,
        batch: Batch::new(),
    };
    each(store, tables.streams, &[DOOMED], |rest, _| {
        loader.doomed.insert(number_at(rest, 0).map_err(|detail| damaged("deleted streams", &detail))?);
        Ok(())
    })?;
    each(store, tables.streams, &[TOMB], |rest, record| {
        let name = name(rest)?;
        let last = decode(record).map_err(|detail| damaged(name.as_str(), &detail))?;
        tombs.insert(name, last);
        Ok(())
    })?;
    each(store, tables.streams, &[LOSS], |rest, record| {
        let from = rest.try_into().map(u64::from_be_bytes).map_err(|_| damaged("losses", "a key of another length"))?;
        losses.push((from, decode(record).map_err(|detail| damaged("losses", &detail))?));
        Ok(())
    })?;
    each(store, tables.streams, &[STREAM], |rest, record| {
        let name = name(rest)?;
        let stored: StoredStream = decode(record).map_err(|detail| damaged(name.as_str(), &detail))?;
        let retention = config.retention_of(name.as_str());
        let stream = Arc::new(Stream::load(name.clone(), &stored, retention));
        loader.by_no.insert(stored.no, Arc::clone(&stream));
        streams.insert(name, stream);
        Ok(())
    })?;
    loader.published()?;
    loader.groups()?;
    if !is_clean {
        streams.values().try_for_each(|stream| loader.compare(stream))?;
        loader.find_orphans()?;
    }
    let next_no = loader.next_no()?;
    loader.doom_orphans();
    if let Some(loss) = loader.loss(config.clock.now_ms()) {
        losses.retain(|(from, _)| *from != loss.0);
        losses.push(loss);
        for (from, _) in losses.drain(..losses.len().saturating_sub(LOSSES_MAX)) {
            loader.batch.delete(tables.streams, key(LOSS, &from.to_be_bytes()));
        }
    }
    let doomed = loader.doomed.into_iter().collect();
    Ok(Loaded { streams, tombs, doomed, losses, next_no, batch: loader.batch })
}

impl Loader<'_> {
    fn published(&mut self) -> Result<(), Error> {
        each(self.store, self.tables.published, &[], |key, record| {
            let Some(stream) = find(&self.by_no, &self.doomed, &mut self.orphans, key)? else { return Ok(()) };
            let place = |detail: String| damaged(stream.name.as_str(), &format!("idempotence id: {detail}"));
            let id = id_of(key).map_err(place)?;
            stream.state.lock().seen.insert(decode_bytes(record).map_err(place)?, id);
            Ok(())
        })
    }

    fn groups(&mut self) -> Result<(), Error> {
        let mut by_no = HashMap::default();
        each(self.store, self.tables.groups, &[], |key, record| {
            let Some(stream) = find(&self.by_no, &self.doomed, &mut self.orphans, key)? else { return Ok(()) };
            let place = |detail: &str| damaged(stream.name.as_str(), &format!("group: {detail}"));
            let name = std::str::from_utf8(&key[4..]).map_err(|error| place(&error.to_string()))?;
            let name = GroupName::new(name).map_err(|error| place(&error.to_string()))?;
            let stored: StoredGroup = decode(record).map_err(|detail| place(&format!("{name}: {detail}")))?;
            let group = Arc::new(Members::new(stored));
            by_no.insert((stream.no, stored.no), Arc::clone(&group));
            stream.groups.lock().by_name.insert(name, group);
            Ok(())
        })?;
        let mut strays = Vec::new();
        each(self.store, self.tables.pending, &[], |key, record| {
            let Some(stream) = find(&self.by_no, &self.doomed, &mut self.orphans, key)? else { return Ok(()) };
            let place = |detail: String| damaged(stream.name.as_str(), &format!("delivery: {detail}"));
            let group = number_at(key, 4).map_err(place)?;
            let id = id_of(key).map_err(place)?;
            let Some(group) = by_no.get(&(stream.no, group)) else {
                strays.push(key.to_vec());
                return Ok(());
            };
            let StoredHeld { consumer, since, deliveries } = decode(record).map_err(place)?;
            let held = Held { consumer: bytes::Bytes::copy_from_slice(consumer), since, deliveries };
            group.ledger.lock().hold(id, held);
            Ok(())
        })?;
        // Their group was given up by a repair; it is made again where it begins, and delivers them again.
        strays.into_iter().for_each(|key| self.batch.delete(self.tables.pending, key));
        Ok(())
    }

    /// Between which instants events may have been lost: after the newest one that is there.
    ///
    /// A `kill -9` under `everysec` loses nothing, but cannot be told from a power cut here.
    fn loss(&mut self, now_ms: u64) -> Option<(u64, u64)> {
        let is_weak = !self.store.ended_cleanly() && self.store.durability() != Durability::Sync;
        if !is_weak && !self.store.was_repaired() && !self.has_lost {
            return None;
        }
        let newest = self.by_no.values().map(|stream| stream.state.lock().last.ms).max()?;
        // Not before the newest itself, which is known to stand next to the one before it; where the clock was set back, the
        // next one has its millisecond.
        let from = newest.saturating_add(1).min(now_ms.max(newest));
        let to = now_ms.max(newest.saturating_add(1));
        self.batch.put(self.tables.streams, key(LOSS, &from.to_be_bytes()), encode(&to));
        Some((from, to))
    }

    /// Compares what the record of a stream says with the events that are there.
    fn compare(&mut self, stream: &Stream) -> Result<(), Error> {
        let state = &mut *stream.state.lock();
        let oldest = self.end(stream, state.removed_to, Order::Forward)?;
        let newest = self.end(stream, state.removed_to, Order::Backward)?;
        let expected = (state.count > 0).then_some(state.last);
        if newest == expected {
            state.first = oldest.unwrap_or(state.first);
            return Ok(());
        }
        let (mut count, mut bytes) = (0, 0);
        let (from, to) = kept_keys(stream, state.removed_to);
        self.store.range(self.tables.events, &from, &to, Order::Forward, |_, record| {
            count += 1;
            bytes += weight(record);
            Ok::<_, Error>(true)
        })?;
        tracing::warn!(stream = %stream.name, events = count, recorded = state.count, "a stream was repaired");
        (state.count, state.bytes) = (count, bytes);
        state.first = oldest.unwrap_or(state.last);
        state.last = state.last.max(newest.unwrap_or_default());
        state.durable = state.last;
        state.tail = super::tail::Tail::at(state.last);
        self.batch.put(
            self.tables.streams,
            key(STREAM, stream.name.as_str().as_bytes()),
            encode(&state.stored(stream.no)),
        );
        self.has_lost = true;
        Ok(())
    }

    fn end(&self, stream: &Stream, removed_to: EventId, order: Order) -> Result<Option<EventId>, Error> {
        let (from, to) = kept_keys(stream, removed_to);
        let mut end = None;
        self.store.range(self.tables.events, &from, &to, order, |key, _| {
            end = Some(id_of(key).map_err(|detail| damaged(stream.name.as_str(), &detail))?);
            Ok::<_, Error>(false)
        })?;
        Ok(end)
    }

    /// Finds events of streams nobody knows, by looking into the gaps between the numbers that are known.
    fn find_orphans(&mut self) -> Result<(), Error> {
        let mut from = 0;
        loop {
            let start = event_key(from, EventId::ZERO);
            let mut found = None;
            self.store.range(self.tables.events, &start, &[u8::MAX; 24], Order::Forward, |key, _| {
                found = Some(number_at(key, 0).map_err(|detail| damaged("events", &detail))?);
                Ok::<_, Error>(false)
            })?;
            let Some(no) = found else { return Ok(()) };
            if !self.by_no.contains_key(&no) && !self.doomed.contains(&no) {
                self.orphans.insert(no);
            }
            from = no + 1;
            // Known ones need no look each.
            while self.by_no.contains_key(&from) {
                from += 1;
            }
        }
    }

    /// Nobody can name the stream of an orphan any more.
    fn doom_orphans(&mut self) {
        for no in self.orphans.drain() {
            tracing::warn!(stream = no, "records of a stream that is not known any more are removed");
            self.batch.put(self.tables.streams, key(DOOMED, &no.to_be_bytes()), Vec::new());
            self.doomed.insert(no);
            self.has_lost = true;
        }
    }

    /// Beyond every number with a record.
    fn next_no(&self) -> Result<u32, Error> {
        let known = self.by_no.keys().chain(&self.doomed).chain(&self.orphans).max().copied().unwrap_or(0);
        let mut last = known;
        self.store.range(self.tables.events, &[0], &[u8::MAX; 24], Order::Backward, |key, _| {
            last = last.max(number_at(key, 0).map_err(|detail| damaged("events", &detail))?);
            Ok::<_, Error>(false)
        })?;
        Ok(last + 1)
    }
}

/// Where the events of a stream are. What was removed is not walked over.
fn kept_keys(stream: &Stream, removed_to: EventId) -> ([u8; 20], [u8; 20]) {
    (event_key(stream.no, removed_to.next()), event_key(stream.no, EventId::MAX))
}

/// The stream a key belongs to; `None` when it is deleted or not known.
fn find<'a>(
    by_no: &'a HashMap<u32, Arc<Stream>>,
    doomed: &HashSet<u32>,
    orphans: &mut HashSet<u32>,
    key: &[u8],
) -> Result<Option<&'a Arc<Stream>>, Error> {
    let no = number_at(key, 0).map_err(|detail| damaged("a stream", &detail))?;
    let stream = by_no.get(&no);
    if stream.is_none() && !doomed.contains(&no) {
        orphans.insert(no);
    }
    Ok(stream)
}

fn name(key: &[u8]) -> Result<StreamName, Error> {
    let text = String::from_utf8_lossy(key);
    StreamName::new(&text).map_err(|error| damaged(&text, &error.to_string()))
}

/// Calls `each` with what follows the prefix and the record.
fn each(
    store: &Store,
    table: Table,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    store.scan(table, prefix, |key, record| {
        // The number of a stream is part of the keys that begin with it.
        let rest = if prefix.len() == 1 { &key[1..] } else { key };
        each(rest, record).map(|()| true)
    })
}
