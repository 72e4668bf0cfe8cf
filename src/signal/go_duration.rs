//! Durations as Go prints them, which is how OpenAI tells its resets: `1s`, `6m0s`, `17ms`, `1m30.951s`.

use super::number::Decimal;
use std::time::Duration;

/// One or more decimals with a unit each: `h`, `m`, `s`, `ms`, `us` (or `µs`), `ns`. Never a bare number, and no
/// sign.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        sum = sum.checked_add(times(Decimal::parse(number)?, nanos(unit)?)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

fn nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 60 * 60 * 1_000_000_000,
        _ => return None,
    })
}

fn times(number: Decimal, nanos: u64) -> Option<Duration> {
    const SECOND: u128 = 1_000_000_000;
    let unit = u128::from(nanos);
    let total = u128::from(number.whole) * unit + u128::from(number.billionths) * unit / SECOND;
    let (secs, nanos) = (total / SECOND, total % SECOND);
    Some(Duration::new(secs.try_into().ok()?, nanos.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openai_sends() {
        for (text, nanos) in [
            ("1s", 1_000_000_000),
            ("6m0s", 360_000_000_000),
            ("17ms", 17_000_000),
            ("76ms", 76_000_000),
            ("7.66s", 7_660_000_000),
            ("1m30.951s", 90_951_000_000),
            ("1h0m0.5s", 3_600_500_000_000),
            ("0s", 0),
            ("12µs", 12_000),
            ("1.5h", 5_400_000_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn nothing_else() {
        for text in ["", "6", "6m0", "s", "-1s", "1 s", "1d", "1..5s", ".5s", "1s ", "999999999999999999999h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
