//! The end: finish what runs, hand back the rest, stop everything.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;

use crate::run::Stop;
use crate::scheduler::Shared;

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Attempts that came to an end while draining: done, failed or timed out.
    pub finished: u64,
    /// Jobs handed back to the front of their queue, their attempt not counted: claimed but not started, or stopped
    /// at the deadline. The next start resumes them.
    pub handed_back: u64,
    /// How many of these handlers were told to stop at the deadline.
    pub interrupted: u64,
    /// Attempts still in the way at the very end, because their handler blocks its thread; their leases expire.
    pub stuck: u64,
    /// Tasks still on the CPU pool, with nobody waiting for them; they end with the process.
    pub cpu_tasks: u64,
}

/// Stop claiming; finish within `deadline`; tell what still runs to stop; drop what does not; end every task.
pub(crate) async fn drain(shared: &Shared, deadline: Duration) -> DrainReport {
    let mut report = DrainReport::default();
    shared.draining.cancel();
    shared.pumps.close();
    if timeout(deadline, shared.pumps.wait()).await.is_err() {
        report.interrupted = shared.served.iter().map(|served| served.runs.stop_all(Stop::Drain) as u64).sum();
        let grace = shared.config.drain_grace;
        if timeout(grace, shared.pumps.wait()).await.is_err() {
            shared.abort.cancel();
            // Dropped futures end at once; what is left are outcomes on a slow store and handlers that block.
            let _ = timeout(grace, shared.pumps.wait()).await;
        }
    }
    report.stuck = shared.served.iter().map(|served| served.runs.len() as u64).sum();
    report.finished = shared.drained.finished.load(Relaxed);
    report.handed_back = shared.drained.handed_back.load(Relaxed);
    shared.cpu.close();
    let _ = timeout(shared.config.drain_grace, shared.cpu.idle()).await;
    report.cpu_tasks = shared.cpu.running() as u64;
    shared.quit.cancel();
    shared.tasks.close();
    if report.stuck == 0 {
        shared.tasks.wait().await;
    } else {
        let _ = timeout(shared.config.drain_grace, shared.tasks.wait()).await;
    }
    tracing::info!(?report, "scheduler drained");
    report
}
