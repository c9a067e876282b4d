//! How jobs, claims, history and queues are written down: postcard behind a version byte, under big-endian keys.
//!
//! | table         | key                        | value                                                        |
//! |---------------|----------------------------|--------------------------------------------------------------|
//! | `queues`      | `epoch`                    | number of the last start, u32                                |
//! | `queues`      | `q` name                   | [`StoredQueue`]                                              |
//! | `jobs`        | queue u32, number u64      | [`StoredJob`], payload and result inside when small          |
//! | `payloads`    | queue, number, part u8     | a large payload (part 0) or result (part 1)                  |
//! | `claims`      | queue, grant u64           | [`StoredClaim`]: which jobs were handed out together         |
//! | `history`     | queue, first place u64     | [`StoredChunk`]                                              |
//! | `idempotency` | queue, place u64           | [`StoredIdempotency`]                                        |
//!
//! A job that runs is stored as it was before it was claimed; the claims newer than its `floor` say that it runs. So a
//! claim of many jobs is one small record, and nothing is rewritten when they start.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_store::Table;

use crate::core::{Entry, Payload, Spec};
use crate::{Backoff, Change, Job, JobId, QueueName, State, UnixMillis};

/// The tables a store must be opened with to keep queues.
pub const TABLES: &[&str] = &["queues", "jobs", "payloads", "claims", "history", "idempotency"];

pub(crate) const QUEUES: Table = Table(0);
pub(crate) const JOBS: Table = Table(1);
pub(crate) const PAYLOADS: Table = Table(2);
pub(crate) const CLAIMS: Table = Table(3);
pub(crate) const HISTORY: Table = Table(4);
pub(crate) const IDEMPOTENCY: Table = Table(5);

/// The part of a payload record that holds what was submitted, and the one that holds what came back.
pub(crate) const DATA: u8 = 0;
pub(crate) const RESULT: u8 = 1;

/// Payloads and results up to this many bytes stay in the job's record (and payloads in memory); larger ones are
/// written once, to their own table. 4 KiB: a record is rewritten two or three times in its life.
pub(crate) const INLINE_MAX: usize = 4096;

const VERSION: u8 = 1;

pub(crate) fn key(queue: u32, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&queue.to_be_bytes());
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn payload_key(queue: u32, number: u64, part: u8) -> [u8; 13] {
    let mut all = [part; 13];
    all[..12].copy_from_slice(&key(queue, number));
    all
}

pub(crate) fn number_of(key: &[u8]) -> Result<u64, String> {
    let bytes = key.get(4..12).and_then(|b| b.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| format!("a key of {} bytes", key.len()))
}

/// Encodes behind the version byte.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Most records fit on the stack and are then copied once, at their size.
    let mut buffer = [VERSION; 512];
    if let Ok(used) = postcard::to_slice(value, &mut buffer[1..]) {
        let length = used.len() + 1;
        return buffer[..length].to_vec();
    }
    // Serialising plain data into a vector cannot fail; an empty record would be reported as damaged on reading.
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// Decodes what [`encode`] wrote.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => Err(format!("{} bytes too many", left.len())),
            Err(error) => Err(error.to_string()),
        },
        Some((version, _)) => Err(format!("unknown record version {version}")),
        None => Err("empty record".into()),
    }
}

/// A queue.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredQueue {
    pub(crate) no: u32,
    pub(crate) paused: bool,
}

/// Bytes kept in the record, or only their length when they are in their own table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum StoredBytes<'a> {
    Inline(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    Apart(u32),
}

impl<'a> StoredBytes<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        if bytes.len() <= INLINE_MAX {
            Self::Inline(bytes)
        } else {
            Self::Apart(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
        }
    }

    fn payload(&self) -> Payload {
        match self {
            Self::Inline(bytes) => Payload::Here(Bytes::copy_from_slice(bytes)),
            Self::Apart(length) => Payload::Apart(*length),
        }
    }
}

