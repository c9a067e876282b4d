//! The one task that keeps all streams up: retention, idempotence ids that are over, the rest of deleted streams. It sleeps
//! until something is due, and without a timer when nothing is.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_store::{Batch, Order, Table};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::stream::{NEVER, State, Stream};
use crate::record::{DOOMED, key};
use crate::{Error, Trim};

/// Idempotence ids forgotten under one lock.
const FORGET_MAX: usize = 500;
/// Records of a deleted stream that go in one batch.
const PAGE: usize = 1000;
/// 100 ms: a stream that is published to faster than it is cut does not keep others from being looked at.
const AGAIN_MS: u64 = 100;
/// 60 s: a stream whose records cannot be read is looked at again, without filling the log.
const TRY_AGAIN_MS: u64 = 60_000;

/// What is to be done, and when.
#[derive(Default)]
pub(super) struct Agenda {
    /// By the instant they are due, in milliseconds since 1970. Locked last.
    streams: Mutex<BTreeMap<(u64, u32), Weak<Stream>>>,
    doomed: Mutex<Vec<Doomed>>,
    wake: Notify,
}

/// A deleted stream whose records are to be removed, and how far that has come.
#[derive(Clone)]
struct Doomed {
    no: u32,
    /// The place of the table among those with keys by stream.
    table: usize,
    from: Vec<u8>,
}

impl Doomed {
    fn new(no: u32) -> Self {
        Self { no, table: 0, from: no.to_be_bytes().into() }
    }
}

impl Agenda {
    pub(super) fn doom(&self, streams: impl IntoIterator<Item = u32>) {
        self.doomed.lock().extend(streams.into_iter().map(Doomed::new));
        self.wake.notify_one();
    }

    /// Moves a stream to another instant.
    fn set(&self, stream: &Arc<Stream>, state: &mut State, due: u64) {
        let mut streams = self.streams.lock();
        streams.remove(&(state.due, stream.no));
        state.due = due;
        if due == NEVER {
            return;
        }
        streams.insert((due, stream.no), Arc::downgrade(stream));
        if streams.first_key_value().is_some_and(|((first, no), _)| (*first, *no) == (due, stream.no)) {
            self.wake.notify_one();
        }
    }

    pub(super) fn forget(&self, stream: &Arc<Stream>, state: &mut State) {
        self.set(stream, state, NEVER);
    }

    fn next(&self) -> u64 {
        self.streams.lock().first_key_value().map_or(NEVER, |((due, _), _)| *due)
    }

    fn pop(&self, now: u64) -> Option<Arc<Stream>> {
        let mut streams = self.streams.lock();
        while let Some(first) = streams.first_entry().filter(|first| first.key().0 <= now) {
            if let Some(stream) = first.remove().upgrade() {
                return Some(stream);
            }
        }
        None
    }
}

/// Runs until the bus is closed or dropped.
pub(super) async fn run(shared: Weak<Shared>, agenda: Arc<Agenda>, stop: CancellationToken) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = strong.keep_all_up() => next,
        };
        let now = strong.config.clock.now_ms();
        drop(strong);
        // At least a millisecond, so that a clock that stands still does not make this spin.
        let sleep = tokio::time::sleep(Duration::from_millis(next.saturating_sub(now).max(1)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = agenda.wake.notified() => {}
            () = sleep, if next != NEVER => {}
        }
    }
}

impl Shared {
    /// Puts a stream on the agenda when it is due earlier than it stands there; a clock that was moved is noticed here, too.
    pub(super) fn look_ahead(&self, stream: &Arc<Stream>, state: &mut State, now: u64) {
        let due = stream.next_due(state, self.idempotence_window_ms());
        if due < state.due {
            self.agenda.set(stream, state, due);
        } else if state.due <= now {
            self.agenda.wake.notify_one();
        }
    }

