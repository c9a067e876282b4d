//! Looking at jobs and history: what memory does not hold is read from the store.

use std::sync::Arc;

use tidegate_store::{Batch, Store, Table};

use super::{EmbeddedQueue, blocking};
use crate::core::Found;
use crate::record::{DATA, HISTORY, JOBS, RESULT, StoredChunk, StoredJob, change_of, decode, key};
use crate::{Error, Job, JobFilter, JobId, JobPage, State, Transition, UnixMillis};

impl EmbeddedQueue {
    /// A job without what is kept apart from its record.
    pub(crate) async fn look(&self, id: &JobId) -> Result<Job, Error> {
        let found = self.lock().find(id.number);
        match found {
            None => Err(Error::JobNotFound { id: id.clone() }),
            Some(Found::Live(job, _)) => Ok(*job),
            Some(Found::Finished(state)) => {
                let record =
                    self.record(id.number, state).await?.ok_or_else(|| Error::JobNotFound { id: id.clone() })?;
                Ok(self.decode_job(id.number, &record)?.job(self.name(), id.number, state))
            }
        }
    }

    pub(crate) async fn job(self: &Arc<Self>, id: &JobId) -> Result<Job, Error> {
        let number = id.number;
        let found = self.lock().find(number);
        match found {
            None => Err(Error::JobNotFound { id: id.clone() }),
            Some(Found::Live(job, apart)) => {
                let mut job = *job;
                if apart {
                    job.data = Some(self.read_part(number, DATA).await?);
                }
                Ok(job)
            }
            Some(Found::Finished(state)) => {
                let record = self.record(number, state).await?.ok_or_else(|| Error::JobNotFound { id: id.clone() })?;
                self.finished(number, state, &record).await
            }
        }
    }

    async fn finished(&self, number: u64, state: State, record: &[u8]) -> Result<Job, Error> {
        let (mut job, (data, result)) = {
            let stored = self.decode_job(number, record)?;
            (stored.job(self.name(), number, state), stored.apart())
        };
        if data.is_some() {
            job.data = Some(self.read_part(number, DATA).await?);
        }
        if result.is_some() {
            job.result = Some(self.read_part(number, RESULT).await?);
        }
        Ok(job)
    }

    /// The record of a job that is finished in `state`; `None` when it was pruned meanwhile.
    pub(super) async fn record(&self, number: u64, state: State) -> Result<Option<Vec<u8>>, Error> {
        let key = key(self.no(), number);
        let store = self.store().clone();
        let read = move || store.get(JOBS, &key).map_err(Error::Store);
        let found = blocking(read.clone()).await?;
        let current = |record: &Vec<u8>| matches!(self.decode_job(number, record), Ok(job) if job.state == state as u8);
        if found.as_ref().is_some_and(current) {
            return Ok(found);
        }
        // The record that says so may still be on its way: whatever was submitted before now is there after this.
        self.store().submit(Batch::new()).await?;
        blocking(read).await
    }

    pub(super) fn decode_job<'a>(&self, number: u64, record: &'a [u8]) -> Result<StoredJob<'a>, Error> {
        decode(record).map_err(|detail| Error::Damaged { id: self.id(number), detail })
    }

    pub(crate) async fn jobs(&self, filter: JobFilter) -> Result<JobPage, Error> {
        crate::check::page(&filter)?;
        let listed = self.lock().list(&filter);
        let mut page = JobPage { jobs: Vec::with_capacity(listed.found.len()), next: listed.next };
        let finished: Vec<u64> = listed
            .found
            .iter()
            .filter(|(_, found)| matches!(found, Found::Finished(_)))
            .map(|(number, _)| *number)
            .collect();
        let mut records = self.read_all(JOBS, finished).await?.into_iter();
        for (number, found) in listed.found {
            match found {
                Found::Live(job, _) => page.jobs.push(*job),
                Found::Finished(state) => {
                    // A record that is not there was pruned, or is not written yet and then not worth waiting for.
                    let Some((_, record)) = records.next().filter(|(_, record)| !record.is_empty()) else { continue };
                    page.jobs.push(self.decode_job(number, &record)?.job(self.name(), number, state));
                }
            }
        }
        Ok(page)
    }

    /// Reads records off the async threads, in order; empty where there is none.
    async fn read_all(&self, table: Table, numbers: Vec<u64>) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let (store, no): (Store, u32) = (self.store().clone(), self.no());
        blocking(move || {
            let read = |number| Ok((number, store.get(table, &key(no, number))?.unwrap_or_default()));
            numbers.into_iter().map(read).collect()
        })
        .await
    }

    pub(crate) async fn history(&self, place: u64, limit: usize) -> Result<Vec<Transition>, Error> {
        crate::check::history(limit)?;
        let starts = self.lock().history_after(place, limit);
        if !starts.is_empty() {
            self.store().submit(Batch::new()).await?;
        }
        let mut transitions = Vec::new();
        for (first, record) in self.read_all(HISTORY, starts).await? {
            if record.is_empty() {
                continue;
            }
            let damaged = |detail| Error::Damaged { id: self.id(first), detail };
            let chunk: StoredChunk = decode(&record).map_err(damaged)?;
            for (offset, (number, attempt, code)) in chunk.entries.into_iter().enumerate() {
                let change = change_of(code).ok_or_else(|| damaged(format!("unknown change {code}")))?;
                let (place, at) = (first + offset as u64, UnixMillis(chunk.at));
                transitions.push(Transition { place, at, id: self.id(number), attempt, change });
            }
        }
        transitions.retain(|transition| transition.place > place);
        transitions.truncate(limit);
        Ok(transitions)
    }
}
