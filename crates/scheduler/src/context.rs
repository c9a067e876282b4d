//! What a handler knows about its attempt, and how it hears that it should stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tidegate_queue::{JobId, QueueName, UnixMillis};
use tokio_util::sync::CancellationToken;

use crate::HandlerError;
use crate::run::Run;

/// What an asynchronous handler gets. Clones are the same attempt; it may be moved into tasks of the handler, but
/// those are not stopped with it unless they watch the token.
#[derive(Clone, Debug)]
pub struct Context {
    run: Arc<Run>,
}

/// What a handler on the CPU pool gets; usable from any thread.
#[derive(Clone, Debug)]
pub struct CpuContext {
    run: Arc<Run>,
}

macro_rules! facts {
    ($context:ident) => {
        impl $context {
            pub(crate) fn new(run: Arc<Run>) -> Self {
                Self { run }
            }

            /// The job.
            #[must_use]
            pub fn id(&self) -> &JobId {
                &self.run.id
            }

            /// The queue it came from.
            #[must_use]
            pub fn queue(&self) -> &QueueName {
                self.run.id.queue()
            }

            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> &str {
                &self.run.kind
            }

            /// 1 for the first attempt.
            #[must_use]
            pub fn attempt(&self) -> u16 {
                self.run.attempt
            }

            /// Attempts in all.
            #[must_use]
            pub fn max_attempts(&self) -> u16 {
                self.run.max_attempts
            }

            /// When this attempt times out.
            #[must_use]
            pub fn deadline(&self) -> UnixMillis {
                self.run.deadline_at
            }

            /// Whether the attempt should stop: cancelled, timed out, draining, or its lease was lost.
            /// One atomic load.
            #[must_use]
            pub fn is_cancelled(&self) -> bool {
                self.run.flag.load(Relaxed)
            }

            /// Says how far it is, 0 to 1, with a note for people. Never waits and is cheap enough for a loop: of many
            /// calls only the latest reaches the queue, about ten times a second.
            pub fn progress(&self, progress: f64, note: impl Into<Option<&'static str>>) {
                self.run.report.progress(progress, note.into().map(Arc::from));
            }

            /// [`progress`](Self::progress) with a note made at run time.
            pub fn progress_note(&self, progress: f64, note: impl Into<Arc<str>>) {
                self.run.report.progress(progress, Some(note.into()));
            }
        }
    };
}

facts!(Context);
facts!(CpuContext);

impl Context {
    /// Fires when the attempt should stop. The handler then has a grace (`Config::cancel_grace`) to return; after it,
    /// its future is dropped at its next await.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.run.token
    }

    /// Sleeps, but not past the moment the attempt should stop (its deadline included).
    ///
    /// # Errors
    /// [`HandlerError::cancelled`] when it should stop; `ctx.sleep(…).await?` is all a handler needs.
    pub async fn sleep(&self, duration: Duration) -> Result<(), HandlerError> {
        tokio::select! {
            biased;
            () = self.run.token.cancelled() => Err(HandlerError::cancelled()),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }
}

impl CpuContext {
    /// The flag behind [`is_cancelled`](Self::is_cancelled), for code that takes one.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.run.flag)
    }
}
