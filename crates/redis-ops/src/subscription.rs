//! Messages of a channel, and the truth about the link they come over.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::redis::Redis;
use crate::subscriber::Hub;

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Redis confirmed the subscription: from here on messages arrive. Whatever was said before is not known.
    Subscribed,
    /// A message.
    Message(Bytes),
    /// The link is lost; messages are missed until the next [`Signal::Subscribed`].
    Lost,
    /// This receiver was too slow: some messages were dropped here.
    Missed,
}

/// One receiver of one channel. Dropping it unsubscribes when it was the last of its channel; it keeps its
/// [`Redis`] open.
#[derive(Debug)]
pub struct Subscription {
    _redis: Redis,
    hub: Arc<Hub>,
    channel: Bytes,
    inbox: Arc<Inbox>,
}

impl Subscription {
    pub(crate) fn new(redis: Redis, hub: &Arc<Hub>, channel: Bytes) -> Self {
        let inbox = hub.join(&channel);
        Self { _redis: redis, hub: hub.clone(), channel, inbox }
    }

    /// The next signal. Waits as long as nothing happens. Cancel-safe: no signal is lost.
    pub async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.inbox.take() {
                return signal;
            }
            self.inbox.filled.notified().await;
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Bytes {
        &self.channel
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.leave(&self.channel, &self.inbox);
    }
}

/// Signals that wait for their reader.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Held to add or take one signal.
    signals: Mutex<VecDeque<Signal>>,
    filled: Notify,
    messages_max: usize,
}

impl Inbox {
    pub(crate) fn new(messages_max: usize) -> Self {
        Self { signals: Mutex::default(), filled: Notify::new(), messages_max: messages_max.max(1) }
    }

    fn take(&self) -> Option<Signal> {
        self.signals.lock().pop_front()
    }

    /// Says whether it was taken in; a full inbox takes one `Missed` in place of all that does not fit.
    pub(crate) fn message(&self, message: Bytes) -> bool {
        let mut signals = self.signals.lock();
        let fits = signals.len() < self.messages_max;
        match fits {
            true => signals.push_back(Signal::Message(message)),
            false if signals.back() != Some(&Signal::Missed) => signals.push_back(Signal::Missed),
            false => {}
        }
        drop(signals);
        self.filled.notify_one();
        fits
    }

    /// News of the link always fits; where too much waits, what waits is dropped for it.
    pub(crate) fn news(&self, news: Signal) {
        let mut signals = self.signals.lock();
        if signals.len() >= self.messages_max * 2 {
            signals.clear();
            signals.push_back(Signal::Missed);
        }
        signals.push_back(news);
        drop(signals);
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(inbox: &Inbox) -> Vec<Signal> {
        std::iter::from_fn(|| inbox.take()).collect()
    }

    #[test]
    fn a_slow_reader_is_told_where_messages_are_missing() {
        let inbox = Inbox::new(2);
        let message = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert!(inbox.message(message("1")) && inbox.message(message("2")));
        assert!(!inbox.message(message("3")) && !inbox.message(message("4")));
        let heard = [Signal::Message(message("1")), Signal::Message(message("2")), Signal::Missed];
        assert_eq!(drain(&inbox), heard);
        assert!(inbox.message(message("5")), "there is room again");
    }

    #[test]
    fn news_of_the_link_is_never_dropped_and_never_without_bound() {
        let inbox = Inbox::new(2);
        for _ in 0..1000 {
            inbox.news(Signal::Lost);
            inbox.news(Signal::Subscribed);
        }
        let heard = drain(&inbox);
        assert!(heard.len() <= 5, "{}", heard.len());
        assert_eq!(heard.last(), Some(&Signal::Subscribed));
    }
}
