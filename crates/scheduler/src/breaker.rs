//! The circuit breaker of one kind: a pure machine that takes `now` and knows nothing about jobs.
//!
//! ```text
//! Closed ──consecutive or ratio of faults──▶ Open ──its time is over──▶ HalfOpen (one probe at a time)
//!   ▲                                          ▲                            │
//!   └───────────── probe succeeds ─────────────┼────────────────────────────┤
//!                                              └──── probe fails, twice as long
//! ```
//!
//! **What happens to jobs of an open kind.** Releasing them would put them at the front of the queue, where the next
//! claim finds them: a hot loop. Failing them costs attempts they never had. So they are *held*: claimed, their leases
//! renewed, no permit taken, until the probe decides; a held job gives itself back shortly before its own deadline.
//! Holding is bounded (`Config::held_max`); beyond the bound a job with attempts to spare is failed with a delay,
//! which is what would have happened to it without a breaker, and one on its last attempt is run after all: a breaker
//! never discards a job that was not tried, and never stands in the way of other kinds.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens and for how long.
///
/// While it is open, jobs of its kind that are claimed are held with their leases renewed: they cost no attempt, no
/// permit, and do not stand in the way of other kinds. At the bound (`Config::held_max`) a job is failed with a delay,
/// unless it is on its last attempt, which is run. Faults are retryable errors, timeouts and panics.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Opens after this many faults in a row. 10: one poisoned job with the default 4 attempts does not open it.
    pub consecutive: u32,
    /// Opens when at least this part of the last `ratio_window` attempts were faults. 0.5.
    pub ratio: f64,
    /// How many attempts the ratio looks at, 1 to 64; fewer do not count. 40.
    pub ratio_window: u32,
    /// How long it stays open the first time. 10 s: long enough for a restart of the peer.
    pub open: Duration,
    /// Doubled after each failed probe up to this. 2 min.
    pub open_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive: 10,
            ratio: 0.5,
            ratio_window: 40,
            open: Duration::from_secs(10),
            open_max: Duration::from_secs(120),
        }
    }
}

/// Where a breaker stands; its number is what the gauge shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Jobs run.
    Closed = 0,
    /// One job at a time tries.
    HalfOpen = 1,
    /// Jobs are held back.
    Open = 2,
}

/// May it run?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    Run,
    /// Run, and everybody waits for how it ends: [`Breaker::record`] must be told.
    Probe,
    /// Not now.
    Hold,
}

