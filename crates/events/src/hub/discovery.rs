//! Streams that match patterns, those of now and those of later, without a timer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use foldhash::HashSet;

use super::Shared;
use super::seat::Seat;
use crate::backend::Backend;
use crate::{Error, Pattern, StreamName};

/// Names each stream that matches once. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Discovery {
    hub: Arc<Shared>,
    seat: Arc<Seat>,
    known: HashSet<StreamName>,
    found: VecDeque<StreamName>,
}

impl Discovery {
    pub(crate) async fn open(hub: &Arc<Shared>, backend: &Backend, patterns: Vec<Pattern>) -> Result<Self, Error> {
        let seat = Arc::new(Seat::default());
        hub.follow_patterns(&seat, patterns.clone());
        let mut discovery = Self { hub: Arc::clone(hub), seat, known: HashSet::default(), found: VecDeque::new() };
        for pattern in &patterns {
            let matching = backend.matching(pattern, hub.config.streams_max).await?;
            discovery.add(matching);
        }
        Ok(discovery)
    }

    /// The next stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> StreamName {
        poll_fn(|cx| {
            self.seat.register(cx.waker());
            let made = self.seat.take_made();
            self.add(made);
            self.found.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn add(&mut self, streams: Vec<StreamName>) {
        for stream in streams {
            if self.known.len() < self.hub.config.streams_max && self.known.insert(stream.clone()) {
                self.found.push_back(stream);
            }
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.hub.leave_patterns(&self.seat);
    }
}
