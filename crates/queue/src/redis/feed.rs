//! Transitions as they happen, for those who follow: one channel per queue, listened to only while somebody follows here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::Signal;
use tokio::sync::{broadcast, watch};

use super::decode::transitions;
use super::queue::Shared;
use crate::followers::Followers;
use crate::{Error, Transition};

/// Subscribers may be this far behind.
const LAG: usize = 1024;
/// How long a new follower waits for its link.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those who follow a queue.
#[derive(Default)]
pub(super) struct Feed {
    state: Mutex<State>,
    followers: Followers,
}

#[derive(Default)]
struct State {
    /// Whether the link of the listening task is up; none when nobody listens.
    live: Option<watch::Receiver<bool>>,
    subscribers: Option<broadcast::Sender<Transition>>,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two consistent states.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, all: Vec<Transition>) {
        let subscribers = self.lock().subscribers.clone();
        for transition in all {
            self.followers.tell(transition.id.number, &transition);
            if let Some(subscribers) = &subscribers {
                // Nobody may be left to hear it.
                let _ = subscribers.send(transition);
            }
        }
    }

    /// Something was missed: every receiver ends, and who still cares looks and follows anew.
    fn end_all(&self) {
        self.lock().subscribers = None;
        self.followers.end_all();
    }

    /// Whether nobody follows any more; then the task that asks ends.
    fn is_over(&self) -> bool {
        let mut state = self.lock();
        let nobody = state.subscribers.as_ref().is_none_or(|all| all.receiver_count() == 0) && self.followers.nobody();
        if nobody {
            *state = State::default();
        }
        nobody
    }
}

impl Shared {
    pub(super) async fn subscribe(self: &Arc<Self>) -> Result<broadcast::Receiver<Transition>, Error> {
        let receiver = {
            let mut state = self.feed.lock();
            state.subscribers.get_or_insert_with(|| broadcast::channel(LAG).0).subscribe()
        };
        self.tune_in().await?;
        Ok(receiver)
    }

    pub(super) async fn follow(self: &Arc<Self>, number: u64) -> Result<broadcast::Receiver<Transition>, Error> {
        let receiver = self.feed.followers.follow(number);
        self.tune_in().await?;
        Ok(receiver)
    }

    /// Returns when whatever happens from now on will be heard.
    async fn tune_in(self: &Arc<Self>) -> Result<(), Error> {
        let mut live = {
            let mut state = self.feed.lock();
            state.live.get_or_insert_with(|| self.begin_feed()).clone()
        };
        let up = tokio::time::timeout(PATIENCE, live.wait_for(|live| *live)).await;
        match up {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::Redis(tidegate_redis_ops::Error::NotSent {
                code: "DISCONNECTED",
                detail: "the link for messages is down".into(),
                retry_after: Duration::from_secs(1),
            })),
        }
    }

    fn begin_feed(self: &Arc<Self>) -> watch::Receiver<bool> {
        let (live, receiver) = watch::channel(false);
        let mut subscription = self.redis.subscribe(self.keys.events());
        let shared = Arc::downgrade(self);
        let listening = async move {
            loop {
                let signal = subscription.next().await;
                let Some(shared) = shared.upgrade() else { return };
                match signal {
                    Signal::Subscribed => _ = live.send(true),
                    Signal::Lost => {
                        let _ = live.send(false);
                        shared.feed.end_all();
                    }
                    Signal::Missed => shared.feed.end_all(),
                    Signal::Message(message) => shared.take_in(message),
                }
                if shared.feed.is_over() {
                    return;
                }
            }
        };
        self.spawn(listening);
        receiver
    }

    fn take_in(&self, message: Bytes) {
        let mut reader = super::record::Reader(message);
        let read = reader.number(6).and_then(|first| transitions(&self.name, first, reader.0));
        match read {
            Ok(all) => self.feed.tell(all),
            Err(detail) => {
                tracing::error!(queue = %self.name, detail, "a message about jobs that cannot be read");
                self.feed.end_all();
            }
        }
    }
}
