//! Messages of a channel, and the truth about the link they come over.

use bytes::Bytes;

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Redis confirmed the subscription: from here on messages arrive. Whatever was said before is not known.
    Subscribed,
    /// A message.
    Message(Bytes),
    /// The link is lost; messages may be missed until the next [`Signal::Subscribed`].
    Lost,
    /// This receiver was too slow: some messages were dropped.
    Missed,
}

/// One receiver of one channel. Dropping it unsubscribes when it was the last of its channel.
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// The next signal. Waits for ever while nothing happens. Cancel-safe: no signal is lost.
    pub async fn next(&mut self) -> Signal {
        std::future::pending().await
    }
}
