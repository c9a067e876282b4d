//! When a connection's time is over: a pure machine. `now` is an argument; [`super::io`] and [`super::connection`] tell
//! it what happened, and ask it for the next deadline.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// A request's head was begun and not finished.
    Head,
    /// Nothing was asked for too long (also: nothing at all after connecting).
    Idle,
    /// The peer does not take our bytes.
    Write,
}

/// The deadlines a connection lives under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

/// One connection's clock. Shared by its I/O, its requests and its driver.
#[derive(Debug)]
pub(crate) struct Watch {
    deadlines: Deadlines,
    /// Locked for a few loads and stores, a handful of times per request.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_flight: u32,
    /// The first request has not arrived yet: silence is judged by the head deadline.
    fresh: bool,
    /// Bytes arrived since the last request ended, so a head is on its way.
    head_begun: bool,
    /// Since when no request is in flight, or since when the head is on its way.
    since: Instant,
    write_blocked_since: Option<Instant>,
    /// A request's body was left unread, so the peer may still be sending.
    body_unread: bool,
}

impl Watch {
    pub(crate) fn new(deadlines: Deadlines, now: Instant) -> Self {
        let state = State {
            in_flight: 0,
            fresh: true,
            head_begun: false,
            since: now,
            write_blocked_since: None,
            body_unread: false,
        };
        Self { deadlines, state: Mutex::new(state) }
    }

    /// The moment this connection's time is over if nothing happens before, and why.
    pub(crate) fn next(&self) -> Option<(Instant, Expired)> {
        let state = self.lock();
        let write = state.write_blocked_since.map(|since| (since + self.deadlines.write, Expired::Write));
        let request = (state.in_flight == 0).then(|| {
            if state.head_begun {
                (state.since + self.deadlines.head, Expired::Head)
            } else if state.fresh {
                (state.since + self.deadlines.head, Expired::Idle)
            } else {
                (state.since + self.deadlines.idle, Expired::Idle)
            }
        });
        [write, request].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    pub(crate) fn bytes_read(&self, now: Instant) {
        let mut state = self.lock();
        if state.in_flight == 0 && !state.head_begun {
            state.head_begun = true;
            state.since = now;
        }
    }

    pub(crate) fn write_blocked(&self, now: Instant) {
        self.lock().write_blocked_since.get_or_insert(now);
    }

    /// The socket has not taken all that was written to it.
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.lock().write_blocked_since.is_some()
    }

    pub(crate) fn bytes_written(&self) {
        self.lock().write_blocked_since = None;
    }

    pub(crate) fn request_begun(&self) {
        let mut state = self.lock();
        state.in_flight += 1;
        state.fresh = false;
        state.head_begun = false;
    }

    pub(crate) fn request_ended(&self, now: Instant) {
        let mut state = self.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.since = now;
        }
    }

    pub(crate) fn body_left_unread(&self) {
        self.lock().body_unread = true;
    }

    pub(crate) fn is_body_unread(&self) -> bool {
        self.lock().body_unread
    }

    /// No request is being answered, so whatever hyper writes now it made up itself.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.lock().in_flight == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { head: Duration::from_secs(10), idle: Duration::from_secs(75), write: Duration::from_secs(30) };

    fn watch() -> (Watch, Instant) {
        let now = Instant::now();
        (Watch::new(DEADLINES, now), now)
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_after_connecting_ends_at_the_head_deadline() {
        let (watch, now) = watch();
        assert_eq!(watch.next(), Some((now + after(10), Expired::Idle)));
    }

    #[test]
    fn a_head_that_trickles_in_gains_no_time_from_its_bytes() {
        let (watch, now) = watch();
        watch.bytes_read(now + after(3));
        watch.bytes_read(now + after(9));
        assert_eq!(watch.next(), Some((now + after(13), Expired::Head)));
    }

    #[test]
    fn a_running_request_has_no_deadline_of_the_connection() {
        let (watch, now) = watch();
        watch.bytes_read(now);
        watch.request_begun();
        assert_eq!(watch.next(), None);
    }

    #[test]
    fn a_kept_alive_connection_may_idle_and_its_next_head_has_its_own_deadline() {
        let (watch, now) = watch();
        watch.request_begun();
        watch.request_ended(now + after(5));
        assert_eq!(watch.next(), Some((now + after(80), Expired::Idle)));
        watch.bytes_read(now + after(60));
        assert_eq!(watch.next(), Some((now + after(70), Expired::Head)));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_cut_and_one_that_takes_something_is_not() {
        let (watch, now) = watch();
        watch.request_begun();
        watch.write_blocked(now);
        watch.write_blocked(now + after(20));
        assert_eq!(watch.next(), Some((now + after(30), Expired::Write)));
        watch.bytes_written();
        assert_eq!(watch.next(), None);
    }
}
