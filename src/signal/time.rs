//! Times as services write them: durations, dates, and numbers of which nobody says what they are.

use http::HeaderValue;
use std::time::{Duration, SystemTime};

/// A time, before it is known what the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// So long from now.
    In(Duration),
    /// At this time, from 1970 on.
    At(Duration),
}

/// What the clock says: the response's own `Date`, so that a difference between the two clocks does not matter; without
/// it, ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Duration);

impl Clock {
    pub(super) fn of(date: Option<&HeaderValue>) -> Self {
        let date = date.and_then(text).and_then(|date| httpdate::parse_http_date(date).ok());
        let now = date.unwrap_or_else(SystemTime::now);
        Self(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// How long it takes until then; zero for a time that is past.
    pub(super) fn until(self, when: When) -> Duration {
        match when {
            When::In(time) => time,
            When::At(at) => at.saturating_sub(self.0),
        }
    }
}

/// A field's text, without white space around it.
pub(super) fn text(value: &HeaderValue) -> Option<&str> {
    Some(value.to_str().ok()?.trim())
}

/// A reset, of which no one says what it is.
///
/// With letters it is a Go duration, or a date. A number is seconds from now, or, if it is too large for that, a time
/// since 1970 in seconds, milliseconds or microseconds.
pub(super) fn when(text: &str) -> Option<When> {
    if let Some(number) = decimal(text) {
        let seconds = number.as_secs();
        return Some(match seconds {
            100_000_000_000_000.. => When::At(Duration::from_micros(seconds)),
            100_000_000_000.. => When::At(Duration::from_millis(seconds)),
            1_000_000_000.. => When::At(number),
            _ => When::In(number),
        });
    }
    if let Some(time) = go_duration(text) {
        return Some(When::In(time));
    }
    if let Some(at) = iso_date(text) {
        return Some(When::At(at));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    at.duration_since(SystemTime::UNIX_EPOCH).ok().map(When::At)
}

/// `digits [ "." digits ]` as seconds, and nothing else: no sign, no exponent, no `inf`.
pub(super) fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds = digits(whole)?;
    digits(fraction.get(..1)?)?;
    let mut nanos = 0;
    let mut unit = 100_000_000;
    for byte in fraction.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        nanos += u32::from(byte - b'0') * unit;
        unit /= 10;
    }
    Some(Duration::new(seconds, nanos))
}

/// A number without a sign that fits 64 bits.
pub(super) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A count: digits, of which a fraction is cut off. `-1` and the like are not known.
pub(super) fn count(text: &str) -> Option<u64> {
    decimal(text).map(|number| number.as_secs())
}

/// Go's: `6m0s`, `17ms`, `7.66s`, `1m30.951s`, `1h0m0.5s`, `12µs`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let number = decimal(number)?;
        let time = match unit {
            "h" => number.checked_mul(3600)?,
            "m" => number.checked_mul(60)?,
            "s" => number,
            "ms" => number / 1_000,
            "us" | "µs" | "μs" => number / 1_000_000,
            "ns" => number / 1_000_000_000,
            _ => return None,
        };
        total = total.checked_add(time)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// RFC 3339, and what some send of ISO 8601: `2026-02-25T20:02:32Z`, `2026-02-25T20:02:32.5+01:00`,
/// `2026-02-25T20:02Z`. As time since 1970.
pub(super) fn iso_date(text: &str) -> Option<Duration> {
    let bytes = text.as_bytes();
    let separators = bytes.len() >= 17
        && bytes.len() <= 40
        && (bytes[4], bytes[7], bytes[13]) == (b'-', b'-', b':')
        && matches!(bytes[10], b'T' | b't' | b' ');
    if !separators || !text.is_ascii() {
        return None;
    }
    let number = |from: usize, to: usize| digits(text.get(from..to)?);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    let mut rest = &text[16..];
    let mut second = Duration::ZERO;
    if let Some(seconds) = rest.strip_prefix(':') {
        let end = seconds.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(seconds.len());
        if seconds.find('.').unwrap_or(end) != 2 {
            return None;
        }
        second = decimal(&seconds[..end])?;
        rest = &seconds[end..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), .., _] if rest.len() == 6 && rest.as_bytes()[3] == b':' => {
            let (hours, minutes) = (digits(&rest[1..3])?, digits(&rest[4..6])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 60 + minutes) as i64 * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second.as_secs() <= 60;
    if !in_range {
        return None;
    }
    let days = days_since_1970(year as i64, month as i64, day as i64);
    let seconds = days * 86_400 + (hour * 3600 + minute * 60) as i64 - offset;
    Some(Duration::from_secs(u64::try_from(seconds).ok()?) + second)
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = year.rem_euclid(400);
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, nanos) in [
            ("1s", 1_000_000_000),
            ("6m0s", 360_000_000_000),
            ("17ms", 17_000_000),
            ("7.66s", 7_660_000_000),
            ("1m30.951s", 90_951_000_000),
            ("1h0m0.5s", 3_600_500_000_000),
            ("12µs", 12_000),
            ("0s", 0),
            ("1.5h", 5_400_000_000_000),
        ] {
            assert_eq!(go_duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "s",
            "6",
            "6m0",
            "-1s",
            "1d",
            "1e3s",
            "1..5s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn dates_of_rfc_3339_and_less() {
        for (text, at) in [
            ("2026-02-25T20:02:32Z", 1_772_049_752),
            ("2026-02-25T20:02Z", 1_772_049_720),
            ("2026-02-25T21:02:32+01:00", 1_772_049_752),
            ("2024-02-29T00:00:00Z", 1_709_164_800),
        ] {
            assert_eq!(iso_date(text), Some(Duration::from_secs(at)), "{text}");
        }
        let fraction = iso_date("2026-02-25T20:02:32.5Z").unwrap();
        assert_eq!(fraction, Duration::from_millis(1_772_049_752_500));
        for text in [
            "2026-02-25",
            "2026-02-25T20:02:32",
            "2025-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:0Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "２０２６-02-25T20:02:32Z",
        ] {
            assert_eq!(iso_date(text), None, "{text}");
        }
    }

    #[test]
    fn resets_of_all_kinds() {
        let at = |secs| Some(When::At(Duration::from_secs(secs)));
        assert_eq!(when("50"), Some(When::In(Duration::from_secs(50))));
        assert_eq!(when("0.5"), Some(When::In(Duration::from_millis(500))));
        assert_eq!(when("1470173023.123"), Some(When::At(Duration::from_millis(1_470_173_023_123))));
        assert_eq!(when("1700000000"), at(1_700_000_000));
        assert_eq!(when("1700000000000"), at(1_700_000_000));
        assert_eq!(when("1700000000000000"), at(1_700_000_000));
        assert_eq!(when("6m0s"), Some(When::In(Duration::from_secs(360))));
        assert_eq!(when("Wed, 21 Oct 2015 07:28:00 GMT"), at(1_445_412_480));
        for nonsense in ["", "-1", "abc", "1e3", "inf", "NaN", "6m0"] {
            assert_eq!(when(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_time_that_is_past_is_now() {
        let clock = Clock(Duration::from_secs(1_700_000_000));
        assert_eq!(clock.until(When::At(Duration::from_secs(1_600_000_000))), Duration::ZERO);
        assert_eq!(clock.until(When::At(Duration::from_secs(1_700_000_030))), Duration::from_secs(30));
    }
}
