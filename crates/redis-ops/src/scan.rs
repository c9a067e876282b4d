//! Keys by cursor: never `KEYS`, one page in memory.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::link::Node;
use crate::redis::Redis;
use crate::value::Value;
use crate::wire::Request;

/// How to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// How many places of the key table Redis looks at per call. 100; 1000 is faster and still harmless.
    pub count: u32,
    /// Only keys of this type: `string`, `hash`, `zset`, `list`, `set`, `stream`.
    pub kind: Option<&'static str>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { count: 100, kind: None }
    }
}

/// A walk over keys, page by page: every key that was there from its beginning to its end comes at least once.
#[derive(Debug)]
pub struct Scan {
    redis: Redis,
    pattern: Bytes,
    options: ScanOptions,
    /// Nodes still to walk; the last one is being walked.
    nodes: Vec<Arc<Node>>,
    cursor: Bytes,
}

const START: Bytes = Bytes::from_static(b"0");

impl Scan {
    pub(crate) fn new(redis: Redis, pattern: Bytes, options: ScanOptions) -> Self {
        let nodes = redis.primaries();
        Self { redis, pattern, options, nodes, cursor: START }
    }

    /// The next keys; `None` at the end. A page may be empty, and a key may come twice, as `SCAN` promises no more.
    ///
    /// After an error the same page is asked for again by the next call. Cancel-safe: a page that was not given out comes
    /// again.
    pub async fn next_page(&mut self) -> Option<Result<Vec<Bytes>, Error>> {
        let node = self.nodes.last()?.clone();
        let page = match self.page(&node).await {
            Ok((cursor, keys)) => {
                if cursor == START {
                    self.nodes.pop();
                }
                self.cursor = cursor;
                Ok(keys)
            }
            Err(error) => Err(error),
        };
        Some(page)
    }

    async fn page(&self, node: &Node) -> Result<(Bytes, Vec<Bytes>), Error> {
        let count = self.options.count.max(1).to_string();
        let mut head: Vec<&[u8]> = vec![b"SCAN", &self.cursor, b"MATCH", &self.pattern, b"COUNT", count.as_bytes()];
        if let Some(kind) = self.options.kind {
            head.extend([&b"TYPE"[..], kind.as_bytes()]);
        }
        let reply = self.redis.call_node(node, Request { head: &head, keys: &[], args: &[] }).await?;
        let mut parts = reply.into_array()?.into_iter();
        let cursor = parts.next().unwrap_or(Value::Nil).into_bytes()?;
        let keys = parts.next().unwrap_or(Value::Nil).into_array()?;
        Ok((cursor, keys.into_iter().map(Value::into_bytes).collect::<Result<_, _>>()?))
    }
}
