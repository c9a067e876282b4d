//! How the scheduler runs a built-in: on the CPU pool, with progress, stopped when it is told to.

use std::time::Duration;

use bytes::Bytes;
use tidegate_compute::Control;
use tidegate_scheduler::{Builder, Context, CpuError, CpuPool, HandlerError};

use super::{ALL, Builtin, Failure, Limits};

/// The attempt's own timeout ends it; this one only has to be longer than any of those.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// The priority of a submission, since jobs are claimed in order of theirs already.
const PRIORITY: u8 = 100;
/// 250 ms: progress is for people.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Enters every built-in kind.
pub(crate) fn register(builder: Builder, pool: &CpuPool, limits: Limits) -> Builder {
    ALL.iter().fold(builder.cpu_pool(pool.clone()), |builder, builtin| {
        let pool = pool.clone();
        builder.handle_raw(builtin.kind, move |context, data| handle(builtin, context, data, pool.clone(), limits))
    })
}

/// Runs one attempt. Dropped, it stops the computation at its next tile.
async fn handle(
    builtin: &'static Builtin,
    context: Context,
    data: Bytes,
    pool: CpuPool,
    limits: Limits,
) -> Result<Option<Bytes>, HandlerError> {
    let control = Stopped::default();
    let inner = Control::clone(&control.0);
    let mut work = Box::pin(pool.run(PRIORITY, NEVER, move |_| (builtin.run)(&data, &limits, &inner)));
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut work => break answer,
            () = context.token().cancelled(), if !control.0.is_cancelled() => control.0.cancel(),
            _ = ticks.tick() => context.progress(control.0.progress().fraction(), None),
        }
    };
    match answer {
        Ok(Ok(result)) => Ok(Some(result.into())),
        Ok(Err(Failure::Input(message))) => Err(HandlerError::fatal(message)),
        Ok(Err(Failure::Cancelled)) => Err(HandlerError::cancelled()),
        // The same input would panic again.
        Err(error @ CpuError::Panicked { .. }) => Err(HandlerError::fatal(error)),
        Err(error) => Err(HandlerError::retry(error)),
    }
}

/// Cancels its computation when it goes.
#[derive(Default)]
struct Stopped(Control);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
