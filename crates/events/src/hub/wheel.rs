//! Signs of life for silent listeners, from one timer: a wheel of twenty slots that turns once per heartbeat interval.
//!
//! A listener sits in the slot in which its silence would have lasted long enough. If it has heard something since, it
//! moves on instead; so each is looked at about once per interval, however many events it hears.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::seat::Seat;

const SLOTS: u64 = 20;

#[derive(Debug)]
pub(crate) struct Wheel {
    tick: AtomicU64,
    /// Held to add a listener or turn the wheel.
    slots: Mutex<[Vec<Weak<Seat>>; SLOTS as usize]>,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { tick: AtomicU64::new(SLOTS), slots: Mutex::new(std::array::from_fn(|_| Vec::new())) }
    }
}

impl Wheel {
    /// Between two turns.
    pub(crate) fn step(heartbeat: Duration) -> Duration {
        heartbeat / SLOTS as u32
    }

    pub(crate) fn now(&self) -> u64 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, seat: Weak<Seat>) {
        let mut slots = self.slots.lock();
        slots[(self.now() % SLOTS) as usize].push(seat);
    }

    /// Turns by one slot and wakes who was silent for a whole turn.
    pub(crate) fn turn(&self) {
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let mut slots = self.slots.lock();
        for seat in std::mem::take(&mut slots[(now % SLOTS) as usize]) {
            let Some(listener) = seat.upgrade() else { continue };
            let mut due = listener.sent_at() + SLOTS;
            if due <= now {
                listener.want_beat();
                due = now + SLOTS;
            }
            slots[(due % SLOTS) as usize].push(seat);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_the_silent_are_woken_and_only_once_per_turn() {
        let wheel = Wheel::default();
        let (silent, busy) = (Arc::new(Seat::default()), Arc::new(Seat::default()));
        for seat in [&silent, &busy] {
            seat.sent(wheel.now());
            wheel.add(Arc::downgrade(seat));
        }
        let (mut beats, mut busy_beats) = (0, 0);
        for _ in 0..3 * SLOTS {
            busy.sent(wheel.now());
            wheel.turn();
            beats += u32::from(silent.take_beat());
            busy_beats += u32::from(busy.take_beat());
        }
        assert_eq!((beats, busy_beats), (3, 0));
    }

    #[test]
    fn who_left_is_forgotten() {
        let wheel = Wheel::default();
        wheel.add(Arc::downgrade(&Arc::new(Seat::default())));
        (0..SLOTS).for_each(|_| wheel.turn());
        assert!(wheel.slots.lock().iter().all(Vec::is_empty));
    }
}
