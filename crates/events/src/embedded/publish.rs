//! Taking events in: everything from the idempotence ids to the batch for the store happens within the lock of the stream,
//! without I/O. [`commit`](super::commit) does the rest when the batch is durable.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};
use tidegate_store::Batch;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::Shared;
use super::commit::{Answer, Commit};
use super::stream::{State, Stream};
use crate::record::{STREAM, TOMB, decode_event, encode, encode_bytes, encode_event, event_key, key, weight};
use crate::{Error, Event, EventId, NewEvent, Published, StreamName};

/// 1 s: retention and trims work in the background and are done with a page of a thousand events by then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Idempotence ids a publish forgets beyond as many as it brings: so old ones go faster than new ones come.
const FORGET_MORE: usize = 16;

/// An event on its way in, without a place yet, and its record.
pub(super) struct Draft {
    event: Event,
    record: Vec<u8>,
}

impl Draft {
    /// What is kept in memory is a copy of its own: the bytes given may be a small part of a large request.
    pub(super) fn new(event: NewEvent) -> Self {
        let record = encode_event(&event);
        let event = decode_event(EventId::ZERO, &record).unwrap_or_else(|_| Event::new(EventId::ZERO, event));
        Self { event, record }
    }
}

/// Where each event of a call stands, and what must be awaited before that may be told.
pub(super) type Accepted = (Vec<Published>, Option<oneshot::Receiver<Answer>>);

/// What an event turns out to be.
#[derive(Clone, Copy)]
enum Fate {
    New,
    /// Published before.
    Known(EventId),
    /// The same as an earlier one of this call.
    Same(usize),
}

impl Shared {
    /// Gives events their places and hands them to the store. Dropping the receiver changes nothing about them.
    pub(super) fn accept(&self, name: &StreamName, drafts: Vec<Draft>) -> Result<Accepted, Error> {
        // Held to the end: once it is taken away, nothing is submitted any more.
        let commits = self.commits.read();
        let Some(commits) = &*commits else { return Err(Error::Draining) };
        let now = self.config.clock.now_ms();
        if let Some(stream) = self.find(name) {
            let state = &mut stream.state.lock();
            // Otherwise it was deleted in this moment, and a new one is made.
            if !state.deleted {
                return self.accept_into(&stream, state, drafts, now, commits, None);
            }
        }
        let directory = &mut *self.directory.write();
        if let Some(stream) = directory.by_name.get(name) {
            // Streams are deleted under the lock of the directory.
            return self.accept_into(stream, &mut stream.state.lock(), drafts, now, commits, None);
        }
        if directory.by_name.len() >= self.config.streams_max {
            return Err(Error::TooMany { what: "streams", capacity: self.config.streams_max });
        }
        let tomb = directory.tombs.get(name);
        let retention = self.config.retention_of(name.as_str());
        let stream = Stream::new(name.clone(), directory.next_no, retention, tomb.unwrap_or(EventId::ZERO));
        let stream = Arc::new(stream);
        let accepted = self.accept_into(&stream, &mut stream.state.lock(), drafts, now, commits, Some(tomb))?;
        directory.next_no += 1;
        directory.tombs.remove(name);
        directory.by_name.insert(name.clone(), stream);
        self.meters.streams.set(directory.by_name.len() as f64);
        Ok(accepted)
    }

