//! The present moment as a name for files.

use std::time::{SystemTime, UNIX_EPOCH};

/// UTC now as `20250131T235959Z`: sorts by age and is a valid file name everywhere.
pub(crate) fn now() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    of_unix_seconds(since_epoch.as_secs())
}

/// Civil date of a day count by Howard Hinnant's `civil_from_days`, counted in years that start in March so that the
/// leap day is the last of its year.
fn of_unix_seconds(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_known_names() {
        assert_eq!(of_unix_seconds(0), "19700101T000000Z");
        assert_eq!(of_unix_seconds(951_782_400), "20000229T000000Z");
        assert_eq!(of_unix_seconds(1_735_689_599), "20241231T235959Z");
    }
}
