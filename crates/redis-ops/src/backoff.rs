//! How long to wait between attempts to reconnect.

use std::time::Duration;

/// At once, then `min` doubled up to `max`, each reduced by up to half by chance.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0 }
    }

    /// The wait before the next attempt; `chance` in 0..=1.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        let attempt = self.attempts;
        self.attempts = attempt.saturating_add(1);
        match attempt {
            0 => Duration::ZERO,
            _ => {
                let full = self.min.saturating_mul(1 << (attempt - 1).min(20)).min(self.max);
                full.mul_f64(1.0 - chance / 2.0)
            }
        }
    }

    /// The next attempt is made at once again.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        let waits: Vec<_> = (0..40).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits[..9], [0, 20, 40, 80, 160, 320, 640, 1280, 2000]);
        assert_eq!(waits[39], 2000);
        assert_eq!(backoff.next(1.0), Duration::from_secs(1));
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::ZERO);
    }
}
