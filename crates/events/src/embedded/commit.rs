//! What is durable becomes visible, in order, by one task: so nothing depends on whether a publisher waits for its answer.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use foldhash::{HashMap, HashMapExt};
use futures_util::FutureExt;
use tidegate_store::Ticket;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::Tails;
use super::stream::Stream;
use crate::hub::Hub;
use crate::{Error, EventId};

/// All tails together: 32 MiB, a hundred busy streams at their bound.
const TAILS_BYTES_MAX: usize = 32 << 20;

/// Commits looked at together.
const BURST: usize = 1024;

pub(super) type Answer = Result<(), Error>;

/// A batch on its way to the disk. Sent within the lock of its stream, right after it was submitted, so commits arrive in
/// the order in which their batches become durable.
pub(super) struct Commit {
    pub(super) stream: Arc<Stream>,
    /// The last event in it; `None` for whoever only waits for what came before.
    pub(super) to: Option<EventId>,
    pub(super) ticket: Option<Ticket>,
    /// The stream was made with it.
    pub(super) is_new: bool,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The task's own state.
pub(super) struct Committer {
    hub: Hub,
    tails: Arc<Tails>,
    /// Streams whose tails hold events, first come first.
    owners: VecDeque<Weak<Stream>>,
    /// At this length deleted streams are looked for in it.
    owners_max: usize,
    /// The first failure of the store, which is for good.
    failure: Option<Error>,
}

/// What became durable in one stream.
struct End {
    stream: Arc<Stream>,
    to: EventId,
    is_new: bool,
}

impl Committer {
    pub(super) fn new(hub: Hub, tails: Arc<Tails>) -> Self {
        Self { hub, tails, owners: VecDeque::new(), owners_max: BURST, failure: None }
    }

    /// Runs until nobody can publish any more and all is settled.
    pub(super) async fn run(mut self, mut commits: UnboundedReceiver<Commit>) {
        let mut burst = Vec::with_capacity(BURST);
        let mut durable = Vec::with_capacity(BURST);
        while commits.recv_many(&mut burst, BURST).await > 0 {
            for mut commit in burst.drain(..) {
                match self.settled(&mut commit, &mut durable).await {
                    Ok(()) => durable.push(commit),
                    Err(error) => {
                        // A store that failed takes nothing more: what comes after is not durable either.
                        self.show(&mut durable);
                        let _ = commit.answer.send(Err(error));
                    }
                }
            }
            self.show(&mut durable);
        }
    }

    /// Waits for one commit; what is durable already is shown rather than kept waiting, too.
    async fn settled(&mut self, commit: &mut Commit, durable: &mut Vec<Commit>) -> Answer {
        let Some(ticket) = &mut commit.ticket else {
            return self.failure.clone().map_or(Ok(()), Err);
        };
        let result = match ticket.now_or_never() {
            Some(result) => result,
            None => {
                self.show(durable);
                ticket.await
            }
        };
        let result = result.map_err(Error::from);
        self.failure = self.failure.take().or_else(|| result.clone().err());
        result
    }

    /// Shows what is durable, once per stream, and answers the publishers.
    fn show(&mut self, durable: &mut Vec<Commit>) {
        for end in ends(durable) {
            self.show_stream(&end);
        }
        for commit in durable.drain(..) {
            // The publisher may have gone.
            let _ = commit.answer.send(Ok(()));
        }
        self.cut_tails();
    }

    fn show_stream(&mut self, end: &End) {
        let End { stream, to, is_new } = end;
        let fresh = {
            let state = &mut *stream.state.lock();
            let fresh = state.settle(*to);
            if state.deleted {
                return;
            }
            let before = state.tail.bytes();
            for event in &fresh {
                state.tail.push(event.clone());
            }
            self.tails.changed(before, state.tail.bytes());
            if state.tail.bytes() > 0 && !state.owns_tail {
                state.owns_tail = true;
                self.own(stream);
            }
            fresh
        };
        if *is_new {
            self.hub.created(&stream.name);
        }
        self.hub.appended(&stream.name, || fresh);
    }

    /// Puts a stream in the line of those whose tails are cut.
    fn own(&mut self, stream: &Arc<Stream>) {
        self.owners.push_back(Arc::downgrade(stream));
        if self.owners.len() >= self.owners_max {
            self.owners.retain(|owner| owner.strong_count() > 0);
            self.owners_max = BURST.max(2 * self.owners.len());
        }
    }

    /// Clears the tails that began first until the rest is within the bound.
    fn cut_tails(&mut self) {
        while self.tails.bytes() > TAILS_BYTES_MAX {
            let Some(owner) = self.owners.pop_front() else { return };
            let Some(stream) = owner.upgrade() else { continue };
            let state = &mut *stream.state.lock();
            state.owns_tail = false;
            let before = state.tail.bytes();
            state.tail.clear();
            self.tails.changed(before, 0);
        }
    }
}

/// The last place in each stream, in the order of their first commits.
fn ends(commits: &[Commit]) -> Vec<End> {
    let mut ends: Vec<End> = Vec::new();
    let mut places = HashMap::new();
    for commit in commits {
        let Some(to) = commit.to else { continue };
        let place = *places.entry(commit.stream.no).or_insert_with(|| {
            ends.push(End { stream: Arc::clone(&commit.stream), to, is_new: false });
            ends.len() - 1
        });
        ends[place].to = to;
        ends[place].is_new |= commit.is_new;
    }
    ends
}
