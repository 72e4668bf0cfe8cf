//! RFC 3339, which is how Anthropic tells its resets; and without the seconds, which is how Jira does.

use std::time::Duration;

/// The time since 1970 began. A time before that is its beginning.
///
/// `YYYY-MM-DD`, then `T`, `t` or a space, then `HH:MM`, then perhaps `:SS` and perhaps a fraction, then `Z`, `z` or
/// `+HH:MM` or `-HH:MM`. A leap second is the one that follows it.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (date, time) = (text.get(..10)?.as_bytes(), text.get(10..)?.as_bytes());
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return None };
    let year = i64::from(two(&[*y1, *y2])?) * 100 + i64::from(two(&[*y3, *y4])?);
    let (month, day) = (two(&[*m1, *m2])?, two(&[*d1, *d2])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }

    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] = time else { return None };
    let (hour, minute) = (two(&[*h1, *h2])?, two(&[*m1, *m2])?);
    let (second, nanos, zone) = match rest {
        [b':', s1, s2, rest @ ..] => {
            let (nanos, zone) = fraction(rest)?;
            (two(&[*s1, *s2])?, nanos, zone)
        }
        zone => (0, 0, zone),
    };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }

    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second) - offset(zone)?;
    let seconds = days_since_1970(year, month, day) * 86_400 + seconds;
    Some(u64::try_from(seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos)))
}

/// The billionths of a second in `.digits`, if it is there, and what follows.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let [b'.', rest @ ..] = text else { return Some((0, text)) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = rest.split_at(digits);
    let nanos = (0..9)
        .fold(0, |nanos, place| nanos * 10 + digits.get(place).map_or(0, |digit| u32::from(digit - b'0')));
    (!digits.is_empty()).then_some((nanos, zone))
}

/// How many seconds the zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(&[*h1, *h2])?, two(&[*m1, *m2])?);
            let ahead = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'+' { ahead } else { -ahead })
        }
        _ => None,
    }
}

fn two(digits: &[u8; 2]) -> Option<u8> {
    let [tens, ones] = digits;
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is the last of its year.
/// <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>
fn days_since_1970(year: i64, month: u8, day: u8) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent() {
        for (text, seconds, nanos) in [
            ("2026-02-25T20:02:32Z", 1_772_049_752, 0),
            ("2026-02-25T20:02:32.5z", 1_772_049_752, 500_000_000),
            ("2026-02-25t22:02:32+02:00", 1_772_049_752, 0),
            ("2026-02-25 14:32:32-05:30", 1_772_049_752, 0),
            ("2026-02-25T20:02Z", 1_772_049_720, 0),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1969-12-31T23:59:59Z", 0, 0),
            ("2000-02-29T00:00:00.123456789123Z", 951_782_400, 123_456_789),
            ("2016-12-31T23:59:60Z", 1_483_228_800, 0),
        ] {
            assert_eq!(parse(text), Some(Duration::new(seconds, nanos)), "{text}");
        }
    }

    #[test]
    fn nothing_else() {
        for text in [
            "",
            "2026-02-25",
            "2026-02-25T20:02:32",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-02-00T00:00:00Z",
            "2026-02-25T24:00:00Z",
            "2026-02-25T20:60:00Z",
            "2026-02-25T20:02:61Z",
            "2026-02-25T20:02:32.Z",
            "2026-02-25T20:02:32+0200",
            "2026-02-25T20:02:32+24:00",
            "2026-02-25T20:02:32Zz",
            "26-02-25T20:02:32Z",
            "+026-02-25T20:02:32Z",
            "2026-02-2é0:02:32Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
