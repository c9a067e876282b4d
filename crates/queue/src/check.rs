//! What every backend refuses before it looks at a job, naming the argument as it is called on the wire.

use crate::{Claim, Error, Finish, Idempotency, JobFilter, Progress, State, Worker};

/// Jobs, finishes or leases in one call at most: what a lock is held for stays in the low milliseconds.
const CALL_MAX: usize = 10_000;
/// Jobs handed out in one call at most.
const CLAIM_MAX: usize = 1000;
/// The longest note of a report.
const NOTE_MAX: usize = 1024;

fn invalid(field: &'static str, reason: impl Into<String>) -> Error {
    Error::Invalid { field, reason: reason.into() }
}

pub(crate) fn length(field: &'static str, length: usize) -> Result<(), Error> {
    if length > CALL_MAX { Err(invalid(field, format!("at most {CALL_MAX}"))) } else { Ok(()) }
}

pub(crate) fn idempotency(idempotency: Option<&Idempotency>) -> Result<(), Error> {
    let fits = idempotency.is_none_or(|i| (1..=255).contains(&i.key.len()));
    if fits { Ok(()) } else { Err(invalid("idempotencyKey", "1 to 255 bytes")) }
}

pub(crate) fn claim(claim: &Claim) -> Result<(), Error> {
    if !(1..=CLAIM_MAX).contains(&claim.limit) {
        return Err(invalid("limit", format!("1 to {CLAIM_MAX}")));
    }
    worker(&claim.worker)
}

pub(crate) fn worker(worker: &Worker) -> Result<(), Error> {
    let fits = (1..=200).contains(&worker.name.len());
    if fits { Ok(()) } else { Err(invalid("worker", "1 to 200 bytes")) }
}

pub(crate) fn finishes(finishes: &[Finish], payload_max: usize) -> Result<(), Error> {
    length("finishes", finishes.len())?;
    let large = |finish: &Finish| matches!(finish, Finish::Complete { result: Some(r), .. } if r.len() > payload_max);
    if finishes.iter().any(large) {
        return Err(invalid("result", format!("at most {payload_max} bytes")));
    }
    Ok(())
}

pub(crate) fn notes(updates: &[Progress]) -> Result<(), Error> {
    if updates.iter().any(|update| update.note.as_ref().is_some_and(|note| note.len() > NOTE_MAX)) {
        return Err(invalid("note", format!("at most {NOTE_MAX} bytes")));
    }
    Ok(())
}

pub(crate) fn page(filter: &JobFilter) -> Result<(), Error> {
    if (1..=1000).contains(&filter.limit) { Ok(()) } else { Err(invalid("limit", "1 to 1000")) }
}

pub(crate) fn purge(state: State) -> Result<(), Error> {
    if state == State::Running {
        return Err(invalid("status", "running jobs cannot be purged; cancel them"));
    }
    Ok(())
}

pub(crate) fn history(limit: usize) -> Result<(), Error> {
    if (1..=10_000).contains(&limit) { Ok(()) } else { Err(invalid("limit", "1 to 10000")) }
}
