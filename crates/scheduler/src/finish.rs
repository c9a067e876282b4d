//! Outcomes on their way to the queue: one call for all that ended meanwhile, patient with a failing store.

use std::time::Duration;

use tidegate_queue::{Error, Finish, Outcome, Queue, Retry};
use tokio::time::{Instant, sleep};

/// What became of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The queue has it.
    Accepted,
    /// Somebody else has the job; ours was thrown away.
    Stale,
    /// A reply was lost and then the lease was stale: it may have been accepted the first time.
    Unknown,
    /// The queue could not be reached for as long as the lease lasts; the job will be rescued and run again.
    GivenUp,
}

/// Tells the queue, again and again for up to `patience` while the store fails for a reason that may pass.
pub(crate) async fn tell(queue: &Queue, finishes: Vec<Finish>, patience: Duration) -> Vec<Told> {
    let until = Instant::now() + patience;
    match together(queue, &finishes, until).await {
        Ok(told) => told,
        // One outcome that is refused must not take the others with it.
        Err(error) if finishes.len() > 1 => {
            tracing::warn!(queue = %queue.name(), %error, "outcomes refused together, telling them one by one");
            let mut all = Vec::with_capacity(finishes.len());
            for finish in finishes {
                all.push(alone(queue, finish, until).await);
            }
            all
        }
        Err(error) => {
            let mut all = Vec::new();
            for finish in finishes {
                all.push(refused(queue, finish, &error, until).await);
            }
            all
        }
    }
}

async fn alone(queue: &Queue, finish: Finish, until: Instant) -> Told {
    match together(queue, std::slice::from_ref(&finish), until).await {
        Ok(told) => told.first().copied().unwrap_or(Told::GivenUp),
        Err(error) => refused(queue, finish, &error, until).await,
    }
}

/// A refused result (over the bound) becomes a failure that says so; anything else is given up.
async fn refused(queue: &Queue, finish: Finish, error: &Error, until: Instant) -> Told {
    let (Finish::Complete { lease, .. }, Error::Invalid { .. }) = (&finish, error) else {
        tracing::error!(queue = %queue.name(), %error, lease = %finish.lease(), "outcome not told");
        return Told::GivenUp;
    };
    let message = format!("result refused: {error}");
    let failure = Finish::Fail { lease: *lease, error: message.into(), retry: Retry::Never };
    let told = together(queue, &[failure], until).await.unwrap_or_default();
    told.first().copied().unwrap_or(Told::GivenUp)
}

/// One call for all, repeated while the error may pass. An error means that all were refused.
async fn together(queue: &Queue, finishes: &[Finish], until: Instant) -> Result<Vec<Told>, Error> {
    let mut pause = Duration::from_millis(50);
    let mut repeated = false;
    loop {
        match queue.finish(finishes.to_vec()).await {
            Ok(outcomes) => return Ok(outcomes.into_iter().map(|outcome| told(outcome, repeated)).collect()),
            Err(error) if error.is_retryable() && Instant::now() + pause < until => {
                tracing::warn!(queue = %queue.name(), %error, "outcomes not told, trying again");
            }
            Err(error) => return Err(error),
        }
        repeated = true;
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn told(outcome: Outcome, repeated: bool) -> Told {
    match outcome {
        Outcome::Ok => Told::Accepted,
        Outcome::Stale if repeated => Told::Unknown,
        Outcome::Stale => Told::Stale,
    }
}
