//! Numbers as services write them.

use std::time::Duration;

/// The longest time that is kept, a year: any longer says the same, and adding it to a clock cannot overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The largest count that is kept, which is the largest integer of a structured field.
pub(super) const LARGEST: u64 = 999_999_999_999_999;

/// `digits [ "." digits ]`, and nothing else: no sign, no exponent, no `inf`. What is beyond a billionth is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) whole: u64,
    pub(super) billionths: u32,
}

impl Decimal {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let mut billionths = 0;
        let mut place = 100_000_000;
        for digit in digits(fraction)? {
            billionths += u32::from(digit - b'0') * place;
            place /= 10;
        }
        let _ = digits(whole)?;
        Some(Self { whole: whole.parse().ok()?, billionths })
    }

    pub(super) fn seconds(self) -> Duration {
        Duration::new(self.whole, self.billionths)
    }

    pub(super) fn millis(self) -> Duration {
        let nanos = self.billionths / 1000;
        Duration::from_millis(self.whole).saturating_add(Duration::from_nanos(nanos.into()))
    }
}

/// How many, where a server says it in plain digits. A fraction of one is not one. A negative number stands for
/// "unknown", and so does what is too large to be meant.
pub(super) fn count(text: &str) -> Option<u64> {
    Decimal::parse(text.trim()).map(|number| number.whole).filter(|count| *count <= LARGEST)
}

/// A span of time that a limit can be for.
pub(super) fn window(span: Duration) -> Option<Duration> {
    (!span.is_zero()).then_some(span.min(LONGEST))
}

/// The bytes of a text that is made of digits.
fn digits(text: &str) -> Option<impl Iterator<Item = u8> + '_> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_whole_and_not_negative() {
        for (text, value) in [("0", Some(0)), ("5000", Some(5000)), (" 98.0 ", Some(98)), ("0.9", Some(0))] {
            assert_eq!(count(text), value, "{text}");
        }
        for text in ["", "-1", "+1", "1e3", "NaN", "inf", "0x10", "1.", ".1", "1000000000000000", "1,000"] {
            assert_eq!(count(text), None, "{text}");
        }
    }

    #[test]
    fn a_decimal_is_exact_to_the_billionth() {
        let parse = |text| Decimal::parse(text).unwrap();
        assert_eq!(parse("64.57").seconds(), Duration::from_millis(64_570));
        assert_eq!(parse("1.0000000019").seconds(), Duration::new(1, 1));
        assert_eq!(parse("1.5").millis(), Duration::from_micros(1500));
        assert_eq!(parse("18446744073709551615").millis(), Duration::from_millis(u64::MAX));
    }
}
