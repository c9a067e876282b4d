//! Those who follow single jobs: whoever watches one job is not woken by the others of its queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::broadcast;

use crate::Transition;

/// A follower may be this many changes of its job behind before it is told that it missed some.
const LAG: usize = 16;

/// Followers by the number of their job.
#[derive(Default)]
pub(crate) struct Followers {
    /// Locked to look up one job; each job's channel goes with its last follower, at the next look at it or at a sweep.
    by_number: Mutex<HashMap<u64, broadcast::Sender<Transition>>>,
    /// How many jobs are followed, so that a queue without followers pays nothing.
    jobs: AtomicUsize,
}

impl Followers {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.load(Ordering::Acquire) == 0
    }

    pub(crate) fn follow(&self, number: u64) -> broadcast::Receiver<Transition> {
        let mut jobs = self.lock();
        // Jobs whose followers have left are let go before the map would grow.
        if jobs.len() == jobs.capacity() {
            jobs.retain(|_, job| job.receiver_count() > 0);
        }
        let receiver = jobs.entry(number).or_insert_with(|| broadcast::channel(LAG).0).subscribe();
        self.jobs.store(jobs.len(), Ordering::Release);
        receiver
    }

    pub(crate) fn tell(&self, number: u64, transition: &Transition) {
        if self.is_empty() {
            return;
        }
        let mut jobs = self.lock();
        let Some(job) = jobs.get(&number) else { return };
        if job.send(transition.clone()).is_err() {
            jobs.remove(&number);
            self.jobs.store(jobs.len(), Ordering::Release);
        }
    }

    /// Ends every receiver: something was missed.
    pub(crate) fn end_all(&self) {
        self.lock().clear();
        self.jobs.store(0, Ordering::Release);
    }

    /// Whether nobody follows any job.
    pub(crate) fn nobody(&self) -> bool {
        self.is_empty() || {
            let mut jobs = self.lock();
            jobs.retain(|_, job| job.receiver_count() > 0);
            self.jobs.store(jobs.len(), Ordering::Release);
            jobs.is_empty()
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, broadcast::Sender<Transition>>> {
        // Nothing in here panics between two consistent states.
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