    /// Does what is due; answers when the next thing is.
    async fn keep_all_up(self: &Arc<Self>) -> u64 {
        if self.store.check().is_err() {
            // A store that has stopped takes nothing any more, so nothing is due.
            return NEVER;
        }
        loop {
            let is_more = self.remove_doomed().await.unwrap_or_else(|error| {
                tracing::error!(%error, "failed to remove the records of deleted streams; the next start does");
                false
            });
            self.keep_due_up().await;
            if !is_more {
                return self.agenda.next();
            }
        }
    }

    async fn keep_due_up(self: &Arc<Self>) {
        while let Some(stream) = self.agenda.pop(self.config.clock.now_ms()) {
            let kept_up = self.keep_up(&stream).await;
            let now = self.config.clock.now_ms();
            let state = &mut *stream.state.lock();
            match kept_up {
                Ok(()) => {
                    let due = stream.next_due(state, self.idempotence_window_ms());
                    // What came in meanwhile may make it due already; others have their turn first.
                    self.agenda.set(&stream, state, due.max(now.saturating_add(AGAIN_MS)));
                }
                Err(error) => {
                    tracing::error!(stream = %stream.name, %error, "failed to remove old events");
                    self.agenda.set(&stream, state, now.saturating_add(TRY_AGAIN_MS));
                }
            }
        }
    }

    async fn keep_up(self: &Arc<Self>, stream: &Arc<Stream>) -> Result<(), Error> {
        let now = self.config.clock.now_ms();
        {
            let state = &mut *stream.state.lock();
            // It was taken off the agenda; who publishes from now on may put it there again.
            state.due = NEVER;
            if state.deleted {
                return Ok(());
            }
        }
        while self.forget_some(stream, now) {
            tokio::task::yield_now().await;
        }
        if let Some(length) = stream.retention.length_max {
            self.remove_oldest(stream, Trim::MaxLength(length)).await?;
        }
        if let Some(oldest) = stream.age_ms().and_then(|age| now.checked_sub(age)) {
            self.remove_oldest(stream, Trim::Before(crate::EventId { ms: oldest, seq: 0 })).await?;
        }
        Ok(())
    }

    fn forget_some(&self, stream: &Stream, now: u64) -> bool {
        let state = &mut *stream.state.lock();
        let mut batch = Batch::new();
        let more = !state.deleted && self.forget_seen(stream, state, now, FORGET_MAX, &mut batch);
        if !batch.is_empty() {
            self.store.submit_loose(batch);
        }
        more
    }

    /// Removes a page of the records of deleted streams and says whether there may be more; what is left at the end of the
    /// process the next start removes.
    async fn remove_doomed(self: &Arc<Self>) -> Result<bool, Error> {
        let Some(doomed) = self.agenda.doomed.lock().last().cloned() else { return Ok(false) };
        let Doomed { no, table, from } = doomed;
        let mut batch = Batch::new();
        let next = match self.tables.by_stream().get(table) {
            Some(records) => {
                let (records, end) = (*records, no.saturating_add(1).to_be_bytes());
                let keys = self.blocking(move |shared| shared.some_keys(records, &from, &end)).await?;
                if records == self.tables.events {
                    self.meters.removed.add(keys.len() as u64);
                }
                let next = match keys.last() {
                    // On from there: what was deleted before it is walked over again otherwise.
                    Some(last) if keys.len() == PAGE => Doomed { no, table, from: [last, &[0][..]].concat() },
                    _ => Doomed { table: table + 1, ..Doomed::new(no) },
                };
                keys.into_iter().for_each(|key| batch.delete(records, key));
                Some(next)
            }
            None => {
                batch.delete(self.tables.streams, key(DOOMED, &no.to_be_bytes()));
                None
            }
        };
        if !batch.is_empty() {
            self.store.submit(batch).await?;
        }
        let mut doomed = self.agenda.doomed.lock();
        doomed.retain(|other| other.no != no);
        doomed.extend(next);
        Ok(!doomed.is_empty())
    }

    fn some_keys(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut keys = Vec::new();
        self.store.range(table, from, to, Order::Forward, |key, _| {
            keys.push(key.to_vec());
            Ok::<_, Error>(keys.len() < PAGE)
        })?;
        Ok(keys)
    }
}