    /// `made`: the stream is new, and what its predecessor of the same name left behind.
    fn accept_into(
        &self,
        stream: &Arc<Stream>,
        state: &mut State,
        drafts: Vec<Draft>,
        now: u64,
        commits: &UnboundedSender<Commit>,
        made: Option<Option<EventId>>,
    ) -> Result<Accepted, Error> {
        let fates = self.fates(state, &drafts, now);
        let is_new = |fate: &Fate| matches!(fate, Fate::New);
        let mut new = fates.iter().zip(&drafts).filter(|(fate, _)| is_new(fate)).map(|(_, draft)| draft).peekable();
        if new.peek().is_none() {
            let published = answers(&fates, |_| EventId::ZERO);
            return Ok(self.await_known(stream, state, published, commits));
        }
        let grown = new.map(|draft| weight(&draft.record)).sum();
        self.reserve(grown)?;
        let mut batch = Batch::new();
        let mut drafts = drafts.into_iter();
        let mut ids_brought = 0;
        let published = answers(&fates, |fate| {
            let draft = drafts.next();
            let Some(Draft { event, record }) = draft.filter(|_| is_new(fate)) else { return EventId::ZERO };
            let id = state.next_id(now);
            batch.put(self.tables.events, event_key(stream.no, id), record);
            if let Some(idempotence_id) = &event.idempotence_id {
                batch.put(self.tables.published, event_key(stream.no, id), encode_bytes(idempotence_id));
                // Not a part of the whole record, which would be held with it.
                state.seen.insert(Bytes::copy_from_slice(idempotence_id), id);
                ids_brought += 1;
            }
            state.unsettled.push_back(Event { id, ..event });
            id
        });
        state.bytes += grown;
        if ids_brought > 0 {
            self.forget_seen(stream, state, now, ids_brought + FORGET_MORE, &mut batch);
        }
        if let Some(Some(_)) = made {
            batch.delete(self.tables.streams, key(TOMB, stream.name.as_str().as_bytes()));
        }
        self.put_stream(stream, state, &mut batch);
        let ticket = self.store.submit(batch);
        let (answer, answered) = oneshot::channel();
        let commit = Commit {
            stream: Arc::clone(stream),
            to: Some(state.last),
            ticket: Some(ticket),
            is_new: made.is_some(),
            answer,
        };
        // The receiver is there as long as this sender is.
        let _ = commits.send(commit);
        self.look_ahead(stream, state, now);
        Ok((published, Some(answered)))
    }

    fn fates(&self, state: &State, drafts: &[Draft], now: u64) -> Vec<Fate> {
        let window = self.idempotence_window_ms();
        let mut here = HashMap::new();
        let fate = |(at, draft): (usize, &Draft)| {
            let Some(id) = &draft.event.idempotence_id else { return Fate::New };
            if let Some(known) = state.seen.find(id, now, window) {
                return Fate::Known(known);
            }
            match here.entry(id.clone()) {
                Entry::Occupied(first) => Fate::Same(*first.get()),
                Entry::Vacant(place) => {
                    place.insert(at);
                    Fate::New
                }
            }
        };
        drafts.iter().enumerate().map(fate).collect()
    }

    /// All were published before; that is told once all of them are durable.
    fn await_known(
        &self,
        stream: &Arc<Stream>,
        state: &State,
        published: Vec<Published>,
        commits: &UnboundedSender<Commit>,
    ) -> Accepted {
        if published.iter().all(|published| published.id <= state.durable) {
            return (published, None);
        }
        let (answer, answered) = oneshot::channel();
        let _ = commits.send(Commit { stream: Arc::clone(stream), to: None, ticket: None, is_new: false, answer });
        (published, Some(answered))
    }

    fn reserve(&self, grown: u64) -> Result<(), Error> {
        let capacity = self.config.bytes_max;
        let fits = |bytes: u64| bytes.checked_add(grown).filter(|bytes| *bytes <= capacity);
        match self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(before) => {
                self.meters.bytes.set((before + grown) as f64);
                Ok(())
            }
            Err(bytes) => Err(Error::Full { bytes, capacity, retry_after: RETRY_AFTER }),
        }
    }

    /// The record of a stream, which goes with every change of its events.
    pub(super) fn put_stream(&self, stream: &Stream, state: &State, batch: &mut Batch) {
        batch.put(self.tables.streams, key(STREAM, stream.name.as_str().as_bytes()), encode(&state.stored(stream.no)));
    }

    /// Forgets idempotence ids that are over or too many; says whether some may be left.
    pub(super) fn forget_seen(
        &self,
        stream: &Stream,
        state: &mut State,
        now: u64,
        budget: usize,
        batch: &mut Batch,
    ) -> bool {
        let window = self.idempotence_window_ms();
        let forgotten = state.seen.forget(now, window, self.config.idempotence_max, budget);
        for id in &forgotten.events {
            batch.delete(self.tables.published, event_key(stream.no, *id));
        }
        self.meters.forgotten.add(forgotten.early);
        forgotten.events.len() == budget
    }

    pub(super) fn idempotence_window_ms(&self) -> u64 {
        u64::try_from(self.config.idempotence_window.as_millis()).unwrap_or(u64::MAX)
    }
}

fn answers(fates: &[Fate], mut place: impl FnMut(&Fate) -> EventId) -> Vec<Published> {
    let mut published: Vec<Published> = Vec::with_capacity(fates.len());
    for fate in fates {
        let new = place(fate);
        published.push(match fate {
            Fate::New => Published { id: new, duplicate: false },
            Fate::Known(id) => Published { id: *id, duplicate: true },
            Fate::Same(first) => Published { id: published[*first].id, duplicate: true },
        });
    }
    published
}
