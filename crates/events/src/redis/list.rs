//! Which streams there are, and deleting some.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_redis_ops::{Coalescer, Listing, StreamId};

use super::call::{self, Again};
use super::read::describe;
use super::scripts::SCRIPTS;
use super::{RedisBus, Shared};
use crate::{Error, EventId, Pattern, StreamName, StreamPage};

/// Callers whose pages are looked up in one round trip.
const SHARED_MAX: usize = 1000;
/// Streams deleted in one round trip.
const DELETED_AT_ONCE: usize = 100;

/// Which page: names that begin with, after, at most.
type Wanted = (Box<str>, Option<StreamName>, usize);

/// Callers that list at the same time share a round trip, and those that want the same page share it.
pub(super) struct Lists(Coalescer<Wanted, Result<StreamPage, Error>>);

impl Lists {
    pub(super) fn new(shared: Weak<Shared>) -> Self {
        let look = move |wanted: Vec<Wanted>| {
            let shared = shared.clone();
            async move {
                match shared.upgrade() {
                    Some(shared) => shared.pages(wanted).await,
                    None => wanted.iter().map(|_| Err(Error::Draining)).collect(),
                }
            }
        };
        Self(Coalescer::new(SHARED_MAX, |_| 1, look))
    }
}

impl RedisBus {
    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Result<StreamPage, Error> {
        let wanted = (prefix.into(), after.cloned(), limit);
        self.shared().lists.0.submit(wanted).await.unwrap_or(Err(Error::Draining))
    }

    pub(crate) async fn matching(&self, pattern: &Pattern, limit: usize) -> Result<Vec<StreamName>, Error> {
        let keys = &self.shared().keys;
        let listing = self.shared().registry.listing().await?;
        let begin = format!("{}{}", keys.stream_prefix(), pattern.literal_prefix());
        let names = listing.names[beginning_with(&listing, begin.as_bytes())].iter();
        let matching = names.filter_map(|key| keys.name(key)).filter(|name| pattern.matches(name.as_str()));
        Ok(matching.take(limit).collect())
    }

    pub(crate) async fn delete(&self, streams: &[StreamName]) -> Result<Vec<Option<EventId>>, Error> {
        let mut deleted = Vec::with_capacity(streams.len());
        for some in streams.chunks(DELETED_AT_ONCE) {
            for outcome in join_all(some.iter().map(|stream| self.shared().delete_one(stream))).await {
                deleted.push(outcome?);
            }
        }
        Ok(deleted)
    }
}

impl Shared {
    async fn delete_one(&self, stream: &StreamName) -> Result<Option<EventId>, Error> {
        let keys = &self.keys;
        let key = keys.stream(stream);
        let all = [key.clone(), keys.ended(stream), keys.seen(stream), keys.ages(stream), keys.made(stream)];
        let args = [keys.bell.clone(), Bytes::copy_from_slice(self.process.as_bytes())];
        let reply = call::run(&self.redis, &SCRIPTS.delete, &all, &args, Again::Never).await?;
        self.registry.deleted(&key);
        self.positions.forget(stream);
        let end = reply.into_bytes_or_nil()?;
        Ok(end.and_then(|end| StreamId::from_bytes(&end)).map(EventId::from))
    }

    async fn pages(&self, wanted: Vec<Wanted>) -> Vec<Result<StreamPage, Error>> {
        let listing = match self.registry.listing().await {
            Ok(listing) => listing,
            Err(error) => return wanted.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let mut pages: HashMap<Wanted, Result<StreamPage, Error>> = HashMap::new();
        let mut asked: Vec<(Wanted, Range<usize>, bool)> = Vec::new();
        for one in &wanted {
            if !asked.iter().any(|(other, ..)| other == one) {
                let (range, more) = self.page(&listing, one);
                asked.push((one.clone(), range, more));
            }
        }
        let all: Vec<Bytes> =
            asked.iter().flat_map(|(_, range, _)| listing.names[range.clone()].iter().cloned()).collect();
        let looked = call::retried(Again::Harmless, || self.redis.stream_infos(&all)).await;
        let cached_at_ms = listing.cached_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut infos = match looked {
            Ok(infos) => infos.into_iter(),
            Err(error) => return wanted.iter().map(|_| Err(error.clone().into())).collect(),
        };
        for (one, range, more) in asked {
            let names = &listing.names[range];
            let found = names.iter().zip(infos.by_ref().take(names.len()));
            let streams = found.filter_map(|(key, info)| Some(describe(self.keys.name(key)?, &info?))).collect();
            let next = names.last().filter(|_| more).and_then(|key| self.keys.name(key));
            pages.insert(one, Ok(StreamPage { streams, next, cached_at_ms }));
        }
        wanted.iter().map(|one| pages.get(one).cloned().unwrap_or(Err(Error::Draining))).collect()
    }

    /// Where a page lies in the listing, and whether more follows it.
    fn page(&self, listing: &Arc<Listing>, (prefix, after, limit): &Wanted) -> (Range<usize>, bool) {
        let begin = format!("{}{prefix}", self.keys.stream_prefix());
        let range = beginning_with(listing, begin.as_bytes());
        let after = after.as_ref().map(|name| self.keys.stream(name));
        let first = match after {
            Some(after) => listing.names.partition_point(|name| *name <= after).clamp(range.start, range.end),
            None => range.start,
        };
        let end = range.end.min(first + limit);
        (first..end, end < range.end)
    }
}

fn beginning_with(listing: &Listing, begin: &[u8]) -> Range<usize> {
    let names = &listing.names;
    let first = names.partition_point(|name| &name[..] < begin);
    first..first + names[first..].partition_point(|name| name.starts_with(begin))
}
