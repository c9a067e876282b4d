//! Deleting what matches a pattern without stalling anybody.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::redis::Redis;
use crate::scan::ScanOptions;
use crate::wire::slot_of;

/// How to delete many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Keys per `UNLINK`. 1000: 10 000 brings the stall of `KEYS` + `DEL` back.
    pub batch: usize,
    /// `COUNT` of the `SCAN` calls. 1000.
    pub count: u32,
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self { batch: 1000, count: 1000 }
    }
}

pub(crate) async fn delete_matching(
    redis: &Redis,
    pattern: Bytes,
    options: DeleteOptions,
    mut progress: impl FnMut(u64),
    cancel: &CancellationToken,
) -> Result<u64, Error> {
    let batch = options.batch.max(1);
    let mut scan = redis.scan(pattern, ScanOptions { count: options.count, kind: None });
    let (mut gathered, mut deleted) = (Vec::new(), 0);
    while let Some(page) = scan.next_page().await {
        if cancel.is_cancelled() {
            return Ok(deleted);
        }
        gathered.extend(page?);
        while gathered.len() >= batch {
            let rest = gathered.split_off(batch);
            deleted += unlink(redis, std::mem::replace(&mut gathered, rest)).await?;
            progress(deleted);
        }
    }
    if !gathered.is_empty() && !cancel.is_cancelled() {
        deleted += unlink(redis, gathered).await?;
        progress(deleted);
    }
    Ok(deleted)
}

/// Frees the memory in the background of Redis. In a cluster one request per slot, all in flight together.
async fn unlink(redis: &Redis, keys: Vec<Bytes>) -> Result<u64, Error> {
    if !redis.is_cluster() {
        return unlink_slot(redis, keys).await;
    }
    let mut slots: HashMap<u16, Vec<Bytes>> = HashMap::new();
    for key in keys {
        slots.entry(slot_of(&key)).or_default().push(key);
    }
    Ok(try_join_all(slots.into_values().map(|keys| unlink_slot(redis, keys))).await?.iter().sum())
}

async fn unlink_slot(redis: &Redis, keys: Vec<Bytes>) -> Result<u64, Error> {
    let deleted = redis.command("UNLINK", keys.first().cloned(), keys).await?.as_int()?;
    Ok(u64::try_from(deleted).unwrap_or(0))
}
