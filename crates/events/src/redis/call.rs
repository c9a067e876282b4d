//! How often a call is sent, and what its error means for a stream.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::{Class, Error as RedisError, Redis, Script, Value};
use tokio::time::{Instant, sleep};

use crate::{Error, StreamName};

/// Attempts of a call that was not executed so far.
const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a call whose fate is unknown is sent again. 5 s: a failover of a primary takes one to three.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a call whose reply was lost may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It only reads, or doing it twice is doing it once.
    Harmless,
    /// It would be done twice.
    Never,
}

/// Runs a script until it is answered, refused, or out of attempts. Errors: when one of the attempts may have been executed,
/// that is what is told.
pub(super) async fn run(
    redis: &Redis,
    script: &Script,
    keys: &[Bytes],
    args: &[Bytes],
    again: Again,
) -> Result<Value, RedisError> {
    retried(again, || redis.run(script, keys, args)).await
}

/// The same for anything that can be asked.
pub(super) async fn retried<T, F: Future<Output = Result<T, RedisError>>>(
    again: Again,
    mut ask: impl FnMut() -> F,
) -> Result<T, RedisError> {
    let (began, mut unknown) = (Instant::now(), None);
    for attempt in 1.. {
        let error = match ask().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let class = error.class();
        if class == Class::Ambiguous {
            unknown = Some(error.clone());
        }
        let is_hopeful = match class {
            Class::Ambiguous => again == Again::Harmless,
            Class::Transient => error.code() != "CLOSED",
            Class::Refused | Class::Fatal => false,
        };
        let may_go_on = attempt < ATTEMPTS || (unknown.is_some() && began.elapsed() < PATIENCE);
        if !is_hopeful || !may_go_on {
            return Err(unknown.unwrap_or(error));
        }
        tracing::debug!(%error, attempt, "asking Redis again");
        sleep(pause(attempt)).await;
    }
    Err(RedisError::Unusable("no attempt was made".into()))
}

/// Doubles, and up to half of it is left to chance, so that those who failed together do not come back together.
fn pause(attempt: u32) -> Duration {
    let full = PAUSE.saturating_mul(1 << (attempt - 1).min(10)).min(PAUSE_MAX);
    let chance = RandomState::new().hash_one(Instant::now()) % 1000;
    full.mul_f64(1.0 - chance as f64 / 2000.0)
}

/// What an error of Redis means for a stream.
pub(super) fn of_stream(error: RedisError, stream: &StreamName) -> Error {
    match error.code() {
        "WRONGTYPE" => Error::NotAStream { name: stream.to_string() },
        _ => Error::Redis(error),
    }
}

pub(super) fn not_found(stream: &StreamName) -> Error {
    Error::StreamNotFound { name: stream.to_string() }
}

/// A reply of a shape nobody expects.
pub(super) fn unexpected(expected: &'static str) -> RedisError {
    RedisError::Reply { expected, got: "something else" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        for (attempt, full) in [(1, 100), (2, 200), (3, 400), (20, 5000)] {
            let full = Duration::from_millis(full);
            assert!((full / 2..=full).contains(&pause(attempt)), "{attempt}");
        }
    }
}
