//! When a cron expression fires: pure, in milliseconds since 1970, no timers and no jobs.
//!
//! croner is built with its `jiff` feature and without chrono: one time library in the house, and the time zone
//! database comes with the program.

use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tidegate_queue::UnixMillis;

use crate::Error;

/// An expression in a time zone.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    cron: croner::Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Parses both, and refuses an expression that never fires.
    pub(crate) fn new(expression: &str, timezone: &str, now: UnixMillis) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadCron { expression: expression.chars().take(200).collect(), reason };
        let cron = croner::Cron::from_str(expression).map_err(|error| bad(error.to_string()))?;
        let zone =
            TimeZone::get(timezone).map_err(|_| Error::BadTimezone { name: timezone.chars().take(100).collect() })?;
        let schedule = Self { cron, zone };
        match schedule.next_after(now) {
            Some(_) => Ok(schedule),
            None => Err(bad("it never fires".into())),
        }
    }

    /// The first instant after `instant`.
    pub(crate) fn next_after(&self, instant: UnixMillis) -> Option<UnixMillis> {
        let next = self.cron.find_next_occurrence(&self.at(instant)?, false).ok()?;
        millis(&next).filter(|next| *next > instant)
    }

    /// The last instant at or before `instant`.
    pub(crate) fn latest_until(&self, instant: UnixMillis) -> Option<UnixMillis> {
        let latest = self.cron.find_previous_occurrence(&self.at(instant)?, true).ok()?;
        millis(&latest).filter(|latest| *latest <= instant)
    }

    fn at(&self, instant: UnixMillis) -> Option<Zoned> {
        Some(Timestamp::from_millisecond(instant.0).ok()?.to_zoned(self.zone.clone()))
    }
}

fn millis(zoned: &Zoned) -> Option<UnixMillis> {
    Some(UnixMillis(zoned.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn schedule(expression: &str, timezone: &str) -> Schedule {
        Schedule::new(expression, timezone, at("2025-01-01T00:00:00Z")).unwrap()
    }

    #[test]
    fn fires_follow_the_wall_clock_of_the_zone() {
        let nine = schedule("0 9 * * *", "Europe/Berlin");
        assert_eq!(nine.next_after(at("2025-01-15T07:59:59Z")), Some(at("2025-01-15T08:00:00Z")));
        assert_eq!(nine.next_after(at("2025-07-15T07:00:00Z")), Some(at("2025-07-16T07:00:00Z")));
    }

    #[test]
    fn an_hour_that_does_not_exist_fires_once_and_one_that_comes_twice_fires_once() {
        let spring = schedule("30 2 * * *", "Europe/Berlin");
        let fire = spring.next_after(at("2025-03-29T23:00:00Z")).unwrap();
        let next = spring.next_after(fire).unwrap();
        assert_eq!(next, at("2025-03-31T00:30:00Z"));
        let autumn = spring.next_after(at("2025-10-25T22:00:00Z")).unwrap();
        assert_eq!(autumn, at("2025-10-26T00:30:00Z"));
        assert_eq!(spring.next_after(autumn), Some(at("2025-10-27T01:30:00Z")));
    }

    #[test]
    fn the_latest_fire_includes_this_very_instant() {
        let hourly = schedule("@hourly", "UTC");
        assert_eq!(hourly.latest_until(at("2025-05-05T10:00:00Z")), Some(at("2025-05-05T10:00:00Z")));
        assert_eq!(hourly.latest_until(at("2025-05-05T10:59:59.999Z")), Some(at("2025-05-05T10:00:00Z")));
    }

    #[test]
    fn seconds_are_optional() {
        let often = schedule("*/10 * * * * *", "UTC");
        assert_eq!(often.next_after(at("2025-05-05T10:00:01.5Z")), Some(at("2025-05-05T10:00:10Z")));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let now = at("2025-01-01T00:00:00Z");
        assert!(matches!(Schedule::new("61 * * * *", "UTC", now), Err(Error::BadCron { .. })));
        assert!(matches!(Schedule::new("0 0 30 2 *", "UTC", now), Err(Error::BadCron { .. })));
        assert!(matches!(Schedule::new("* * * * *", "Mars/Olympus", now), Err(Error::BadTimezone { .. })));
    }
}
