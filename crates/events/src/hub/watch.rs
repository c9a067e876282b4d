//! Waiting for news of one stream without hearing them: for claims of groups.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use super::seat::Seat;
use super::{Live, Shared};
use crate::backend::Backend;
use crate::{Error, StreamName};

/// Wakes when a stream may have something new. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct Watch {
    hub: Arc<Shared>,
    live: Arc<Live>,
    seat: Arc<Seat>,
    place: usize,
}

impl Watch {
    pub(crate) async fn open(hub: &Arc<Shared>, backend: &Backend, stream: &StreamName) -> Result<Self, Error> {
        let seat = Arc::new(Seat::default());
        let (live, place) = hub.sit(stream, &seat, 0);
        if hub.watches.fetch_add(1, Ordering::Relaxed) == 0 {
            hub.changed();
        }
        let watch = Self { hub: Arc::clone(hub), live, seat, place };
        watch.live.start(backend).await?;
        Ok(watch)
    }

    /// Cancel-safe: what came while nobody waited is told at once.
    pub(crate) async fn changed(&mut self) {
        poll_fn(|cx| {
            self.seat.register(cx.waker());
            if self.seat.take_ready()[0] == 0 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.hub.watches.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.hub.changed();
        }
        self.hub.leave(&self.live, self.place);
    }
}
