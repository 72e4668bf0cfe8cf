use super::clock::Clock;
use http::HeaderValue;
use std::time::{Duration, SystemTime};

/// The longest wait that a server can ask for, unless the classifier says otherwise: ten minutes.
pub const DEFAULT_MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Reads a `Retry-After` field ([RFC 9110, section 10.2.3][rfc]): seconds, or an HTTP-date in any of its three
/// forms. Fractions of a second, which some servers send, are understood, and so are seconds since 1970.
///
/// `date` is the response's own `Date` field. A date in `Retry-After` is taken relative to it, so that a
/// difference between the two clocks does not matter; without it, relative to `now`.
///
/// The result is never zero and never above `max`. `None` stands for whatever says nothing: a zero, a date in
/// the past, a negative number, a number that does not fit, an empty value, anything else that is not one of
/// the forms.
///
/// [rfc]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
pub fn parse_retry_after(
    value: &HeaderValue,
    date: Option<&HeaderValue>,
    now: SystemTime,
    max: Duration,
) -> Option<Duration> {
    let wait = Clock::new(date, now).retry_after(value.to_str().ok()?)?.min(max);
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = DEFAULT_MAX_RETRY_AFTER;
    /// Wed, 21 Oct 2015 07:28:00 GMT
    const NOW: u64 = 1_445_412_480;

    fn parse(value: &[u8]) -> Option<Duration> {
        parse_with_date(value, None)
    }

    fn parse_with_date(value: &[u8], date: Option<&str>) -> Option<Duration> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let date = date.map(|date| HeaderValue::from_str(date).unwrap());
        parse_retry_after(&HeaderValue::from_bytes(value).unwrap(), date.as_ref(), now, MAX)
    }

    #[test]
    fn seconds() {
        assert_eq!(parse(b"120"), Some(Duration::from_secs(120)));
        assert_eq!(parse(b" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(parse(b"0.5"), Some(Duration::from_millis(500)));
        assert_eq!(parse(b"2.0"), Some(Duration::from_secs(2)));
        assert_eq!(parse(b"1.0000000019"), Some(Duration::new(1, 1)));
    }

    #[test]
    fn dates_in_all_three_forms() {
        for date in
            ["Wed, 21 Oct 2015 07:28:30 GMT", "Wednesday, 21-Oct-15 07:28:30 GMT", "Wed Oct 21 07:28:30 2015"]
        {
            assert_eq!(parse(date.as_bytes()), Some(Duration::from_secs(30)), "{date}");
        }
    }

    #[test]
    fn a_date_is_read_on_the_servers_clock() {
        // The server's clock is an hour ahead of ours; the wait is still five seconds.
        let answer = parse_with_date(b"Wed, 21 Oct 2015 08:28:05 GMT", Some("Wed, 21 Oct 2015 08:28:00 GMT"));
        assert_eq!(answer, Some(Duration::from_secs(5)));
        // A Date that makes no sense is passed over.
        let answer = parse_with_date(b"Wed, 21 Oct 2015 07:28:05 GMT", Some("yesterday"));
        assert_eq!(answer, Some(Duration::from_secs(5)));
    }

    #[test]
    fn capped() {
        assert_eq!(parse(b"601"), Some(MAX));
        assert_eq!(parse(b"18446744073709551615"), Some(MAX));
        assert_eq!(parse(b"Wed, 21 Oct 2099 07:28:00 GMT"), Some(MAX));
    }

    #[test]
    fn nonsense_says_nothing() {
        let nonsense: [&[u8]; 18] = [
            b"",
            b" ",
            b"-5",
            b"+5",
            b"abc",
            b"5s",
            b"1e3",
            b"inf",
            b"NaN",
            b".5",
            b"5.",
            b"5.5.5",
            b"0",
            b"0.0000000001",
            b"123456789012345678901234567890",
            b"\xff\xfe",
            b"Wed, 21 Oct 2015 07:27:00 GMT", // past
            b"Wed, 99 Oct 2015 07:27:00 GMT",
        ];
        for value in nonsense {
            assert_eq!(parse(value), None, "{:?}", String::from_utf8_lossy(value));
        }
    }
}
