//! The circuit breaker of the link: a pure machine that takes `now`, and its shell.
//!
//! ```text
//! Closed ──failures in a row──▶ Open ──its pause is over──▶ HalfOpen (one command at a time)
//!   ▲                            ▲                             │
//!   └────── probe succeeds ──────┼─────────────────────────────┤
//!                                └──── probe fails, twice as long
//! ```
//!
//! A failure is a reply that did not come or a Redis that could not work (loading, busy, not reachable). A refusal
//! (`WRONGTYPE`, `OOM`) is an answer: the link works. A restored connection ends the pause, since there is news.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Class, Error};

/// When the breaker opens and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Opens after this many failures in a row. 50: one lost connection with a handful of requests in flight is none.
    pub consecutive: u32,
    /// Failures further apart than this do not add up. 10 s.
    pub window: Duration,
    /// How long it stays open the first time. 200 ms, up to half more by chance.
    pub open: Duration,
    /// Doubled after each failed probe up to this. 2 s.
    pub open_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive: 50,
            window: Duration::from_secs(10),
            open: Duration::from_millis(200),
            open_max: Duration::from_secs(2),
        }
    }
}

/// Where the breaker stands; its number is what the gauge shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Commands go out.
    Closed = 0,
    /// One command at a time tries.
    HalfOpen = 1,
    /// Commands are refused at once.
    Open = 2,
}

/// The machine.
#[derive(Debug)]
struct Machine {
    config: BreakerConfig,
    state: BreakerState,
    failures: u32,
    last_failure: Option<Instant>,
    until: Option<Instant>,
    pause: Duration,
    probing: bool,
}

/// May it go out?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admit {
    Run,
    /// Run, and [`Machine::record`] or [`Machine::withdraw`] must follow.
    Probe,
    /// Ask again then.
    No(Duration),
}

impl Machine {
    fn new(config: BreakerConfig) -> Self {
        let pause = config.open;
        Self {
            config,
            state: BreakerState::Closed,
            failures: 0,
            last_failure: None,
            until: None,
            pause,
            probing: false,
        }
    }

    /// `chance` in 0..=1 stretches the next pause by up to half.
    fn admit(&mut self, now: Instant) -> Admit {
        match (self.state, self.until) {
            (BreakerState::Closed, _) => return Admit::Run,
            (BreakerState::Open, Some(until)) if now < until => return Admit::No(until - now),
            _ => self.state = BreakerState::HalfOpen,
        }
        match self.probing {
            true => Admit::No(self.config.open),
            false => {
                self.probing = true;
                Admit::Probe
            }
        }
    }

    fn record(&mut self, probe: bool, success: bool, now: Instant, chance: f64) {
        if probe {
            self.probing = false;
        } else if self.state != BreakerState::Closed {
            // A straggler from before: only probes decide.
            return;
        }
        match (success, probe) {
            (true, _) => self.close(),
            (false, true) => {
                self.pause = (self.pause * 2).min(self.config.open_max);
                self.open(now, chance);
            }
            (false, false) => {
                let apart = self.last_failure.is_some_and(|last| now - last > self.config.window);
                self.failures = if apart { 1 } else { self.failures + 1 };
                self.last_failure = Some(now);
                if self.failures >= self.config.consecutive {
                    self.open(now, chance);
                }
            }
        }
    }

    /// The probe was given up: nothing is known.
    fn withdraw(&mut self) {
        self.probing = false;
    }

    /// A connection was made: try at once.
    fn restored(&mut self) {
        if self.state == BreakerState::Open {
            self.until = None;
        }
    }

    fn open(&mut self, now: Instant, chance: f64) {
        self.state = BreakerState::Open;
        self.until = Some(now + self.pause.mul_f64(1.0 + chance / 2.0));
    }

    fn close(&mut self) {
        self.state = BreakerState::Closed;
        (self.failures, self.last_failure, self.until) = (0, None, None);
        self.pause = self.config.open;
    }
}

/// The machine for many callers; costs one atomic load while all is well.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// Closed and no failure counted.
    calm: AtomicBool,
    /// Held for a few instructions.
    machine: Mutex<Machine>,
}

