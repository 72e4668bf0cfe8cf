//! Google's daily quotas are reset at midnight Pacific Time.

use std::time::{Duration, SystemTime};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// The year 9999; later the arithmetic would go on, but nothing else would.
const LATEST: u64 = 253_402_300_799;

/// How long it is until the next midnight in California, by the rules for summer time that hold since 2007.
pub(super) fn until_midnight(now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok().filter(|now| now.as_secs() <= LATEST)?;
    let seconds = now.as_secs() as i64;
    let midnight = ((seconds + offset(seconds)).div_euclid(DAY) + 1) * DAY;
    // Summer time does not begin or end at midnight, so that time exists once.
    let midnight = midnight - offset(midnight + 8 * HOUR);
    Duration::from_secs(midnight as u64).checked_sub(now)
}

/// How far Pacific Time is ahead of UTC, in seconds.
fn offset(utc: i64) -> i64 {
    let year = year(utc.div_euclid(DAY));
    let begins = nth_sunday(year, 3, 2) * DAY + 10 * HOUR;
    let ends = nth_sunday(year, 11, 1) * DAY + 9 * HOUR;
    if (begins..ends).contains(&utc) { -7 * HOUR } else { -8 * HOUR }
}

/// The year of that day since 1970, and the day of a date: Howard Hinnant's `civil_from_days` and `days_from_civil`.
fn year(days: i64) -> i64 {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Those years begin in March.
    era * 400 + year + i64::from(day_of_year >= 306)
}

fn first_of(year: i64, month: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5;
    let of_era = year.rem_euclid(400);
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn nth_sunday(year: i64, month: i64, nth: i64) -> i64 {
    let first = first_of(year, month);
    // 1970 began on a Thursday.
    let weekday = (first + 4).rem_euclid(7);
    first + (7 - weekday) % 7 + 7 * (nth - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours and minutes until midnight, from this HTTP date.
    fn left(date: &str) -> (u64, u64) {
        let left = until_midnight(httpdate::parse_http_date(date).unwrap()).unwrap().as_secs();
        (left / 3600, left % 3600 / 60)
    }

    #[test]
    fn midnight_in_winter_and_in_summer() {
        assert_eq!(left("Thu, 15 Jan 2026 12:00:00 GMT"), (20, 0));
        assert_eq!(left("Thu, 15 Jan 2026 07:59:00 GMT"), (0, 1));
        assert_eq!(left("Thu, 15 Jan 2026 08:00:00 GMT"), (24, 0));
        assert_eq!(left("Wed, 15 Jul 2026 12:00:00 GMT"), (19, 0));
        assert_eq!(left("Wed, 15 Jul 2026 06:59:00 GMT"), (0, 1));
        assert_eq!(left("Thu, 29 Feb 2024 20:00:00 GMT"), (12, 0));
    }

    #[test]
    fn the_days_on_which_the_clocks_change() {
        // 8 March 2026 has 23 hours, 1 November 2026 has 25.
        assert_eq!(left("Sun, 08 Mar 2026 08:00:00 GMT"), (23, 0));
        assert_eq!(left("Sun, 08 Mar 2026 10:00:00 GMT"), (21, 0));
        assert_eq!(left("Sun, 01 Nov 2026 07:00:00 GMT"), (25, 0));
        assert_eq!(left("Sun, 01 Nov 2026 09:00:00 GMT"), (23, 0));
        assert_eq!(left("Sat, 07 Mar 2026 12:00:00 GMT"), (20, 0));
        assert_eq!(left("Sat, 31 Oct 2026 12:00:00 GMT"), (19, 0));
    }

    #[test]
    fn a_day_at_most_whatever_the_clock_says() {
        for seconds in (0..LATEST).step_by(86_400 * 36 + 3_607) {
            let left = until_midnight(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            assert!(left <= Duration::from_secs(25 * 3600) && !left.is_zero(), "{seconds}: {left:?}");
        }
        assert_eq!(until_midnight(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(until_midnight(SystemTime::UNIX_EPOCH + Duration::from_secs(LATEST + 1)), None);
    }
}
