//! One blocking connection: what it leads to, and how it is freed from a call that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::error::Error;
use crate::link::{Link, Node};
use crate::wire::{Dialer, Request, Single, exchange};

/// How long freeing may take before the connection is replaced instead. 25 ms: it takes a third of one.
const FREEING: Duration = Duration::from_millis(25);
/// `CLIENT UNBLOCK` may overtake the command it is to end: ask again after this.
const OVERTAKEN: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) single: Single,
    node: Arc<Node>,
    /// What Redis calls it; unknown where `CLIENT ID` is forbidden.
    id: Option<i64>,
    /// How often the link had reconnected when this was dialled.
    epoch: u64,
}

impl Wire {
    pub(super) async fn dial(dialer: &Dialer, node: Arc<Node>, epoch: u64) -> Result<Self, Error> {
        let mut stream = match &node.address {
            Some(address) => dialer.dial_address(address).await?,
            None => dialer.dial().await?,
        };
        let asking = timeout(dialer.config.connect_timeout, exchange(&mut stream, &[b"CLIENT", b"ID"]));
        let id = match asking.await {
            Ok(Ok(id)) => id.as_int().ok(),
            Ok(Err(Error::Answer { .. })) => None,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::not_connected("a connection just opened does not answer")),
        };
        Ok(Self { single: Single::new(stream), node, id, epoch })
    }

    pub(super) fn leads_to(&self, node: &Arc<Node>) -> bool {
        Arc::ptr_eq(&self.node, node)
    }

    /// Whether nothing happened since it was dialled that could have made another server the right one.
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        self.epoch == epoch && !self.node.stop.is_cancelled()
    }

    /// Whether the next user can have it as it is.
    pub(super) fn is_reusable(&self) -> bool {
        self.single.is_sound() && !self.single.owes()
    }

    /// Whether a call was dropped while Redis works on it.
    pub(super) fn is_held_up(&self) -> bool {
        self.single.is_sound() && self.single.owes()
    }

    /// Ends the call that nobody waits for and throws its reply away. Whether that worked.
    pub(super) async fn free(&mut self, link: &Link) -> bool {
        let freed = timeout(FREEING, self.unblock(link)).await.unwrap_or(false);
        if !freed {
            self.single.give_up();
        }
        freed
    }

    async fn unblock(&mut self, link: &Link) -> bool {
        let Some(id) = self.id else { return false };
        let mut digits = itoa::Buffer::new();
        let head: &[&[u8]] = &[b"CLIENT", b"UNBLOCK", digits.format(id).as_bytes()];
        loop {
            if link.call_node(&self.node, Request { head, keys: &[], args: &[] }, false).await.is_err() {
                return false;
            }
            if timeout(OVERTAKEN, self.single.reply()).await.is_ok() {
                return self.is_reusable();
            }
        }
    }

    /// Whether it answers. For one that lay idle for long, or over which something came unasked.
    pub(super) async fn is_alive(&mut self, patience: Duration) -> bool {
        let ping = self.single.call(Request { head: &[b"PING"], keys: &[], args: &[] });
        timeout(patience, ping).await.is_ok_and(|reply| reply.is_ok()) && self.is_reusable()
    }
}
