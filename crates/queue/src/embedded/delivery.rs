//! From granted to delivered: large payloads are read before a claim answers, and a claim that is dropped meanwhile
//! gives its jobs back.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_store::Ticket;

use super::{EmbeddedQueue, blocking};
use crate::core::{Grant, Payload};
use crate::record::DATA;
use crate::{Claimed, Error, Finish, Lease, Retry, UnixMillis};

/// Jobs granted to a caller who may still go away.
struct Undelivered<'a> {
    queue: &'a Arc<EmbeddedQueue>,
    leases: Vec<Lease>,
}

impl Drop for Undelivered<'_> {
    fn drop(&mut self) {
        let releases = self.leases.drain(..).map(|lease| Finish::Release { lease }).collect();
        self.queue.finish_loose(releases);
    }
}

impl EmbeddedQueue {
    /// Completes granted jobs with their payloads, once what must be durable `before` is. A payload that cannot be read discards its job, with the reason.
    pub(super) async fn deliver(
        self: &Arc<Self>,
        grants: Vec<Grant>,
        before: [Option<Ticket>; 2],
    ) -> Result<Vec<Claimed>, Error> {
        let mut undelivered = Undelivered { queue: self, leases: grants.iter().map(|grant| grant.lease).collect() };
        for ticket in before.into_iter().flatten() {
            ticket.await?;
        }
        let mut claimed = Vec::with_capacity(grants.len());
        for grant in grants {
            let data = match &grant.data {
                Payload::Here(bytes) => Ok(bytes.clone()),
                Payload::Apart(_) => self.read_part(grant.lease.number, DATA).await,
            };
            match data {
                Ok(data) => claimed.push(self.claimed(grant, data)),
                Err(error @ Error::Damaged { .. }) => {
                    undelivered.leases.retain(|lease| *lease != grant.lease);
                    self.finish_loose(vec![Finish::Fail {
                        lease: grant.lease,
                        error: error.to_string().into(),
                        retry: Retry::Never,
                    }]);
                }
                Err(error) => return Err(error),
            }
        }
        undelivered.leases.clear();
        Ok(claimed)
    }

    fn claimed(&self, grant: Grant, data: Bytes) -> Claimed {
        Claimed {
            lease: grant.lease,
            id: self.id(grant.lease.number),
            kind: grant.kind,
            data,
            key: grant.key,
            attempt: grant.attempt,
            max_attempts: grant.max_attempts,
            priority: grant.priority,
            deadline_at: UnixMillis(grant.deadline),
        }
    }

    /// Reads a payload or result that is kept apart.
    pub(super) async fn read_part(&self, number: u64, part: u8) -> Result<Bytes, Error> {
        let key = crate::record::payload_key(self.no(), number, part);
        let store = self.store().clone();
        let read = move || store.get(crate::record::PAYLOADS, &key).map_err(Error::Store);
        let mut found = blocking(read.clone()).await?;
        if found.is_none() {
            // Not written yet: whatever was submitted before now is there after this.
            self.store().submit(tidegate_store::Batch::new()).await?;
            found = blocking(read).await?;
        }
        let missing = || Error::Damaged { id: self.id(number), detail: "its payload is missing".into() };
        found.map(Bytes::from).ok_or_else(missing)
    }
}
