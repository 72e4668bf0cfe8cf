//! What a gRPC answer says: the status, the push-back, and the details as far as they are about quotas.
//!
//! Only answers that consist of trailers alone are seen, because the others end after their body; a server that refuses
//! a call answers so.

use super::{Verdict, time::text};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use std::time::Duration;

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The verdict of a status code. Those that blame the caller are refused, those that blame the server failed.
pub(super) fn verdict(status: &HeaderValue) -> Verdict {
    match text(status).and_then(|status| status.parse::<u32>().ok()) {
        Some(0) => Verdict::Accepted,
        Some(8) => Verdict::Throttled,   // RESOURCE_EXHAUSTED
        Some(14) => Verdict::Overloaded, // UNAVAILABLE
        // CANCELLED, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION,
        // OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED
        Some(1 | 3 | 5 | 6 | 7 | 9 | 11 | 12 | 16) => Verdict::Refused,
        // UNKNOWN, DEADLINE_EXCEEDED, ABORTED, INTERNAL, DATA_LOSS, and what is no code at all
        _ => Verdict::Failed,
    }
}

/// `grpc-retry-pushback-ms`: a wait, or, if it is negative or no number, not to retry
/// ([A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)).
pub(super) fn pushback(value: &HeaderValue) -> Option<Duration> {
    let ms = text(value)?.parse::<i32>().ok()?;
    Some(Duration::from_millis(u64::try_from(ms).ok()?))
}

/// What `google.rpc.Status` in `grpc-status-details-bin` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) retry_delay: Option<Duration>,
    /// A quota for a day or longer is spent.
    pub(super) is_daily: bool,
}

/// The longest details that are looked at, in base64.
const LONGEST: usize = 8192;

pub(super) fn details(value: &HeaderValue) -> Option<Details> {
    let encoded = value.as_bytes();
    if encoded.len() > LONGEST {
        return None;
    }
    let bytes = base64(encoded)?;
    let mut details = Details::default();
    for field in Message(&bytes) {
        if let (3, Value::Bytes(any)) = field? {
            read_any(any, &mut details)?;
        }
    }
    Some(details)
}

fn read_any(any: &[u8], details: &mut Details) -> Option<()> {
    let (mut name, mut value) = (&[][..], &[][..]);
    for field in Message(any) {
        match field? {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    if name.ends_with(b"google.rpc.RetryInfo") {
        for field in Message(value) {
            if let (1, Value::Bytes(duration)) = field? {
                details.retry_delay = read_duration(duration);
            }
        }
    } else if name.ends_with(b"google.rpc.QuotaFailure") {
        for violation in Message(value) {
            if let (1, Value::Bytes(violation)) = violation? {
                details.is_daily |= is_daily(violation)?;
            }
        }
    }
    Some(())
}

fn read_duration(bytes: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Message(bytes) {
        match field? {
            (1, Value::Number(number)) => seconds = number,
            (2, Value::Number(number)) => nanos = number,
            _ => {}
        }
    }
    // Negative numbers are large ones here.
    let seconds = u64::try_from(i64::from_ne_bytes(seconds.to_ne_bytes())).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?))
}

/// Any text of a violation that names a day.
fn is_daily(violation: &[u8]) -> Option<bool> {
    let mut daily = false;
    for field in Message(violation) {
        if let (_, Value::Bytes(bytes)) = field? {
            let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
            daily |= ["perday", "per_day", "per day", "daily"].iter().any(|word| text.contains(word));
        }
    }
    Some(daily)
}

/// The fields of a protobuf message: number and value, or nothing where it is malformed.
struct Message<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Iterator for Message<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Message<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in 0..10 {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(first & 0x7f).checked_shl(shift * 7)?;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Base64 with or without padding, as gRPC allows both.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_padding() {
        assert_eq!(base64(b"aGVsbG8=").unwrap(), b"hello");
        assert_eq!(base64(b"aGVsbG8").unwrap(), b"hello");
        assert_eq!(base64(b"").unwrap(), b"");
        assert_eq!(base64(b"a"), None);
        assert_eq!(base64(b"a b="), None);
    }

    #[test]
    fn a_pushback_is_a_wait_or_says_not_to_retry() {
        let read = |text: &'static str| pushback(&HeaderValue::from_static(text));
        assert_eq!(read("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for no in ["-1", "", "abc", "99999999999"] {
            assert_eq!(read(no), None, "{no}");
        }
    }

    #[test]
    fn malformed_details_say_nothing() {
        for text in ["", "!!", "CA", "Gv////8P", "AAAA"] {
            let read = details(&HeaderValue::from_static(text));
            assert!(read.is_none_or(|details| details == Details::default()), "{text}");
        }
        let long = "A".repeat(LONGEST + 1);
        assert_eq!(details(&HeaderValue::try_from(long).unwrap()), None);
    }
}
