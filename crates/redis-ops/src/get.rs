//! Many values at once.

use bytes::Bytes;
use futures_util::FutureExt;

use crate::error::Error;
use crate::redis::Redis;
use crate::value::Value;
use crate::wire::Request;

/// Keys per `MGET`. 1000: Redis takes about a tenth of a millisecond, so nobody else has to wait for long.
const CHUNK: usize = 1000;

impl Redis {
    /// The strings at `keys`, in the order asked; `None` where there is none, or a key of another type. On one server a
    /// round trip per thousand keys; in a cluster one per hundred keys of each node, all nodes at the same time.
    ///
    /// Each value is of its own moment, those of one round trip on one server of the same. Errors: the first one; a read,
    /// asking again is safe.
    pub async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        if self.is_cluster() {
            return self.each(keys, |key| self.get(key).boxed()).await;
        }
        let mut values = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let reply = self.call(None, Request { head: &[b"MGET"], keys: chunk, args: &[] }).await?.into_array()?;
            if reply.len() != chunk.len() {
                return Err(Error::Reply { expected: "a value for each key", got: "an array of another length" });
            }
            for value in reply {
                values.push(value.into_bytes_or_nil()?);
            }
        }
        Ok(values)
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        match self.call(Some(key), Request { head: &[b"GET"], keys: std::slice::from_ref(key), args: &[] }).await {
            // As `MGET` has it.
            Err(error) if error.code() == "WRONGTYPE" => Ok(None),
            value => value.and_then(Value::into_bytes_or_nil),
        }
    }
}
