//! Numbers and times, as bodies write them.

use serde_json::Value;
use std::time::Duration;

/// A time as Go and protobuf write it, and as people do: `45.837906927s`, `6m0s`, `20ms`, `1 minute and 30 seconds`.
/// The whole text has to be one. No sign, no exponent; digits beyond the nanosecond are cut off.
pub(super) fn time(text: &str) -> Option<Duration> {
    let (time, rest) = leading_time(text)?;
    rest.is_empty().then_some(time)
}

/// The time at the beginning of `text`, and what follows it.
pub(super) fn leading_time(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest) = component(text)?;
    loop {
        let next = rest.trim_start_matches([',', ' ']);
        let next = next.strip_prefix("and ").unwrap_or(next);
        let Some((more, after)) = component(next) else { return Some((total, rest)) };
        total = total.checked_add(more)?;
        rest = after;
    }
}

/// A number and its unit.
fn component(text: &str) -> Option<(Duration, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start_matches(' ');
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let nanos = match unit.to_ascii_lowercase().as_str() {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 60 * 60 * SECOND,
        "d" | "day" | "days" => 24 * 60 * 60 * SECOND,
        _ => return None,
    };
    Some((decimal(number, nanos)?, rest))
}

pub(super) const SECOND: u64 = 1_000_000_000;

/// `digits [ "." digits ]` of a unit of so many nanoseconds.
pub(super) fn decimal(number: &str, unit: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let billionths: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(unit);
    let nanos = whole + u128::from(billionths) * u128::from(unit) / u128::from(SECOND);
    let seconds = u64::try_from(nanos / u128::from(SECOND)).ok()?;
    Some(Duration::new(seconds, (nanos % u128::from(SECOND)) as u32))
}

/// A JSON number of that unit, or one in a string.
pub(super) fn number(value: &Value, unit: u64) -> Option<Duration> {
    match value {
        Value::String(text) => decimal(text.trim(), unit),
        Value::Number(number) => {
            let seconds = number.as_f64()? * (unit as f64 / SECOND as f64);
            let micros = (seconds * 1e6).round();
            // Exact in a float, and more than anybody waits.
            (0.0..9e15).contains(&micros).then(|| Duration::from_micros(micros as u64))
        }
        _ => None,
    }
}

/// A count: a whole number, or one in a string, as protobuf writes 64 bits. A fraction is cut off.
pub(super) fn count(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_u64().or_else(|| {
            number.as_f64().filter(|float| (0.0..9e15).contains(float)).map(|float| float as u64)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_as_services_write_them() {
        for (text, nanos) in [
            ("45.837906927s", 45_837_906_927),
            ("26s", 26 * SECOND),
            ("0.25s", SECOND / 4),
            ("1.0000000019s", SECOND + 1),
            ("20ms", SECOND / 50),
            ("373.801628ms", 373_801_628),
            ("6m0s", 360 * SECOND),
            ("1h2m3.5s", 3_723 * SECOND + SECOND / 2),
            ("12µs", 12_000),
            ("86400 seconds", 86_400 * SECOND),
            ("1 minute and 30 seconds", 90 * SECOND),
            ("2 hours, 5 minutes", 7_500 * SECOND),
            ("1.5h", 5_400 * SECOND),
        ] {
            assert_eq!(time(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in [
            "",
            "s",
            "-5s",
            "+5s",
            "5",
            "5x",
            "5sx",
            "1e3s",
            ".5s",
            "5.s",
            "5.5.5s",
            "NaNs",
            "infs",
            "5s ",
            "99999999999999999999s",
            "18446744073709551615d",
            "5 s and",
            "٣s",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(leading_time("2.398s. Visit"), Some((Duration::from_millis(2398), ". Visit")));
        assert_eq!(leading_time("a moment"), None);
    }

    #[test]
    fn numbers_as_services_write_them() {
        assert_eq!(number(&json!(64.57), SECOND), Some(Duration::from_millis(64_570)));
        assert_eq!(number(&json!(2000), SECOND / 1000), Some(Duration::from_secs(2)));
        assert_eq!(number(&json!("14"), SECOND), Some(Duration::from_secs(14)));
        assert_eq!(number(&json!(0.999_999_9), SECOND), Some(Duration::from_secs(1)));
        for nonsense in
            [json!(-1), json!(1e300), json!(null), json!(""), json!("soon"), json!([1]), json!(true)]
        {
            assert_eq!(number(&nonsense, SECOND), None, "{nonsense}");
        }
        assert_eq!(count(&json!("15")), Some(15));
        assert_eq!(count(&json!(1000.0)), Some(1000));
        for nonsense in [json!(-1), json!("-1"), json!(1e300), json!("many"), json!(null)] {
            assert_eq!(count(&nonsense), None, "{nonsense}");
        }
    }
}