/// How an attempt ended, as far as the breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Success,
    /// Something the job depends on may be broken: a retryable error, a timeout, a panic.
    Fault,
    /// Says nothing: cancelled, lost, drained, bad arguments.
    Neutral,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    state: BreakerState,
    /// Newest in bit 0; 1 = fault.
    recent: u64,
    seen: u32,
    open_until: Instant,
    /// How long it opens next time.
    open_for: Duration,
    probing: bool,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig, now: Instant) -> Self {
        let open_for = config.open;
        Self { config, state: BreakerState::Closed, recent: 0, seen: 0, open_until: now, open_for, probing: false }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Admit {
        if self.state == BreakerState::Open && now >= self.open_until {
            self.state = BreakerState::HalfOpen;
        }
        match self.state {
            BreakerState::Closed => Admit::Run,
            BreakerState::HalfOpen if !self.probing => {
                self.probing = true;
                Admit::Probe
            }
            BreakerState::HalfOpen | BreakerState::Open => Admit::Hold,
        }
    }

    /// The end of the open time; `None` when closed, or when only the end of the probe can change anything.
    pub(crate) fn ask_again_at(&self) -> Option<Instant> {
        (self.state == BreakerState::Open).then_some(self.open_until)
    }

    /// Whether held jobs should ask again.
    pub(crate) fn record(&mut self, now: Instant, probe: bool, signal: Signal) -> bool {
        if probe {
            self.probing = false;
            return self.record_probe(now, signal);
        }
        // What started before it opened, or was let through at the bound, has had its say.
        if self.state != BreakerState::Closed || signal == Signal::Neutral {
            return false;
        }
        self.recent = (self.recent << 1) | u64::from(signal == Signal::Fault);
        self.seen = (self.seen + 1).min(64);
        if self.has_tripped() {
            self.open(now);
        }
        false
    }

    fn record_probe(&mut self, now: Instant, signal: Signal) -> bool {
        match signal {
            Signal::Success => {
                self.state = BreakerState::Closed;
                self.open_for = self.config.open;
                self.forget();
            }
            Signal::Fault => self.open(now),
            // The next one probes.
            Signal::Neutral => {}
        }
        true
    }

    fn open(&mut self, now: Instant) {
        self.state = BreakerState::Open;
        self.open_until = now + self.open_for;
        self.open_for = (self.open_for * 2).min(self.config.open_max);
        self.forget();
    }

    fn forget(&mut self) {
        self.recent = 0;
        self.seen = 0;
    }

    fn has_tripped(&self) -> bool {
        let in_a_row = self.recent.trailing_ones();
        let window = self.config.ratio_window.clamp(1, 64);
        let faults = (self.recent & (u64::MAX >> (64 - window))).count_ones();
        in_a_row >= self.config.consecutive.min(64)
            || (self.seen >= window && f64::from(faults) >= self.config.ratio * f64::from(window))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn breaker() -> (Breaker, Instant) {
        let now = Instant::now();
        let config = BreakerConfig { consecutive: 3, ratio: 0.5, ratio_window: 8, ..BreakerConfig::default() };
        (Breaker::new(config, now), now)
    }

    fn trip(breaker: &mut Breaker, now: Instant) {
        for _ in 0..3 {
            breaker.record(now, false, Signal::Fault);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn faults_in_a_row_open_it_and_neutral_ends_do_not() {
        let (mut breaker, now) = breaker();
        breaker.record(now, false, Signal::Fault);
        breaker.record(now, false, Signal::Fault);
        breaker.record(now, false, Signal::Neutral);
        breaker.record(now, false, Signal::Success);
        assert_eq!(breaker.admit(now), Admit::Run);
        trip(&mut breaker, now);
        assert_eq!(breaker.admit(now), Admit::Hold);
    }

    #[test]
    fn half_of_the_window_opens_it_although_never_in_a_row() {
        let (mut breaker, now) = breaker();
        for _ in 0..4 {
            assert_eq!(breaker.state(), BreakerState::Closed);
            breaker.record(now, false, Signal::Success);
            breaker.record(now, false, Signal::Fault);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn one_probe_at_a_time_decides_and_a_failed_one_doubles_the_wait() {
        let (mut breaker, now) = breaker();
        trip(&mut breaker, now);
        let later = breaker.ask_again_at().unwrap();
        assert_eq!(later, now + Duration::from_secs(10));
        assert_eq!((breaker.admit(later), breaker.admit(later)), (Admit::Probe, Admit::Hold));
        assert!(breaker.record(later, true, Signal::Fault));
        assert_eq!(breaker.ask_again_at(), Some(later + Duration::from_secs(20)));
        let again = breaker.ask_again_at().unwrap();
        assert_eq!(breaker.admit(again), Admit::Probe);
        assert!(breaker.record(again, true, Signal::Success));
        assert_eq!((breaker.state(), breaker.admit(again)), (BreakerState::Closed, Admit::Run));
    }

    #[test]
    fn a_probe_that_says_nothing_makes_way_for_the_next() {
        let (mut breaker, now) = breaker();
        trip(&mut breaker, now);
        let later = now + Duration::from_secs(10);
        assert_eq!(breaker.admit(later), Admit::Probe);
        assert!(breaker.record(later, true, Signal::Neutral));
        assert_eq!(breaker.admit(later), Admit::Probe);
    }

    proptest! {
        #[test]
        fn never_two_probes_and_nothing_runs_while_open(steps in prop::collection::vec((0u8..3, 0u64..15), 1..200)) {
            let (mut breaker, mut now) = breaker();
            let (mut probes, mut running) = (0, 0);
            for (what, seconds) in steps {
                now += Duration::from_secs(seconds);
                let open = breaker.ask_again_at().is_some_and(|until| now < until);
                match breaker.admit(now) {
                    Admit::Probe => probes += 1,
                    Admit::Run => running += 1,
                    Admit::Hold => {}
                }
                prop_assert!(probes <= 1);
                prop_assert!(!open || (probes == 0 && running == 0) || breaker.state() == BreakerState::Open);
                let signal = [Signal::Success, Signal::Fault, Signal::Neutral][usize::from(what)];
                if probes == 1 {
                    breaker.record(now, true, signal);
                    probes = 0;
                } else if running > 0 {
                    breaker.record(now, false, signal);
                    running -= 1;
                }
            }
        }
    }
}