/// Permission for one command. Dropping it says nothing about the link.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self { calm: AtomicBool::new(true), machine: Mutex::new(Machine::new(config)) }
    }

    /// Errors: [`Error::NotSent`] with `BREAKER_OPEN`.
    pub(crate) fn admit(&self) -> Result<Pass<'_>, Error> {
        let mut probe = false;
        if !self.calm.load(Ordering::Acquire) {
            match self.machine.lock().admit(Instant::now()) {
                Admit::Run => {}
                Admit::Probe => probe = true,
                Admit::No(pause) => return Err(Error::breaker_open(pause)),
            }
        }
        Ok(Pass { breaker: self, probe })
    }

    pub(crate) fn restored(&self) {
        self.machine.lock().restored();
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.machine.lock().state
    }
}

impl Pass<'_> {
    /// How the command ended. Says whether the breaker took notice.
    pub(crate) fn record(mut self, outcome: Result<(), Class>) -> bool {
        let success = match outcome {
            Ok(()) | Err(Class::Refused | Class::Fatal) => true,
            Err(Class::Transient | Class::Ambiguous) => false,
        };
        let probe = std::mem::take(&mut self.probe);
        if success && !probe && self.breaker.calm.load(Ordering::Relaxed) {
            return false;
        }
        let mut machine = self.breaker.machine.lock();
        machine.record(probe, success, Instant::now(), crate::chance::unit());
        let calm = machine.state == BreakerState::Closed && machine.failures == 0;
        self.breaker.calm.store(calm, Ordering::Release);
        true
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.machine.lock().withdraw();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        consecutive: 3,
        window: Duration::from_secs(1),
        open: Duration::from_millis(100),
        open_max: Duration::from_millis(400),
    };

    #[test]
    fn opens_after_failures_in_a_row_and_closes_by_one_probe() {
        let (mut machine, start) = (Machine::new(CONFIG), Instant::now());
        for _ in 0..3 {
            assert_eq!(machine.admit(start), Admit::Run);
            machine.record(false, false, start, 0.0);
        }
        assert_eq!(machine.admit(start), Admit::No(CONFIG.open));
        let later = start + CONFIG.open;
        assert_eq!(machine.admit(later), Admit::Probe);
        assert!(matches!(machine.admit(later), Admit::No(_)), "one probe at a time");
        machine.record(true, true, later, 0.0);
        assert_eq!(machine.admit(later), Admit::Run);
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let (mut machine, mut now) = (Machine::new(CONFIG), Instant::now());
        for _ in 0..10 {
            machine.record(false, false, now, 0.0);
            now += CONFIG.window * 2;
        }
        assert_eq!(machine.state, BreakerState::Closed);
    }

    #[test]
    fn a_restored_link_is_tried_at_once() {
        let (mut machine, now) = (Machine::new(CONFIG), Instant::now());
        (0..3).for_each(|_| machine.record(false, false, now, 0.0));
        machine.restored();
        assert_eq!(machine.admit(now), Admit::Probe);
    }

    #[test]
    fn a_probe_that_is_given_up_does_not_block_the_next() {
        let breaker = Breaker::new(CONFIG);
        for _ in 0..3 {
            breaker.admit().unwrap().record(Err(Class::Ambiguous));
        }
        assert_eq!(breaker.admit().unwrap_err().code(), "BREAKER_OPEN");
        breaker.restored();
        drop(breaker.admit().unwrap());
        breaker.admit().unwrap().record(Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(u64),
        Try(bool),
        Restored,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![(0..300_u64).prop_map(Step::Wait), any::<bool>().prop_map(Step::Try), Just(Step::Restored),];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens: never open without enough failures in a row, never longer than the longest pause, and one
        /// success of a probe is enough.
        #[test]
        fn it_never_shuts_a_working_link_out(steps in steps(), chance in 0.0..1.0_f64) {
            let (mut machine, mut now, mut in_a_row) = (Machine::new(CONFIG), Instant::now(), 0);
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Restored => machine.restored(),
                    Step::Try(success) => match machine.admit(now) {
                        Admit::No(pause) => {
                            prop_assert!(in_a_row >= CONFIG.consecutive);
                            prop_assert!(pause <= CONFIG.open_max.mul_f64(1.5));
                        }
                        admit => {
                            machine.record(admit == Admit::Probe, success, now, chance);
                            in_a_row = if success { 0 } else { in_a_row + 1 };
                            prop_assert!(!success || machine.state == BreakerState::Closed);
                        }
                    },
                }
            }
        }
    }
}