/// A job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredJob<'a> {
    pub(crate) state: u8,
    pub(crate) priority: u8,
    pub(crate) cancelling: bool,
    pub(crate) attempt: u16,
    pub(crate) max_attempts: u16,
    /// Claims up to this grant no longer concern the job.
    pub(crate) floor: u64,
    pub(crate) created_at: i64,
    /// When it becomes available, for `Scheduled` and `Retryable`.
    pub(crate) run_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) started_at: i64,
    /// 0 while it is live.
    pub(crate) finished_at: i64,
    pub(crate) timeout_ms: u64,
    pub(crate) backoff_base_ms: u64,
    pub(crate) backoff_cap_ms: u64,
    pub(crate) retention_ms: u64,
    pub(crate) kind: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) dedup: Option<(&'a str, i64)>,
    pub(crate) error: Option<&'a str>,
    pub(crate) progress: Option<(f64, Option<&'a str>)>,
    #[serde(borrow)]
    pub(crate) data: StoredBytes<'a>,
    #[serde(borrow)]
    pub(crate) result: Option<StoredBytes<'a>>,
}

impl<'a> StoredJob<'a> {
    /// The record of a live job, or of one that just left the line with `finished_at` and `result`.
    pub(crate) fn of(entry: &'a Entry, finished_at: i64, result: Option<&'a [u8]>) -> Self {
        let spec = &entry.spec;
        let running = entry.state == State::Running;
        Self {
            state: if running { State::Available } else { entry.state } as u8,
            priority: spec.priority,
            cancelling: entry.cancelling,
            attempt: entry.attempt - u16::from(running),
            max_attempts: spec.max_attempts,
            floor: entry.grant - u64::from(running),
            created_at: spec.created_at,
            run_at: entry.at,
            expires_at: spec.expires_at,
            started_at: entry.started_at,
            finished_at,
            timeout_ms: spec.timeout_ms,
            backoff_base_ms: spec.backoff_base_ms,
            backoff_cap_ms: spec.backoff_cap_ms,
            retention_ms: spec.retention_ms,
            kind: &spec.kind,
            key: spec.key.as_deref(),
            dedup: spec.dedup.as_deref().map(|(key, until)| (&**key, *until)),
            error: entry.error.as_deref(),
            progress: entry.report.as_deref().map(|(progress, note)| (*progress, note.as_deref())),
            data: match &spec.data {
                Payload::Here(bytes) => StoredBytes::of(bytes),
                Payload::Apart(length) => StoredBytes::Apart(*length),
            },
            result: result.map(StoredBytes::of),
        }
    }

    pub(crate) fn state(&self) -> Result<State, String> {
        State::from_code(self.state).ok_or_else(|| format!("unknown state {}", self.state))
    }

    /// The live entry it describes.
    pub(crate) fn entry(&self, number: u64, state: State, share: &mut impl FnMut(&str) -> Arc<str>) -> Entry {
        let spec = Spec {
            kind: share(self.kind),
            data: self.data.payload(),
            priority: self.priority,
            key: self.key.map(&mut *share),
            dedup: self.dedup.map(|(key, until)| Box::new((key.into(), until))),
            created_at: self.created_at,
            expires_at: self.expires_at,
            timeout_ms: self.timeout_ms,
            backoff_base_ms: self.backoff_base_ms,
            backoff_cap_ms: self.backoff_cap_ms,
            retention_ms: self.retention_ms,
            max_attempts: self.max_attempts,
        };
        let mut entry = Entry::new(number, spec, state, self.run_at);
        entry.attempt = self.attempt;
        entry.cancelling = self.cancelling;
        entry.grant = self.floor;
        entry.started_at = self.started_at;
        entry.error = self.error.map(Into::into);
        entry
    }

    /// Lengths of the payload and the result when they are kept in their own table.
    pub(crate) fn apart(&self) -> (Option<u32>, Option<u32>) {
        let length = |bytes: &StoredBytes<'_>| match bytes {
            StoredBytes::Inline(_) => None,
            StoredBytes::Apart(length) => Some(*length),
        };
        (length(&self.data), self.result.as_ref().and_then(length))
    }

    /// What a caller sees; bytes kept apart are left out.
    pub(crate) fn job(&self, queue: &QueueName, number: u64, state: State) -> Job {
        let inline = |bytes: &StoredBytes<'_>| match bytes {
            StoredBytes::Inline(bytes) => Some(Bytes::copy_from_slice(bytes)),
            StoredBytes::Apart(_) => None,
        };
        let instant = |ms: i64| (ms != 0).then_some(UnixMillis(ms));
        Job {
            id: JobId { queue: queue.clone(), number },
            kind: self.kind.into(),
            data: inline(&self.data),
            state,
            cancelling: false,
            priority: self.priority,
            key: self.key.map(Into::into),
            dedup_key: self.dedup.map(|(key, _)| key.into()),
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            progress: self.progress.map(|(progress, _)| progress),
            progress_note: self.progress.and_then(|(_, note)| note).map(Into::into),
            result: self.result.as_ref().and_then(inline),
            error: self.error.map(Into::into),
            created_at: UnixMillis(self.created_at),
            run_at: None,
            expires_at: (self.expires_at != i64::MAX).then_some(UnixMillis(self.expires_at)),
            started_at: instant(self.started_at),
            finished_at: instant(self.finished_at),
            timeout: std::time::Duration::from_millis(self.timeout_ms),
        }
    }
}

impl Spec {
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff {
            base: std::time::Duration::from_millis(self.backoff_base_ms),
            cap: std::time::Duration::from_millis(self.backoff_cap_ms),
        }
    }
}

/// Jobs handed out together: number and attempt of each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredClaim {
    pub(crate) at: i64,
    pub(crate) local: bool,
    pub(crate) jobs: Vec<(u64, u16)>,
}

/// A stretch of history.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredChunk {
    pub(crate) at: i64,
    /// Number, attempt, code of the change.
    pub(crate) entries: Vec<(u64, u16, u8)>,
}

/// An idempotency key and the answers given: number, state, duplicate; `None` where the job was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredIdempotency {
    pub(crate) key: Arc<str>,
    pub(crate) fingerprint: u64,
    pub(crate) at: i64,
    pub(crate) answers: Vec<Option<(u64, u8, bool)>>,
}

/// The code of a change in the log; progress is not logged.
pub(crate) fn change_code(change: &Change) -> Option<u8> {
    Some(match change {
        Change::Progress { .. } => return None,
        Change::Enqueued => 0,
        Change::Promoted => 1,
        Change::Claimed => 2,
        Change::Completed => 3,
        Change::Retrying => 4,
        Change::Rescued => 5,
        Change::Released => 6,
        Change::CancelRequested => 7,
        Change::Cancelled => 8,
        Change::Discarded => 9,
        Change::Retried => 10,
        Change::Pruned => 11,
    })
}

pub(crate) fn change_of(code: u8) -> Option<Change> {
    const CHANGES: [Change; 12] = [
        Change::Enqueued,
        Change::Promoted,
        Change::Claimed,
        Change::Completed,
        Change::Retrying,
        Change::Rescued,
        Change::Released,
        Change::CancelRequested,
        Change::Cancelled,
        Change::Discarded,
        Change::Retried,
        Change::Pruned,
    ];
    CHANGES.get(usize::from(code)).cloned()
}
