//! How a job is written on Redis: numbers big-endian, what is usual left out, so that most jobs cost their payload, their kind
//! and nine bytes. The scripts read the same layout (`options` in `lua/rules.lua`).
//!
//! | bytes | what | when |
//! |---|---|---|
//! | 6 | submitted at, ms | as the process reckons the clock of Redis; exact where something counts from it |
//! | 1 | flags: 1 options, 2 expires, 4 key, 8 dedup, 16 payload apart, 32 delayed | |
//! | 1 | priority | |
//! | 6 | run at, ms (submitted as 6 run at and 6 delay) | delayed |
//! | 20 | timeout 5, retention 5, attempts 2, backoff base 4, cap 4 | options |
//! | 6 | expires after, ms; 0 never (any more) | expires |
//! | 8 | hash of the fairness key: its lane | key |
//! | 6, 2, n | dedup window, ms (0: as long as it lives), length, key | dedup |
//! | 4 | length of the payload | payload apart |
//! | 1, n | length, kind | |
//! | 2, n | length, fairness key | key |
//! | n | payload | unless it is apart |

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::record::INLINE_MAX;
use crate::{NewJob, UnixMillis};

const OPTIONS: u8 = 1;
const EXPIRES: u8 = 2;
const KEYED: u8 = 4;
const DEDUP: u8 = 8;
const APART: u8 = 16;
const DELAYED: u8 = 32;

/// A job on its way to a script.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The record.
    pub(crate) record: Bytes,
    /// The payload when it is too large for the record.
    pub(crate) apart: Option<Bytes>,
    /// Bytes counted against the queue's bound.
    pub(crate) weight: u64,
    /// It has neither key, dedup key, delay nor expiry: nothing about it needs a look of its own.
    pub(crate) is_plain: bool,
}

impl Outgoing {
    /// Bytes that travel.
    pub(crate) fn bytes(&self) -> usize {
        self.record.len() + self.apart.as_ref().map_or(0, Bytes::len)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The lane of a fairness key. Two keys of one hash would share their turns and their limit, nothing worse.
fn lane(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// Writes a checked job down; `now` is when it is submitted.
pub(crate) fn outgoing(job: NewJob, now: UnixMillis) -> Outgoing {
    let usual = NewJob::new("", "");
    let has_options = (job.timeout, job.retention, job.max_attempts, job.backoff)
        != (usual.timeout, usual.retention, usual.max_attempts, usual.backoff);
    let is_delayed = job.run_at.is_some() || !job.delay.is_zero();
    let is_large = job.data.len() > INLINE_MAX;
    let mut flags = 0;
    for (flag, is_set) in [
        (OPTIONS, has_options),
        (EXPIRES, job.expires_in.is_some()),
        (KEYED, job.key.is_some()),
        (DEDUP, job.dedup_key.is_some()),
        (APART, is_large),
        (DELAYED, is_delayed),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    let mut record = BytesMut::with_capacity(80 + job.kind.len() + if is_large { 0 } else { job.data.len() });
    record.put_uint(u64::try_from(now.0).unwrap_or(0).min(U48), 6);
    record.put_u8(flags);
    record.put_u8(job.priority);
    if is_delayed {
        record.put_uint(job.run_at.map_or(0, |at| u64::try_from(at.0).unwrap_or(0)).min(U48), 6);
        record.put_uint(millis(job.delay).min(U48), 6);
    }
    if has_options {
        record.put_uint(millis(job.timeout), 5);
        record.put_uint(millis(job.retention), 5);
        record.put_u16(job.max_attempts);
        record.put_uint(millis(job.backoff.base), 4);
        record.put_uint(millis(job.backoff.cap), 4);
    }
    if let Some(after) = job.expires_in {
        record.put_uint(millis(after), 6);
    }
    if let Some(key) = &job.key {
        record.put_u64(lane(key));
    }
    if let Some(key) = &job.dedup_key {
        record.put_uint(job.dedup_window.map_or(0, millis), 6);
        put_text(&mut record, key);
    }
    if is_large {
        record.put_u32(u32::try_from(job.data.len()).unwrap_or(u32::MAX));
    }
    record.put_u8(u8::try_from(job.kind.len()).unwrap_or(u8::MAX));
    record.put_slice(job.kind.as_bytes());
    if let Some(key) = &job.key {
        put_text(&mut record, key);
    }
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    let weight = (job.data.len() + job.kind.len() + text(&job.key) + text(&job.dedup_key)) as u64;
    if !is_large {
        record.put_slice(&job.data);
    }
    Outgoing { record: record.freeze(), apart: is_large.then_some(job.data), weight, is_plain: flags & !APART == 0 }
}

/// The largest number of 6 bytes.
pub(crate) const U48: u64 = (1 << 48) - 1;

fn put_text(record: &mut BytesMut, text: &str) {
    record.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    record.put_slice(text.as_bytes());
}

/// A record, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) created_at: UnixMillis,
    pub(crate) priority: u8,
    pub(crate) run_at: Option<UnixMillis>,
    pub(crate) timeout: Duration,
    pub(crate) max_attempts: u16,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) dedup_key: Option<Arc<str>>,
    pub(crate) kind: Arc<str>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) data: Data,
}

/// A payload or result: with the record, or apart with this length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Here(Bytes),
    Apart(usize),
}

impl Data {
    pub(crate) fn here(&self) -> Option<Bytes> {
        match self {
            Self::Here(bytes) => Some(bytes.clone()),
            Self::Apart(_) => None,
        }
    }
}

