//! Points in time, as services write them, and how far away they are.

use super::{
    go_duration,
    number::{Decimal, LONGEST},
    rfc3339,
};
use http::{HeaderMap, HeaderValue, header::DATE};
use std::{
    cell::OnceCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The time at which a response was sent, on the clock of the server that sent it: its `Date`, or else our own
/// clock. Looked at only where a point in time has to be read.
///
/// `Date` is cut off to the second, so that a wait until a point in time comes out up to a second too long, never
/// too short.
#[derive(Debug)]
pub(super) struct Clock<'a> {
    date: Option<&'a HeaderValue>,
    sent: OnceCell<Duration>,
}

impl<'a> Clock<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        Self { date: headers.get(DATE), sent: OnceCell::new() }
    }

    pub(super) fn new(date: Option<&'a HeaderValue>, now: SystemTime) -> Self {
        let sent = date.and_then(parse_date).unwrap_or(now);
        Self { date, sent: OnceCell::from(since_epoch(sent)) }
    }

    /// How long it is until that many seconds after 1970 began. A time that is past is now.
    fn until(&self, epoch: Duration) -> Duration {
        let sent = self
            .sent
            .get_or_init(|| since_epoch(self.date.and_then(parse_date).unwrap_or_else(SystemTime::now)));
        epoch.saturating_sub(*sent)
    }

    /// How long it is until a time in any form: `50`, `64.57` (seconds from now), `1470173023.123`,
    /// `1470173023123`, `1470173023123456` (seconds, thousandths and millionths since 1970), `6m0s` (as Go writes
    /// it), `2026-02-25T20:02:32Z` (RFC 3339, with or without seconds), `Wed, 21 Oct 2015 07:28:00 GMT`.
    ///
    /// A number is told by its size: nobody waits for thirty years, and nothing that is written today was to
    /// happen in 1973.
    pub(super) fn wait(&self, text: &str) -> Option<Duration> {
        let text = text.trim();
        let wait = if let Some(number) = Decimal::parse(text) {
            self.number(number)
        } else {
            go_duration::parse(text).or_else(|| self.date(text))?
        };
        Some(wait.min(LONGEST))
    }

    /// The same for the forms that `Retry-After` has: a number, or a date of HTTP.
    pub(super) fn retry_after(&self, text: &str) -> Option<Duration> {
        let text = text.trim();
        let wait = match Decimal::parse(text) {
            Some(number) => self.number(number),
            None => self.until(since_epoch(httpdate::parse_http_date(text).ok()?)),
        };
        Some(wait.min(LONGEST))
    }

    fn number(&self, number: Decimal) -> Duration {
        match number.whole {
            100_000_000_000_000.. => self.until(Duration::from_micros(number.whole)),
            100_000_000_000.. => self.until(number.millis()),
            1_000_000_000.. => self.until(number.seconds()),
            _ => number.seconds(),
        }
    }

    fn date(&self, text: &str) -> Option<Duration> {
        let epoch = rfc3339::parse(text).or_else(|| httpdate::parse_http_date(text).ok().map(since_epoch))?;
        Some(self.until(epoch))
    }
}

fn parse_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2016-08-02T21:23:43Z
    const NOW: u64 = 1_470_173_023;

    fn wait(text: &str) -> Option<Duration> {
        Clock::new(None, UNIX_EPOCH + Duration::from_secs(NOW)).wait(text)
    }

    #[test]
    fn every_form_of_a_reset_says_the_same() {
        for text in [
            "30",
            "30.0",
            "30s",
            "0m30s",
            "30000ms",
            "1470173053",
            "1470173053.0",
            "1470173053000",
            "1470173053000000",
            "2016-08-02T21:24:13Z",
            "2016-08-02T23:24:13.000+02:00",
            "Tue, 02 Aug 2016 21:24:13 GMT",
            "Tuesday, 02-Aug-16 21:24:13 GMT",
            "Tue Aug  2 21:24:13 2016",
            " 30 ",
        ] {
            assert_eq!(wait(text), Some(Duration::from_secs(30)), "{text}");
        }
        assert_eq!(wait("1470173053.123"), Some(Duration::from_millis(30_123)));
        assert_eq!(wait("2016-08-02T21:24Z"), Some(Duration::from_secs(17)));
    }

    #[test]
    fn what_is_past_is_now() {
        for text in ["0", "1470173022", "1000000000", "100000000000", "100000000000000", "1999-12-31T23:59Z"]
        {
            assert_eq!(wait(text), Some(Duration::ZERO), "{text}");
        }
    }

    #[test]
    fn what_is_far_away_has_an_end() {
        for text in ["18446744073709551615", "9999-12-31T23:59:59Z", "999999999", "9999999h"] {
            assert_eq!(wait(text), Some(LONGEST), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in ["", "-1", "soon", "5 s", "6m0", "1e9", "2016-08-02", "99999999999999999999", "NaN"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }
}
