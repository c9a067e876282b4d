//! Reading and writing without a loader: tier 1, then Redis.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cache::Shared;
use crate::compress::Packed;
use crate::error::Error;
use crate::invalidation::Invalidation;
use crate::keep::Keep;
use crate::key::KeyRef;
use crate::redis::{Alive, Found, Write};
use crate::tier1::{Look, Ticket};

/// Values from this size on are turned from and into bytes on a thread of their own: so many take less than 0.1 ms.
const HEAVY_BYTES: usize = 64 * 1024;

/// Does something now and once more at the end, however that comes: what was read in between may be from before.
struct TwoTimes<F: FnMut()>(F);

impl<F: FnMut()> TwoTimes<F> {
    fn new(mut what: F) -> Self {
        what();
        Self(what)
    }
}

impl<F: FnMut()> Drop for TwoTimes<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<V: Clone + Send + Sync + 'static> Shared<V> {
    /// A value that tier 1 does not have.
    pub(crate) async fn read(self: &Arc<Self>, key: KeyRef<'_>) -> Result<Option<V>, Error> {
        self.check_key(key.text)?;
        let Some(tier2) = &self.tier2 else { return Ok(None) };
        let ticket = self.tier1.ticket(key);
        let found = tier2.read(key).await.inspect_err(|_| self.missed())?;
        Ok(self.found(key, ticket, found).await)
    }

    pub(crate) async fn read_many(self: &Arc<Self>, keys: &[KeyRef<'_>]) -> Result<Vec<Option<V>>, Error> {
        keys.iter().try_for_each(|key| self.check_key(key.text))?;
        let mut values = vec![None; keys.len()];
        let mut missing = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            if let Some(value) = self.fresh(*key) {
                values[place] = value;
                continue;
            }
            match self.look(*key) {
                Look::Fresh(value) => values[place] = value,
                Look::Stale(..) => {
                    self.metrics.memory_misses.inc();
                    missing.push(place);
                }
                Look::Unverified | Look::Nothing => missing.push(place),
            }
        }
        let Some(tier2) = &self.tier2 else { return Ok(values) };
        if missing.is_empty() {
            return Ok(values);
        }
        let asked: Vec<KeyRef<'_>> = missing.iter().map(|&place| keys[place]).collect();
        let tickets: Vec<Ticket> = asked.iter().map(|key| self.tier1.ticket(*key)).collect();
        let found = tier2.read_many(&asked).await.inspect_err(|_| asked.iter().for_each(|_| self.missed()))?;
        for (((place, key), ticket), found) in missing.into_iter().zip(asked).zip(tickets).zip(found) {
            values[place] = self.found(key, ticket, found).await;
        }
        Ok(values)
    }

    /// Takes what Redis said, and counts it.
    async fn found(self: &Arc<Self>, key: KeyRef<'_>, ticket: Ticket, found: Found) -> Option<V> {
        let value = match found {
            Found::Alive(alive) if alive.past() == 0 => self.take(key, ticket, alive).await,
            _ => None,
        };
        match &value {
            Some(_) => self.metrics.redis_hits.inc(),
            None => self.metrics.redis_misses.inc(),
        }
        value.flatten()
    }

    /// Decodes what Redis had and keeps it in tier 1. `None`: it cannot be read.
    pub(crate) async fn take(self: &Arc<Self>, key: KeyRef<'_>, ticket: Ticket, alive: Alive) -> Option<Option<V>> {
        let value = match alive.payload {
            None => None,
            Some(payload) => match self.decode(payload).await {
                Ok(value) => Some(value),
                Err(error) => {
                    tracing::debug!(key = key.text, %error, "a value on Redis cannot be read");
                    self.metrics.unreadable.inc();
                    return None;
                }
            },
        };
        let weight = value.as_ref().map_or(0, |value| self.codec.weight(value));
        let mut entry = self.entry(value.clone(), weight, 0, alive.stale_for, alive.tags);
        entry.terms.fresh_until = alive.fresh_until;
        self.tier1.fill(key, ticket, entry);
        Some(value)
    }

    async fn decode(self: &Arc<Self>, payload: Packed) -> Result<V, Error> {
        let most = self.config.value_bytes_max;
        if payload.unpacked_len() < HEAVY_BYTES {
            return self.codec.decode(payload.unpack(most)?).map_err(Error::Decode);
        }
        let codec = self.codec.clone();
        let decode = move || codec.decode(payload.unpack(most)?).map_err(Error::Decode);
        tokio::task::spawn_blocking(decode).await.unwrap_or(Err(Error::Closed))
    }

    /// The bytes of a value as they go to Redis, and what it weighs here.
    pub(crate) async fn encode(self: &Arc<Self>, value: &V) -> Result<(Packed, usize), Error> {
        let (codec, value) = (self.codec.clone(), value.clone());
        let (from, most) = (self.config.compress_from, self.config.value_bytes_max);
        let bytes = codec.encode(&value).map_err(Error::Encode)?;
        if bytes.len() > most {
            return Err(Error::TooLarge { bytes: bytes.len(), bytes_max: most });
        }
        let weight = codec.weight(&value);
        if bytes.len() < HEAVY_BYTES {
            return Ok((Packed::pack(bytes, from), weight));
        }
        let packed = tokio::task::spawn_blocking(move || Packed::pack(bytes, from)).await;
        Ok((packed.map_err(|_| Error::Closed)?, weight))
    }

    /// Keeps a value where there is no Redis.
    pub(crate) fn put(&self, key: KeyRef<'_>, value: V, keep: &Keep) -> Result<(), Error> {
        self.check_key(key.text)?;
        self.check_tags(keep)?;
        self.check_open()?;
        let weight = self.codec.weight(&value);
        if weight > self.config.value_bytes_max {
            return Err(Error::TooLarge { bytes: weight, bytes_max: self.config.value_bytes_max });
        }
        let (fresh, stale) = self.times(keep, false);
        let tags = self.tier1.tags.hold(keep.tags.iter().map(|tag| &**tag));
        self.tier1.put(key, self.entry(Some(value), weight, fresh, stale, tags));
        Ok(())
    }

    pub(crate) async fn write_many(self: &Arc<Self>, entries: Vec<(String, V, Keep)>) -> Result<(), Error> {
        self.check_open()?;
        for (key, _, keep) in &entries {
            self.check_key(key)?;
            self.check_tags(keep)?;
        }
        let Some(tier2) = &self.tier2 else {
            return entries.into_iter().try_for_each(|(key, value, keep)| self.put(self.tier1.key(&key), value, &keep));
        };
        // They go out together: of two for one key only the last one counts.
        let last: HashMap<String, usize> =
            entries.iter().enumerate().map(|(place, (key, ..))| (key.clone(), place)).collect();
        // All that is to be asked about tags is asked at once.
        let tags: BTreeSet<&str> = entries.iter().flat_map(|(.., keep)| keep.tags.iter().map(|tag| &**tag)).collect();
        let lives = entries.iter().map(|(.., keep)| self.times(keep, false)).map(|(fresh, stale)| fresh + stale);
        let all_tags = self.tier1.tags.hold(tags);
        tier2.open(&all_tags, lives.max().unwrap_or(0)).await?;
        let mut writes = Vec::with_capacity(last.len());
        for (place, (key, value, keep)) in entries.into_iter().enumerate() {
            if last[&key] != place {
                continue;
            }
            let (packed, weight) = self.encode(&value).await?;
            let (fresh, stale) = self.times(&keep, false);
            let tags = self.tier1.tags.hold(keep.tags.iter().map(|tag| &**tag));
            let opening = tier2.open(&tags, fresh + stale).await?;
            let entry = self.entry(Some(value), weight, fresh, stale, tags);
            let ending = Box::new(self.tier1.begin_write(&key, entry));
            writes.push(Write { key: key.into(), payload: Some(packed), fresh, stale, opening, ending });
        }
        tier2.write_many(writes).await
    }

    /// Deletes keys everywhere; how many had a value.
    pub(crate) async fn delete(self: &Arc<Self>, keys: &[KeyRef<'_>]) -> Result<u64, Error> {
        keys.iter().try_for_each(|key| self.check_key(key.text))?;
        match &self.tier2 {
            None => Ok(keys.iter().filter(|key| self.tier1.forget(**key).is_some()).count() as u64),
            Some(tier2) => {
                let _twice = TwoTimes::new(|| keys.iter().for_each(|key| drop(self.tier1.forget(*key))));
                let texts: Vec<&str> = keys.iter().map(|key| key.text).collect();
                tier2.delete(&texts).await
            }
        }
    }

    /// Whether there can be anything that this covers.
    pub(crate) fn can_cover(&self, what: &Invalidation) -> bool {
        match what {
            Invalidation::Key(key) => self.check_key(key).is_ok(),
            Invalidation::Tag(tag) => self.check_tag(tag).is_ok(),
            Invalidation::Prefix(prefix) => self.check_prefix(prefix).is_ok(),
            Invalidation::All => true,
        }
    }

    pub(crate) async fn invalidate(self: &Arc<Self>, what: &[Invalidation]) -> Result<(), Error> {
        let (mut keys, mut tags, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        for one in what {
            match one {
                Invalidation::Key(key) => keys.push(self.tier1.key(key)),
                Invalidation::Tag(tag) => {
                    self.check_tag(tag)?;
                    tags.push(&**tag);
                }
                Invalidation::Prefix(prefix) => {
                    self.check_prefix(prefix)?;
                    prefixes.push(&**prefix);
                }
                Invalidation::All => prefixes.push(""),
            }
        }
        if !keys.is_empty() {
            self.delete(&keys).await?;
        }
        if !tags.is_empty() {
            let _twice = TwoTimes::new(|| tags.iter().for_each(|tag| self.tier1.forget_tag(tag)));
            if let Some(tier2) = &self.tier2 {
                tier2.change_tags(&tags).await?;
            }
        }
        for prefix in prefixes {
            let _twice = TwoTimes::new(|| self.tier1.forget_prefix(prefix));
            if let Some(tier2) = &self.tier2 {
                let number = tier2.change_prefix(prefix).await?;
                tier2.sweep_later(if number == 0 { "" } else { prefix }, number);
            }
        }
        Ok(())
    }

    pub(crate) async fn clear(
        self: &Arc<Self>,
        prefix: &str,
        progress: impl FnMut(u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        self.check_prefix(prefix)?;
        let Some(tier2) = &self.tier2 else {
            let (tier1, prefix) = (self.tier1.clone(), prefix.to_owned());
            let now = self.config.clock.now();
            return tokio::task::spawn_blocking(move || tier1.clear(&prefix, now)).await.map_err(|_| Error::Closed);
        };
        let _twice = TwoTimes::new(|| self.tier1.forget_prefix(prefix));
        let number = tier2.change_prefix(prefix).await?;
        if number > 0 || !prefix.is_empty() {
            tier2.sweep_later(if number == 0 { "" } else { prefix }, number);
        }
        tier2.sweep(prefix, number, progress, cancel).await
    }

    fn check_prefix(&self, prefix: &str) -> Result<(), Error> {
        let most = self.config.key_bytes_max;
        match prefix.len() <= most {
            true => Ok(()),
            false => Err(Error::Invalid { field: "prefix", reason: format!("at most {most} bytes") }),
        }
    }
}
