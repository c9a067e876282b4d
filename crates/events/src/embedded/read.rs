//! Reading events: from the tail where it reaches, otherwise from the disk, on a thread of its own.

use std::sync::Arc;

use tidegate_store::{Error as StoreError, Order as Walk};

use super::stream::Stream;
use super::tail::{Filling, PAGE_BYTES_MAX};
use super::{Shared, damaged};
use crate::record::{decode_event, event_key, id_of};
use crate::{Error, Event, EventId, Order, Page, Read};

/// Reads of the disk at a time; others wait their turn.
pub(super) const READS_MAX: u32 = 16;

impl Shared {
    pub(super) async fn read(self: &Arc<Self>, stream: &Arc<Stream>, read: Read) -> Result<Page, Error> {
        let read = {
            let state = stream.state.lock();
            if let Some(page) = state.read(read) {
                return Ok(page);
            }
            // The engine would walk over what was removed.
            let after = read.after.max(state.removed_to);
            Read { after, before: read.before.min(state.durable.next()), ..read }
        };
        let of = Arc::clone(stream);
        let page = self.blocking(move |shared| shared.read_disk(&of, read)).await?;
        // Of a stream deleted meanwhile the page may have holes.
        if stream.state.lock().deleted { Err(stream.not_found()) } else { Ok(page) }
    }

    fn read_disk(&self, stream: &Stream, read: Read) -> Result<Page, Error> {
        let walk = match read.order {
            Order::Ascending => Walk::Forward,
            Order::Descending => Walk::Backward,
        };
        let (from, to) = (event_key(stream.no, read.after.next()), event_key(stream.no, read.before));
        let mut filling = Filling::new(read.limit);
        self.store.range(self.tables.events, &from, &to, walk, |key, record| {
            if !filling.has_room() {
                return Ok(false);
            }
            filling.push(stream.decode(key, record)?);
            Ok::<_, Error>(true)
        })?;
        Ok(filling.done())
    }

    /// The events of these places, as many as a page holds, each with its place; `None` for those that are gone.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        ids: Vec<EventId>,
    ) -> Result<Vec<(EventId, Option<Event>)>, Error> {
        let mut found: Vec<(EventId, Option<Option<Event>>)> = {
            let state = stream.state.lock();
            let look = |id: EventId| {
                let here = state.tail.find(id);
                (here.is_some() || id <= state.removed_to || state.tail.covers(id.previous())).then(|| here.cloned())
            };
            ids.into_iter().map(|id| (id, look(id))).collect()
        };
        if found.iter().all(|(_, event)| event.is_some()) {
            return Ok(found.into_iter().map(|(id, event)| (id, event.flatten())).collect());
        }
        let of = Arc::clone(stream);
        self.blocking(move |shared| {
            let mut bytes = 0;
            let mut events = Vec::with_capacity(found.len());
            for (id, event) in found.drain(..) {
                let event = match event {
                    Some(event) => event,
                    None => shared.read_one(&of, id)?,
                };
                bytes += event.as_ref().map_or(0, Event::bytes);
                events.push((id, event));
                if bytes >= PAGE_BYTES_MAX {
                    break;
                }
            }
            Ok(events)
        })
        .await
    }

    fn read_one(&self, stream: &Stream, id: EventId) -> Result<Option<Event>, Error> {
        let key = event_key(stream.no, id);
        self.store.get(self.tables.events, &key)?.map(|record| stream.decode(&key, &record)).transpose()
    }

    /// Runs what waits for the disk off the async threads, a few at a time.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let shared = Arc::clone(self);
        // The permit goes with the work, which goes on when nobody waits for it any more.
        let work = tokio::task::spawn_blocking(move || {
            let result = work(&shared);
            drop((shared, permit));
            result
        });
        match work.await {
            Ok(result) => result,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Blocking work is only cancelled by a runtime that shuts down, and then nobody polls this any more.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Stream {
    fn decode(&self, key: &[u8], record: &[u8]) -> Result<Event, Error> {
        let id = id_of(key).map_err(|detail| damaged(self.name.as_str(), &detail))?;
        decode_event(id, record).map_err(|detail| damaged(self.name.as_str(), &format!("event {id}: {detail}")))
    }

    pub(super) fn not_found(&self) -> Error {
        Error::StreamNotFound { name: self.name.to_string() }
    }
}
