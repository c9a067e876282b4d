//! One attempt from start to outcome: runs the handler, watches token and deadline, and decides what follows.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tidegate_metrics::Outcome;
use tidegate_queue::{Finish, Lease, Retry};
use tokio::time::{Instant, sleep, sleep_until};

use crate::breaker::Signal;
use crate::cpu::panic_text;
use crate::handler::{Handler, HandlerResult, Kind, Verdict};
use crate::run::{Run, Stop};
use crate::scheduler::Shared;
use crate::{Context, CpuContext, CpuError, HandlerError};

/// How the handler came to its end.
#[derive(Debug)]
enum Ended {
    Returned(HandlerResult),
    Panicked(String),
    /// It did not return within its grace; its future was dropped.
    Dropped,
}

/// What an end means.
#[derive(Debug, PartialEq)]
struct Judgement {
    /// For the queue; `None` when the lease was lost and there is nobody to tell.
    finish: Option<Finish>,
    outcome: Outcome,
    signal: Signal,
}

/// Runs one attempt. Never panics and always returns, unless the handler blocks its thread.
pub(crate) async fn attempt(shared: &Shared, kind: &Kind, run: &Arc<Run>, data: Bytes, probe: bool) -> Option<Finish> {
    let started = Instant::now();
    let supervised = AssertUnwindSafe(supervise(shared, kind, run, data)).catch_unwind();
    // The outer catch is for destructors of the handler's future.
    let ended = supervised.await.unwrap_or_else(|panic| Ended::Panicked(panic_text(&*panic)));
    count(kind, run, &ended);
    let judgement = judge(run.lease, run.stopped(), run.deadline - run.claimed, ended);
    kind.metrics.runs.record_outcome(started.elapsed(), judgement.outcome);
    if kind.record(Instant::now(), probe, judgement.signal) {
        shared.look_again();
    }
    judgement.finish
}

async fn supervise(shared: &Shared, kind: &Kind, run: &Arc<Run>, data: Bytes) -> Ended {
    let handler = AssertUnwindSafe(call(shared, kind, run, data)).catch_unwind();
    tokio::pin!(handler);
    let ended = |caught: std::thread::Result<HandlerResult>| match caught {
        Ok(result) => Ended::Returned(result),
        Err(panic) => Ended::Panicked(panic_text(&*panic)),
    };
    tokio::select! {
        biased;
        caught = &mut handler => return ended(caught),
        () = run.token.cancelled() => {}
        () = sleep_until(run.deadline) => run.stop(Stop::Timeout),
    }
    tokio::select! {
        biased;
        caught = &mut handler => ended(caught),
        () = sleep(shared.grace) => Ended::Dropped,
        () = shared.abort.cancelled() => Ended::Dropped,
    }
}

async fn call(shared: &Shared, kind: &Kind, run: &Arc<Run>, data: Bytes) -> HandlerResult {
    match &kind.handler {
        Handler::Async(handler) => handler(Context::new(Arc::clone(run)), data).await,
        Handler::Cpu(handler) => {
            let (handler, context) = (Arc::clone(handler), CpuContext::new(Arc::clone(run)));
            let task = move || handler(context, data);
            match shared.cpu.run_job(run.priority, Arc::clone(&run.flag), task).await {
                Ok(result) => result,
                // Goes on as the panic it was, to be caught and counted in one place.
                Err(CpuError::Panicked { message }) => std::panic::resume_unwind(Box::new(message)),
                Err(error) => Err(HandlerError::retry(error)),
            }
        }
    }
}

fn count(kind: &Kind, run: &Run, ended: &Ended) {
    match ended {
        Ended::Panicked(message) => {
            kind.metrics.panics.inc();
            tracing::error!(job = %run.id, kind = %run.kind, attempt = run.attempt, message, "handler panicked");
        }
        Ended::Dropped => {
            kind.metrics.dropped.inc();
            tracing::warn!(job = %run.id, kind = %run.kind, attempt = run.attempt, "handler did not stop when told");
        }
        Ended::Returned(_) => {}
    }
    if run.stopped() == Stop::Timeout && !matches!(ended, Ended::Returned(Ok(_))) {
        kind.metrics.timeouts.inc();
    }
}

