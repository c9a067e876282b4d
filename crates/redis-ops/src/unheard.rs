//! A script whose write is not told back to the tracked handle that ran it.
//!
//! To Redis a script is a client of its own, so `NOLOOP` does not cover what it writes: who keeps a value by a script would
//! be told at once to forget it. Redis tells one change of a key per round of its event loop, the last one, and leaves out
//! who made it. So a command of ours that changes the key follows the script within one transaction.

use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::redis::Redis;
use crate::script::Script;
use crate::value::Value;
use crate::wire::Request;

/// By how much the life of the key is shortened at most, so that there is a change. Time stands still in a transaction,
/// so that a millisecond would do.
const SHORTER: Duration = Duration::from_millis(10);

impl Redis {
    /// As [`run`](Self::run), of a script that writes `keys[0]` with `life`: the [`Watcher`](crate::Watcher) of this handle
    /// does not hear of that write. The others do.
    ///
    /// Afterwards the key lives no longer than `life` less some milliseconds, also where the script wrote nothing and the
    /// value is somebody else's. **Whatever the reply, also an error that may have been executed, what was known of
    /// `keys[0]` before is outdated**: somebody else's write may have gone unheard.
    ///
    /// On a handle without a watcher, on Redis before 7.0, and while Redis does not know the script or `keys[0]` is moving
    /// between nodes, it is just `run`.
    pub async fn run_unheard(
        &self,
        script: &Script,
        keys: &[Bytes],
        args: impl AsRef<[Bytes]>,
        life: Duration,
    ) -> Result<Value, Error> {
        let args = args.as_ref();
        let can = self.core().ears.is_some() && !self.is_older_than_7();
        let Some(key) = keys.first().filter(|_| can) else { return self.run(script, keys, args).await };
        match self.measured(self.transact(script, key, keys, args, life)).await {
            Err(error) if did_not_run(&error) => self.run(script, keys, args).await,
            reply => reply,
        }
    }

    async fn transact(
        &self,
        script: &Script,
        key: &Bytes,
        keys: &[Bytes],
        args: &[Bytes],
        life: Duration,
    ) -> Result<Value, Error> {
        let (mut digits, mut shorter) = (itoa::Buffer::new(), itoa::Buffer::new());
        let count = digits.format(keys.len()).as_bytes();
        let shorter = shorter.format(life.saturating_sub(SHORTER.min(life / 2)).as_millis()).as_bytes();
        let evaluate = Request { head: &[b"EVALSHA", script.sha().as_bytes(), count], keys, args };
        let touch: [&[u8]; 4] = [b"PEXPIRE", key, shorter, b"LT"];
        let [queued, executed] = self.link().call_together(key, [evaluate, Request::bare(&touch)]).await?;
        match queued {
            Ok(Value::Bytes(said)) if said == "QUEUED" => {}
            // Not queued but answered: transactions are forbidden to us.
            answered => return answered,
        }
        let replies = executed?.into_array()?;
        replies.into_iter().next().ok_or(Error::Reply { expected: "the reply of the script", got: "nothing" })
    }

    fn is_older_than_7(&self) -> bool {
        self.version_starts_with("redis 6.")
    }
}

/// Not known, or refused before anything of the transaction ran.
fn did_not_run(error: &Error) -> bool {
    matches!(error.code(), "NOSCRIPT" | "EXECABORT" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")
}
