//! Removing the oldest events of a stream, a page at a time, while others publish and read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_store::{Batch, Order, Ticket};

use super::stream::{Removal, Stream};
use super::{Shared, damaged};
use crate::record::{event_key, id_of, weight};
use crate::{Error, EventId, Trim};

/// Events removed under one lock and in one batch: about a millisecond.
const PAGE: u64 = 1000;
/// Pages on their way to the disk at a time.
const AHEAD: u64 = 8;

/// The oldest events found.
struct Found {
    oldest: Vec<(EventId, u64)>,
    /// The one after them.
    next: Option<EventId>,
}

impl Shared {
    /// Removes the oldest events and says how many; durable when it answers. What comes in meanwhile is not counted.
    pub(super) async fn remove_oldest(self: &Arc<Self>, stream: &Arc<Stream>, trim: Trim) -> Result<u64, Error> {
        let _turn = stream.removal.lock().await;
        let Some(Removal { before, mut left }) = stream.state.lock().removal(trim) else { return Ok(0) };
        let (mut removed, mut pages, mut ticket) = (0, 0, None);
        while left > 0 {
            let of = Arc::clone(stream);
            let found = self.blocking(move |shared| shared.find_oldest(&of, before, left.min(PAGE))).await?;
            let gone = found.oldest.len() as u64;
            let is_last = gone < left.min(PAGE);
            match self.remove_found(stream, &found) {
                Some(submitted) => ticket = Some(submitted),
                None => break,
            }
            (removed, left, pages) = (removed + gone, left - gone, pages + 1);
            if is_last {
                break;
            }
            if pages % AHEAD == 0
                && let Some(ticket) = ticket.take()
            {
                ticket.await?;
            }
        }
        if let Some(ticket) = ticket {
            ticket.await?;
        }
        Ok(removed)
    }

    fn find_oldest(&self, stream: &Stream, before: EventId, limit: u64) -> Result<Found, Error> {
        let (from, to) = {
            let state = stream.state.lock();
            (event_key(stream.no, state.first), event_key(stream.no, state.durable.next()))
        };
        let mut found = Found { oldest: Vec::new(), next: None };
        self.store.range(self.tables.events, &from, &to, Order::Forward, |key, record| {
            let id = id_of(key).map_err(|detail| damaged(stream.name.as_str(), &detail))?;
            let goes = id < before && (found.oldest.len() as u64) < limit;
            if goes {
                found.oldest.push((id, weight(record)));
            } else {
                found.next = Some(id);
            }
            Ok::<_, Error>(goes)
        })?;
        Ok(found)
    }

    /// `None` when there is nothing to remove any more.
    fn remove_found(&self, stream: &Stream, found: &Found) -> Option<Ticket> {
        let state = &mut *stream.state.lock();
        let (to, _) = *found.oldest.last()?;
        if state.deleted {
            return None;
        }
        let mut batch = Batch::new();
        for (id, _) in &found.oldest {
            batch.delete(self.tables.events, event_key(stream.no, *id));
        }
        let bytes = found.oldest.iter().map(|(_, bytes)| bytes).sum();
        let gone = found.oldest.len() as u64;
        let tail = state.tail.bytes();
        state.removed(gone, bytes, to, found.next);
        self.tails.changed(tail, state.tail.bytes());
        self.put_stream(stream, state, &mut batch);
        self.freed(bytes);
        self.meters.removed.add(gone);
        Some(self.store.submit(batch))
    }

    /// Bytes that count no more.
    pub(super) fn freed(&self, bytes: u64) {
        let less = |all: u64| Some(all.saturating_sub(bytes));
        if let Ok(before) = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            self.meters.bytes.set(before.saturating_sub(bytes) as f64);
        }
    }
}
