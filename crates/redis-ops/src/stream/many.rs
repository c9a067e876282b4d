//! The same question to many streams: pipelined over the general connections, a bounded chunk in flight, so that others
//! are served in between; in a cluster all nodes at the same time.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, try_join_all};

use super::info::StreamInfo;
use super::scripts;
use crate::error::Error;
use crate::redis::Redis;
use crate::wire::Request;

/// Streams asked about in one round trip. 100 hold others up for less than half a millisecond; with 50 nobody waits less,
/// and the whole takes a quarter longer (bench `redis_ops`, section `streams`).
const CHUNK: usize = 100;

impl Redis {
    /// What Redis knows of each stream, in the order asked; `None` where there is no stream of that name. One round trip
    /// per hundred streams. Each figure is of its own moment.
    ///
    /// Errors: the first one; a read, asking again is safe.
    pub async fn stream_infos(&self, keys: &[Bytes]) -> Result<Vec<Option<StreamInfo>>, Error> {
        self.each(keys, |key| self.info_of(key).boxed()).await
    }

    async fn info_of(&self, key: &Bytes) -> Result<Option<StreamInfo>, Error> {
        let head: &[&[u8]] = &[b"XINFO", b"STREAM"];
        match self.call(Some(key), Request { head, keys: std::slice::from_ref(key), args: &[] }).await {
            Ok(reply) => StreamInfo::read(reply).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a stream of that name, for each, in the order asked. A key of another type is none.
    ///
    /// Errors: the first one; a read, asking again is safe.
    pub async fn exists_many(&self, keys: &[Bytes]) -> Result<Vec<bool>, Error> {
        self.each(keys, |key| self.is_stream(key).boxed()).await
    }

    async fn is_stream(&self, key: &Bytes) -> Result<bool, Error> {
        let request = Request { head: &[b"TYPE"], keys: std::slice::from_ref(key), args: &[] };
        Ok(self.call(Some(key), request).await?.as_str()? == "stream")
    }

    /// Deletes streams and says for each whether there was one, in the order given. A key of another type stays.
    ///
    /// Errors: the first one ends it; what was deleted stays deleted. Dropping the future does not take back what was
    /// sent.
    pub async fn delete_many(&self, keys: &[Bytes]) -> Result<Vec<bool>, Error> {
        if self.is_cluster() {
            let delete = |key| async move { Ok(self.delete_together(std::slice::from_ref(key)).await? == [true]) };
            return self.each(keys, |key| delete(key).boxed()).await;
        }
        let mut deleted = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            deleted.extend(self.delete_together(chunk).await?);
        }
        Ok(deleted)
    }

    async fn delete_together(&self, keys: &[Bytes]) -> Result<Vec<bool>, Error> {
        let reply = self.run(&scripts::DELETE, keys, []).await?.into_array()?;
        let deleted: Vec<bool> = reply.iter().map(|one| Ok(one.as_int()? == 1)).collect::<Result<_, Error>>()?;
        match deleted.len() == keys.len() {
            true => Ok(deleted),
            false => Err(Error::Reply { expected: "an answer to each key", got: "an array of another length" }),
        }
    }

    /// Asks about each key: chunk by chunk at each node, all nodes at the same time.
    pub(crate) async fn each<'a, T>(
        &'a self,
        keys: &'a [Bytes],
        ask: impl Fn(&'a Bytes) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<Vec<T>, Error> {
        let ask = &ask;
        let at_node = |places: Vec<usize>| async move {
            let mut answers = Vec::with_capacity(places.len());
            for chunk in places.chunks(CHUNK) {
                for (&place, answer) in chunk.iter().zip(join_all(chunk.iter().map(|&place| ask(&keys[place]))).await) {
                    answers.push((place, answer?));
                }
            }
            Ok::<_, Error>(answers)
        };
        let mut answers: Vec<(usize, T)> =
            try_join_all(self.by_node(keys).into_iter().map(at_node)).await?.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(place, _)| *place);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// `ERR no such key`, or the key is of another type.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::Answer { code, message } => &**code == "WRONGTYPE" || message.ends_with("no such key"),
        _ => false,
    }
}
