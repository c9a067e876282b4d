//! From what the scripts return to what callers see.

use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::Value;

use super::record::{Data, Reader, Record};
use crate::record::change_of;
use crate::{Change, Claimed, Error, Job, JobId, Lease, QueueName, State, Transition, UnixMillis};

/// 2020-01-01 in milliseconds: grants begin with the time since then.
const BIRTH_MS: i64 = 1_577_836_800_000;

/// A job handed out whose payload may still have to be fetched.
pub(super) struct Granted {
    pub(super) claimed: Claimed,
    /// Length of the payload that is kept apart.
    pub(super) apart: Option<usize>,
    /// How long it had been available.
    pub(super) waited: Duration,
}

/// The attempt and the grant of a lease in one number, as a lease carries them.
pub(super) fn fence(attempt: u64, grant: u64) -> u64 {
    attempt << 48 | grant
}

fn started_at(grant: u64) -> UnixMillis {
    UnixMillis(i64::try_from(grant >> 8).unwrap_or(0) + BIRTH_MS)
}

/// Reads what `step` says of a job it hands out, and its record.
pub(super) fn granted(queue: u32, name: &QueueName, head: Bytes, record: Bytes) -> Result<Granted, Error> {
    let mut head = Reader(head);
    let broken = |detail: String| Error::Damaged { id: JobId { queue: name.clone(), number: 0 }, detail };
    let (number, attempt, grant) =
        (head.number(6).map_err(broken)?, head.number(2).map_err(broken)?, head.number(6).map_err(broken)?);
    let id = JobId { queue: name.clone(), number };
    let record = Record::read(record).map_err(|detail| Error::Damaged { id: id.clone(), detail })?;
    let since = head.number(6).map_err(broken)?;
    let since = if since == 0 { record.available_at() } else { UnixMillis(i64::try_from(since).unwrap_or(0)) };
    let started = started_at(grant);
    let (data, apart) = match record.data {
        Data::Here(bytes) => (bytes, None),
        Data::Apart(length) => (Bytes::new(), Some(length)),
    };
    let claimed = Claimed {
        lease: Lease { queue, number, grant: fence(attempt, grant) },
        id,
        kind: record.kind,
        data,
        key: record.key,
        attempt: u16::try_from(attempt).unwrap_or(u16::MAX),
        max_attempts: record.max_attempts,
        priority: record.priority,
        deadline_at: started.after(record.timeout),
    };
    Ok(Granted { claimed, apart, waited: started.since(since) })
}

/// A job as seen, and what of it is kept apart.
pub(super) struct Seen {
    pub(super) job: Job,
    pub(super) data_apart: bool,
    pub(super) result_apart: bool,
}

/// Reads a view, see `lua/view.lua`; `None` for an unknown job.
pub(super) fn seen(id: &JobId, view: Value) -> Result<Option<Seen>, Error> {
    if view.is_nil() {
        return Ok(None);
    }
    let parts = view.into_array()?;
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let code = u8::try_from(next().as_int()?).unwrap_or(u8::MAX);
    let mut bytes = || match next() {
        Value::Nil => Ok(Bytes::new()),
        other => other.into_bytes(),
    };
    let (record, tried, held, due, asked, report, over) =
        (bytes()?, bytes()?, bytes()?, bytes()?, bytes()?, bytes()?, bytes()?);
    let damaged = |detail: String| Error::Damaged { id: id.clone(), detail };
    let state = State::from_code(code).ok_or_else(|| damaged(format!("unknown state {code}")))?;
    let record = Record::read(record).map_err(damaged)?;
    let mut seen = Seen {
        data_apart: matches!(record.data, Data::Apart(_)),
        job: job(id.clone(), record, state),
        result_apart: false,
    };
    let fill = |seen: &mut Seen| -> Result<(), String> {
        if !over.is_empty() {
            return end(seen, over);
        }
        if !tried.is_empty() {
            earlier(&mut seen.job, tried)?;
        }
        if !held.is_empty() {
            let mut held = Reader(held);
            seen.job.attempt = u16::try_from(held.number(2)?).unwrap_or(u16::MAX);
            seen.job.started_at = Some(started_at(held.number(6)?));
        }
        if !due.is_empty() {
            let text = std::str::from_utf8(&due).map_err(|error| error.to_string())?;
            let at = text.parse::<f64>().map_err(|error| error.to_string())?;
            seen.job.run_at = Some(UnixMillis(at as i64));
        }
        seen.job.cancelling = !asked.is_empty();
        if !report.is_empty() {
            show_report(&mut seen.job, report)?;
        }
        Ok(())
    };
    fill(&mut seen).map_err(damaged)?;
    Ok(Some(seen))
}

fn job(id: JobId, record: Record, state: State) -> Job {
    Job {
        id,
        kind: record.kind,
        data: record.data.here(),
        state,
        cancelling: false,
        priority: record.priority,
        key: record.key,
        dedup_key: record.dedup_key,
        attempt: 0,
        max_attempts: record.max_attempts,
        progress: None,
        progress_note: None,
        result: None,
        error: None,
        created_at: record.created_at,
        run_at: None,
        expires_at: record.expires_at,
        started_at: None,
        finished_at: None,
        timeout: record.timeout,
    }
}

