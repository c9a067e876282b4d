//! What runs a job of one kind, what it may answer, and the table of kinds.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::breaker::{Admit, Breaker, Signal};
use crate::stats::KindMetrics;
use crate::{Context, CpuContext};

/// What a handler answers: the result to keep (if any), or why not.
pub type HandlerResult = Result<Option<Bytes>, HandlerError>;

/// Why an attempt failed, and what should follow.
///
/// Any `std::error::Error` turns into a [`retry`](Self::retry) through `?`; its message includes its sources.
#[derive(Clone, Debug)]
pub struct HandlerError {
    pub(crate) message: Arc<str>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Retry,
    RetryIn(Duration),
    Fatal,
    Cancelled,
}

impl HandlerError {
    /// It may work next time: again after the job's backoff, while attempts are left.
    pub fn retry(message: impl fmt::Display) -> Self {
        Self::new(message, Verdict::Retry)
    }

    /// It may work in `delay`, for example because a peer said so: again after exactly that, while attempts are left.
    pub fn retry_in(message: impl fmt::Display, delay: Duration) -> Self {
        Self::new(message, Verdict::RetryIn(delay))
    }

    /// It will never work: to the dead letter set at once.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self::new(message, Verdict::Fatal)
    }

    /// It stopped because it was told to; what `ctx.sleep(…)` answers when the token fires.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new("cancelled", Verdict::Cancelled)
    }

    fn new(message: impl fmt::Display, verdict: Verdict) -> Self {
        Self { message: message.to_string().into(), verdict }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `HandlerError` is deliberately no `std::error::Error` itself: this blanket would then not be allowed.
impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::retry(message)
    }
}

type AsyncHandler = dyn Fn(Context, Bytes) -> BoxFuture<'static, HandlerResult> + Send + Sync;
type CpuHandler = dyn Fn(CpuContext, Bytes) -> HandlerResult + Send + Sync;

#[derive(Clone)]
pub(crate) enum Handler {
    /// Polled on the runtime's threads; must not block.
    Async(Arc<AsyncHandler>),
    /// Called on the CPU pool.
    Cpu(Arc<CpuHandler>),
}

impl Handler {
    pub(crate) fn typed<A, R, E, F, Fut>(handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::Async(Arc::new(move |context, data| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let args = decode(&data)?;
                drop(data);
                let reply = (*handler)(context, args).await.map_err(Into::into)?;
                encode(&reply)
            })
        }))
    }

    pub(crate) fn raw<E, F, Fut>(handler: F) -> Self
    where
        E: Into<HandlerError>,
        F: Fn(Context, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Bytes>, E>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::Async(Arc::new(move |context, data| {
            let handler = Arc::clone(&handler);
            // Called inside the future, so that a panic before the first await is caught like any other.
            Box::pin(async move { (*handler)(context, data).await.map_err(Into::into) })
        }))
    }

    pub(crate) fn cpu<E, F>(handler: F) -> Self
    where
        E: Into<HandlerError>,
        F: Fn(CpuContext, Bytes) -> Result<Option<Bytes>, E> + Send + Sync + 'static,
    {
        Self::Cpu(Arc::new(move |context, data| handler(context, data).map_err(Into::into)))
    }
}

/// No bytes at all are read as `null`, so that a job without argument needs none.
fn decode<A: DeserializeOwned>(data: &[u8]) -> Result<A, HandlerError> {
    let data = if data.is_empty() { b"null" } else { data };
    let mut text = serde_json::Deserializer::from_slice(data);
    let args = serde_path_to_error::deserialize(&mut text)
        .map_err(|error| HandlerError::fatal(format_args!("cannot read the arguments: {error}")))?;
    text.end().map_err(|error| HandlerError::fatal(format_args!("cannot read the arguments: {error}")))?;
    Ok(args)
}

fn encode<R: Serialize>(reply: &R) -> HandlerResult {
    let bytes = serde_json::to_vec(reply)
        .map_err(|error| HandlerError::fatal(format_args!("cannot write the result: {error}")))?;
    Ok(Some(bytes.into()))
}

/// One kind: its handler, its breaker, its numbers.
pub(crate) struct Kind {
    pub(crate) name: Arc<str>,
    pub(crate) handler: Handler,
    pub(crate) metrics: KindMetrics,
    /// Locked for the length of one decision.
    breaker: Mutex<Breaker>,
}

impl Kind {
    pub(crate) fn new(name: Arc<str>, handler: Handler, metrics: KindMetrics, breaker: Breaker) -> Self {
        Self { name, handler, metrics, breaker: Mutex::new(breaker) }
    }

    pub(crate) fn admit(&self, now: Instant) -> Admit {
        self.with_breaker(|breaker| breaker.admit(now))
    }

    /// When an attempt held back now may be asked about again.
    pub(crate) fn ask_again_at(&self) -> Option<Instant> {
        self.with_breaker(|breaker| breaker.ask_again_at())
    }

    /// Tells the breaker how an attempt ended; whether held jobs should be looked at again.
    pub(crate) fn record(&self, now: Instant, probe: bool, signal: Signal) -> bool {
        self.with_breaker(|breaker| breaker.record(now, probe, signal))
    }

    pub(crate) fn breaker_state(&self) -> crate::BreakerState {
        self.with_breaker(|breaker| breaker.state())
    }

    fn with_breaker<T>(&self, decide: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = decide(&mut breaker);
        self.metrics.breaker.set(f64::from(breaker.state() as u8));
        answer
    }
}

/// All kinds, fixed at the start.
pub(crate) type Kinds = HashMap<Arc<str>, Arc<Kind>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_whole_and_errors_say_where() {
        assert_eq!(decode::<Option<u8>>(b"").unwrap(), None);
        assert_eq!(decode::<u8>(b"7").unwrap(), 7);
        let error = decode::<HashMap<String, u8>>(br#"{"a":1,"b":"x"}"#).unwrap_err();
        assert_eq!(error.verdict, Verdict::Fatal);
        assert!(error.message.contains("b: invalid type"), "{error}");
        assert_eq!(decode::<u8>(b"7 8").unwrap_err().verdict, Verdict::Fatal);
    }

    #[test]
    fn any_error_becomes_a_retry_that_names_its_sources() {
        let error = HandlerError::from(std::io::Error::other("disk on fire"));
        assert_eq!((error.verdict, &*error.message), (Verdict::Retry, "disk on fire"));
    }
}