/// The number that up to eight bytes are, the most significant first.
pub(crate) fn number_in(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads bytes from the front; every step says what is missing when there is too little.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, String> {
        if self.0.len() < length {
            return Err(format!("{} bytes where {length} were expected", self.0.len()));
        }
        Ok(self.0.split_to(length))
    }

    pub(crate) fn number(&mut self, length: usize) -> Result<u64, String> {
        Ok(number_in(&self.take(length)?))
    }

    pub(crate) fn instant(&mut self) -> Result<UnixMillis, String> {
        Ok(UnixMillis(i64::try_from(self.number(6)?).unwrap_or(i64::MAX)))
    }

    pub(crate) fn text(&mut self, length: usize) -> Result<Arc<str>, String> {
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(Into::into).map_err(|error| error.to_string())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Record {
    /// Reads a record as a script returns it.
    pub(crate) fn read(bytes: Bytes) -> Result<Self, String> {
        let usual = NewJob::new("", "");
        let mut reader = Reader(bytes);
        let created_at = reader.instant()?;
        let (flags, priority) = (reader.number(1)? as u8, reader.number(1)? as u8);
        let has = |flag| flags & flag != 0;
        let run_at = if has(DELAYED) { Some(reader.instant()?) } else { None };
        let (mut timeout, mut max_attempts) = (usual.timeout, usual.max_attempts);
        if has(OPTIONS) {
            timeout = Duration::from_millis(reader.number(5)?);
            reader.take(5)?;
            max_attempts = u16::try_from(reader.number(2)?).unwrap_or(u16::MAX);
            reader.take(8)?;
        }
        let expires = if has(EXPIRES) { reader.number(6)? } else { 0 };
        if has(KEYED) {
            reader.take(8)?;
        }
        let mut dedup_key = None;
        if has(DEDUP) {
            reader.take(6)?;
            let length = reader.number(2)? as usize;
            dedup_key = Some(reader.text(length)?);
        }
        let apart = if has(APART) { Some(reader.number(4)? as usize) } else { None };
        let length = reader.number(1)? as usize;
        let kind = reader.text(length)?;
        let mut key = None;
        if has(KEYED) {
            let length = reader.number(2)? as usize;
            key = Some(reader.text(length)?);
        }
        Ok(Self {
            created_at,
            priority,
            run_at,
            timeout,
            max_attempts,
            expires_at: (expires > 0).then(|| created_at.after(Duration::from_millis(expires))),
            dedup_key,
            kind,
            key,
            data: apart.map_or(Data::Here(reader.0), Data::Apart),
        })
    }

    /// Since when it was available, had nothing come between.
    pub(crate) fn available_at(&self) -> UnixMillis {
        self.run_at.map_or(self.created_at, |at| at.max(self.created_at))
    }
}

/// How a failure asks to be tried again, and why it failed, as `step` takes it.
pub(crate) fn failure(retry: crate::Retry, error: &str) -> Bytes {
    let (mode, delay) = match retry {
        crate::Retry::Never => (0, Duration::ZERO),
        crate::Retry::Backoff => (1, Duration::ZERO),
        crate::Retry::In(delay) => (2, delay),
    };
    let mut bytes = BytesMut::with_capacity(6 + error.len());
    bytes.put_u8(mode);
    bytes.put_uint(millis(delay).min((1 << 40) - 1), 5);
    bytes.put_slice(error.as_bytes());
    bytes.freeze()
}

/// A result as `step` takes it: in place, or apart.
pub(crate) fn result(result: Bytes) -> (Bytes, Option<Bytes>) {
    let mut bytes = BytesMut::with_capacity(5 + result.len().min(INLINE_MAX));
    if result.len() <= INLINE_MAX {
        bytes.put_u8(1);
        bytes.put_slice(&result);
        (bytes.freeze(), None)
    } else {
        bytes.put_u8(2);
        bytes.put_u32(u32::try_from(result.len()).unwrap_or(u32::MAX));
        (bytes.freeze(), Some(result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backoff;

    fn full() -> NewJob {
        let backoff = Backoff { base: Duration::from_millis(7), cap: Duration::from_secs(9) };
        let mut job = NewJob::new("kind", "payload").priority(3).key("customer").dedup_key("order 7").max_attempts(9);
        job.backoff = backoff;
        job.timeout = Duration::from_secs(5);
        job.expires_in = Some(Duration::from_secs(60));
        job
    }

    fn stored(job: NewJob) -> Bytes {
        outgoing(job, UnixMillis(1000)).record
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let record = Record::read(stored(full())).unwrap();
        assert_eq!((&*record.kind, record.priority, record.max_attempts), ("kind", 3, 9));
        assert_eq!((record.key.as_deref(), record.dedup_key.as_deref()), (Some("customer"), Some("order 7")));
        assert_eq!((record.created_at, record.expires_at), (UnixMillis(1000), Some(UnixMillis(61_000))));
        assert_eq!(record.timeout, Duration::from_secs(5));
        assert_eq!(record.data, Data::Here("payload".into()));
        let plain = outgoing(NewJob::new("kind", "payload"), UnixMillis(1000));
        assert!(plain.is_plain);
        assert_eq!((plain.record.len(), plain.weight), (9 + 4 + 7, 4 + 7));
        let large = outgoing(NewJob::new("kind", vec![1; 5000]), UnixMillis(1000));
        assert_eq!((large.is_plain, large.apart.map(|data| data.len())), (true, Some(5000)));
    }

    #[test]
    fn a_record_cut_short_anywhere_is_damaged_and_never_panics() {
        let whole = stored(full());
        let payload = "payload".len();
        for length in 0..whole.len() - payload {
            assert!(Record::read(whole.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