/// The one table of what follows. A result is a result: who returns `Ok` after being told to stop, in time for its
/// lease, has done the job, and doing it again would be worse.
fn judge(lease: Lease, stopped: Stop, timeout: Duration, ended: Ended) -> Judgement {
    let fail = |error: String, retry| Some(Finish::Fail { lease, error: error.into(), retry });
    let judgement = |finish, outcome, signal| Judgement { finish, outcome, signal };
    match (stopped, ended) {
        (Stop::Lost, _) => judgement(None, Outcome::Cancelled, Signal::Neutral),
        (_, Ended::Returned(Ok(result))) => {
            judgement(Some(Finish::Complete { lease, result }), Outcome::Succeeded, Signal::Success)
        }
        (Stop::Cancel, _) => judgement(fail("cancelled".into(), Retry::Never), Outcome::Cancelled, Signal::Neutral),
        (Stop::Drain, _) => judgement(Some(Finish::Release { lease }), Outcome::Cancelled, Signal::Neutral),
        (Stop::Timeout, ended) => {
            let (detail, retry) = match ended {
                Ended::Returned(Err(error)) if error.verdict == Verdict::Cancelled => (String::new(), Retry::Backoff),
                Ended::Returned(Err(error)) => (format!(": {error}"), retry_of(error.verdict)),
                Ended::Panicked(message) => (format!(": panicked: {message}"), Retry::Backoff),
                Ended::Dropped | Ended::Returned(Ok(_)) => (String::new(), Retry::Backoff),
            };
            judgement(
                fail(format!("timed out after {:?}{detail}", rounded(timeout)), retry),
                Outcome::Failed,
                Signal::Fault,
            )
        }
        (Stop::No, Ended::Panicked(message)) => {
            judgement(fail(format!("panicked: {message}"), Retry::Backoff), Outcome::Failed, Signal::Fault)
        }
        (Stop::No, Ended::Dropped) => judgement(Some(Finish::Release { lease }), Outcome::Cancelled, Signal::Neutral),
        (Stop::No, Ended::Returned(Err(error))) => {
            let (outcome, signal) = match error.verdict {
                Verdict::Retry | Verdict::RetryIn(_) => (Outcome::Failed, Signal::Fault),
                Verdict::Fatal => (Outcome::Failed, Signal::Neutral),
                Verdict::Cancelled => (Outcome::Cancelled, Signal::Neutral),
            };
            judgement(fail(error.message.to_string(), retry_of(error.verdict)), outcome, signal)
        }
    }
}

fn retry_of(verdict: Verdict) -> Retry {
    match verdict {
        Verdict::Retry => Retry::Backoff,
        Verdict::RetryIn(delay) => Retry::In(delay),
        Verdict::Fatal | Verdict::Cancelled => Retry::Never,
    }
}

/// To whole seconds, or to 10 ms below that: the few milliseconds between claim and start are nobody's business.
fn rounded(timeout: Duration) -> Duration {
    let grain = if timeout > Duration::from_secs(2) { 1000 } else { 10 };
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis((ms.div_ceil(grain)).saturating_mul(grain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        "1.1.1".parse().unwrap()
    }

    fn judged(stopped: Stop, ended: Ended) -> Judgement {
        judge(lease(), stopped, Duration::from_millis(29_997), ended)
    }

    fn failed(judgement: &Judgement) -> (&str, Retry) {
        match &judgement.finish {
            Some(Finish::Fail { error, retry, .. }) => (error, *retry),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lost_lease_throws_everything_away() {
        for ended in [Ended::Returned(Ok(None)), Ended::Panicked("x".into()), Ended::Dropped] {
            assert_eq!(judged(Stop::Lost, ended).finish, None);
        }
    }

    #[test]
    fn a_result_counts_although_it_came_after_the_word_to_stop() {
        for stopped in [Stop::No, Stop::Cancel, Stop::Timeout, Stop::Drain] {
            let judgement = judged(stopped, Ended::Returned(Ok(None)));
            assert_eq!(judgement.finish, Some(Finish::Complete { lease: lease(), result: None }));
            assert_eq!(judgement.signal, Signal::Success);
        }
    }

    #[test]
    fn a_timeout_says_how_long_and_why_and_is_tried_again() {
        let judgement = judged(Stop::Timeout, Ended::Dropped);
        assert_eq!(failed(&judgement), ("timed out after 30s", Retry::Backoff));
        assert_eq!(judgement.signal, Signal::Fault);
        let judgement = judged(Stop::Timeout, Ended::Returned(Err(HandlerError::retry("peer is slow"))));
        assert_eq!(failed(&judgement), ("timed out after 30s: peer is slow", Retry::Backoff));
        let judgement = judged(Stop::Timeout, Ended::Returned(Err(HandlerError::cancelled())));
        assert_eq!(failed(&judgement), ("timed out after 30s", Retry::Backoff));
    }

    #[test]
    fn each_verdict_has_its_retry_and_only_faults_reach_the_breaker() {
        let second = Duration::from_secs(1);
        for (error, retry, signal) in [
            (HandlerError::retry("x"), Retry::Backoff, Signal::Fault),
            (HandlerError::retry_in("x", second), Retry::In(second), Signal::Fault),
            (HandlerError::fatal("x"), Retry::Never, Signal::Neutral),
        ] {
            let judgement = judged(Stop::No, Ended::Returned(Err(error)));
            assert_eq!((failed(&judgement), judgement.signal), (("x", retry), signal));
        }
    }

    #[test]
    fn a_drained_attempt_is_given_back_uncounted() {
        let judgement = judged(Stop::Drain, Ended::Returned(Err(HandlerError::retry("interrupted"))));
        assert_eq!(judgement.finish, Some(Finish::Release { lease: lease() }));
    }
}