/// What earlier attempts left: attempts, when the last began, since when it waits, why it failed.
fn earlier(job: &mut Job, tried: Bytes) -> Result<(), String> {
    let mut tried = Reader(tried);
    job.attempt = u16::try_from(tried.number(2)?).unwrap_or(u16::MAX);
    let started = tried.instant()?;
    job.started_at = (started.0 != 0).then_some(started);
    tried.instant()?;
    job.error = error(&mut tried, None)?;
    Ok(())
}

/// Since when a job that was tried before waits; zero when it does not say.
pub(super) fn waits_since(tried: Bytes) -> UnixMillis {
    let mut tried = Reader(tried);
    let since = tried.take(8).and_then(|_| tried.instant());
    since.unwrap_or_default()
}

/// A failure's text; cut in the middle of a character it loses that one.
fn error(reader: &mut Reader, length: Option<usize>) -> Result<Option<std::sync::Arc<str>>, String> {
    let length = length.unwrap_or(reader.0.len());
    let bytes = reader.take(length)?;
    Ok((!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into()))
}

/// How it ended: state, attempt, started, finished, size, lengths of report and error, then those, then the result.
fn end(seen: &mut Seen, over: Bytes) -> Result<(), String> {
    let mut over = Reader(over);
    over.take(1)?;
    let job = &mut seen.job;
    job.attempt = u16::try_from(over.number(2)?).unwrap_or(u16::MAX);
    let started = over.instant()?;
    job.started_at = (started.0 != 0).then_some(started);
    job.finished_at = Some(over.instant()?);
    over.take(4)?;
    let (report, failure) = (over.number(2)? as usize, over.number(2)? as usize);
    let report = over.take(report)?;
    if !report.is_empty() {
        show_report(job, report)?;
    }
    job.error = error(&mut over, Some(failure))?;
    match over.number(1)? {
        0 => {}
        1 => job.result = Some(over.0),
        _ => seen.result_apart = true,
    }
    Ok(())
}

fn show_report(job: &mut Job, report: Bytes) -> Result<(), String> {
    let (progress, note) = read_report(report)?;
    (job.progress, job.progress_note) = (Some(progress), note);
    Ok(())
}

fn read_report(report: Bytes) -> Result<(f64, Option<std::sync::Arc<str>>), String> {
    let mut report = Reader(report);
    let progress = f64::from_bits(report.number(8)?);
    let note = match report.is_empty() {
        true => None,
        false => error(&mut report, None)?,
    };
    Ok((progress, note))
}

/// A report as `progress` takes it.
pub(super) fn report(progress: f64, note: Option<&str>) -> Bytes {
    let progress = if progress.is_nan() { 0.0 } else { progress.clamp(0.0, 1.0) };
    let mut bytes = progress.to_bits().to_be_bytes().to_vec();
    bytes.extend_from_slice(note.unwrap_or_default().as_bytes());
    bytes.into()
}

/// A stretch of the log: the place of its first entry in front.
pub(super) fn transitions(name: &QueueName, first: u64, chunk: Bytes) -> Result<Vec<Transition>, String> {
    let mut reader = Reader(chunk);
    let at = reader.instant()?;
    let (mut all, mut place) = (Vec::new(), first);
    let mut add = |number: u64, attempt: u64, change: Change| {
        let is_logged = !matches!(change, Change::Progress { .. });
        let id = JobId { queue: name.clone(), number };
        let attempt = u16::try_from(attempt).unwrap_or(u16::MAX);
        all.push(Transition { place: if is_logged { place } else { 0 }, at, id, attempt, change });
        place += u64::from(is_logged);
    };
    while !reader.is_empty() {
        let code = reader.number(1)? as u8;
        match code {
            b'@' => {
                let (number, count) = (reader.number(6)?, reader.number(4)?);
                (number..number + count).for_each(|number| add(number, 0, Change::Enqueued));
            }
            // Attempts that ended as they were asked to: a verb, id and attempt, a grant.
            b'F' => {
                for _ in 0..reader.number(4)? {
                    reader.take(1)?;
                    let (number, attempt) = (reader.number(6)?, reader.number(2)?);
                    reader.take(6)?;
                    add(number, attempt, Change::Completed);
                }
            }
            b'P' => {
                for _ in 0..reader.number(4)? {
                    let (number, attempt, length) = (reader.number(6)?, reader.number(2)?, reader.number(2)?);
                    let (progress, note) = read_report(reader.take(length as usize)?)?;
                    add(number, attempt, Change::Progress { progress, note });
                }
            }
            code => {
                let change = change_of(code).ok_or_else(|| format!("unknown change {code}"))?;
                for _ in 0..reader.number(4)? {
                    let (number, attempt) = (reader.number(6)?, reader.number(2)?);
                    add(number, attempt, change.clone());
                }
            }
        }
    }
    Ok(all)
}
