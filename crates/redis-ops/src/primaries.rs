//! Questions to every primary.

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::error::Error;
use crate::facts::field;
use crate::link::Node;
use crate::redis::Redis;
use crate::wire::Request;

impl Redis {
    /// Whether every primary answers and still is one, each asked (`ROLE`) over a connection that callers use, past the
    /// breaker; of a cluster also whether it has no other primaries by now. All at once, one round trip.
    ///
    /// Of a tracked handle this proves that whatever Redis had told before it answered was heard.
    ///
    /// Errors: the first doubt. `NotSent` where a connection is down (at once), the server has become a replica or the
    /// cluster has changed (the link looks for the right one then); `Lost` where no reply came in time; `CLOSED`.
    pub async fn ping_all(&self) -> Result<(), Error> {
        self.link().check().await
    }

    /// The `run_id` of every primary, sorted: another one is a Redis that was restarted, or that took over. Past the
    /// breaker.
    ///
    /// Errors: the first one; `Answer` where `INFO` is forbidden.
    pub async fn run_ids(&self) -> Result<Vec<Bytes>, Error> {
        let nodes = self.primaries();
        if nodes.is_empty() {
            return Err(Error::not_connected("no primary is known"));
        }
        let mut ids = try_join_all(nodes.iter().map(|node| self.run_id(node))).await?;
        ids.sort_unstable();
        Ok(ids)
    }

    async fn run_id(&self, node: &Node) -> Result<Bytes, Error> {
        let request = Request { head: &[b"INFO", b"server"], keys: &[], args: &[] };
        let info = self.link().call_node(node, request, false).await?;
        match field(info.as_str()?, "run_id") {
            Some(id) => Ok(Bytes::copy_from_slice(id.as_bytes())),
            None => Err(Error::Reply { expected: "a run_id in INFO", got: "none" }),
        }
    }
}
