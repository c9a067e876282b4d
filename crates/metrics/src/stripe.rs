//! Which part of a striped metric belongs to the running thread.
//!
//! Every thread that records takes a *stripe*, a small number. The first [`PRIVATE`] stripes have exactly one owner at
//! a time, so their cells are written with a plain load and store: no locked instruction, no shared cache line. When
//! all are taken, further threads share the remaining stripes and pay for atomic additions; counts stay exact.
//! A thread gives its stripe back when it ends, so the number of stripes bounds the memory, not the number of threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// 32: a power of two, so that an index is masked instead of checked; more cores than that share four stripes.
pub(crate) const STRIPES: usize = 32;

/// Stripes below this number have one owner.
const PRIVATE: usize = STRIPES - SHARED;
/// 4: threads beyond the private stripes spread over these.
const SHARED: usize = 4;

const UNASSIGNED: usize = usize::MAX;

thread_local! {
    /// No destructor, so it can still be read while other thread-locals are being destroyed.
    static CURRENT: Cell<usize> = const { Cell::new(UNASSIGNED) };
    /// Gives a private stripe back when the thread ends.
    static OWNED: Cell<Option<Owned>> = const { Cell::new(None) };
}

/// Stripes given back by threads that ended; locked once per thread start and end.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// The next stripe nobody has had yet; beyond [`PRIVATE`] it only picks a shared one.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The stripe of the running thread.
#[derive(Clone, Copy)]
pub(crate) struct Stripe(usize);

impl Stripe {
    #[inline]
    pub(crate) fn current() -> Self {
        let stripe = CURRENT.get();
        if stripe == UNASSIGNED { assign() } else { Self(stripe) }
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 % STRIPES
    }

    /// Whether no other thread writes to this stripe.
    #[inline]
    fn is_private(self) -> bool {
        self.0 < PRIVATE
    }

    #[inline]
    pub(crate) fn add(self, cell: &AtomicU64, n: u64) {
        if self.is_private() {
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        } else {
            cell.fetch_add(n, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn increment(self, cell: &AtomicU32) {
        if self.is_private() {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        } else {
            cell.fetch_add(1, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn lower(self, cell: &AtomicU64, value: u64) {
        if value < cell.load(Relaxed) {
            cell.fetch_min(value, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn raise(self, cell: &AtomicU64, value: u64) {
        if value > cell.load(Relaxed) {
            cell.fetch_max(value, Relaxed);
        }
    }
}

struct Owned(usize);

impl Drop for Owned {
    fn drop(&mut self) {
        // What this thread still records goes to a shared stripe; only then may another thread own this one.
        // The lock orders this thread's last plain store before the next owner's first load.
        CURRENT.set(PRIVATE + self.0 % SHARED);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

#[cold]
fn assign() -> Stripe {
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let stripe = free.unwrap_or_else(|| match NEXT.fetch_add(1, Relaxed) {
        fresh if fresh < PRIVATE => fresh,
        late => PRIVATE + late % SHARED,
    });
    CURRENT.set(stripe);
    if stripe < PRIVATE {
        let owned = Owned(stripe);
        // A thread that is ending already cannot keep it: the closure is dropped, and with it `owned`, uncalled.
        let _ = OWNED.try_with(move |slot| slot.set(Some(owned)));
    }
    Stripe(CURRENT.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::{Barrier, mpsc};
    use std::thread;

    /// More than there are private stripes.
    const THREADS: usize = 2 * STRIPES;

    #[test]
    fn threads_alive_at_once_never_own_the_same_stripe() {
        let barrier = Barrier::new(THREADS);
        let take = || {
            let stripe = Stripe::current();
            barrier.wait();
            (stripe.is_private(), stripe.index())
        };
        let taken: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let private: Vec<_> = taken.iter().filter(|(private, _)| *private).map(|(_, index)| *index).collect();
        let distinct: BTreeSet<_> = private.iter().copied().collect();
        assert_eq!(private.len(), distinct.len());
        let shared = taken.iter().filter(|(private, _)| !*private);
        assert!(shared.count() >= THREADS - PRIVATE);
        assert!(taken.iter().all(|(private, index)| *private || !distinct.contains(index)));
    }

    struct TellsAtEnd(mpsc::Sender<bool>);

    impl Drop for TellsAtEnd {
        fn drop(&mut self) {
            let _ = self.0.send(Stripe::current().is_private());
        }
    }

    #[test]
    fn a_thread_that_gave_its_stripe_back_no_longer_writes_to_it_plainly() {
        thread_local!(static AT_END: Cell<Option<TellsAtEnd>> = const { Cell::new(None) });
        let (sender, receiver) = mpsc::channel();
        let ends = move || {
            // Set first, so destroyed after the stripe went back.
            AT_END.set(Some(TellsAtEnd(sender)));
            let _ = Stripe::current();
        };
        thread::spawn(ends).join().expect("no panic");
        assert_eq!(receiver.recv(), Ok(false));
    }
}
