//! gRPC: the status of a call that failed at once travels in the header fields, with an HTTP status of 200.
//!
//! The trailers of a call that had a body come too late for the gate, so they are not read.

use super::{
    Reading, Unit, Verdict,
    collect::Collect,
    number::LONGEST,
    policy_key::{Subject, key},
    protobuf,
};
use http::{HeaderMap, header::CONTENT_TYPE};
use std::time::Duration;

/// The fields of gRPC, not read yet.
#[derive(Debug, Default)]
pub(super) struct Grpc<'a> {
    status: Option<&'a str>,
    pushback: Option<&'a str>,
    details: Option<&'a str>,
}

/// What `grpc-retry-pushback-ms` says ([gRFC A6]).
///
/// [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushback {
    After(Duration),
    /// A negative number, or none at all: do not try again.
    Never,
}

impl Pushback {
    pub(super) fn wait(self) -> Option<Duration> {
        match self {
            Self::After(wait) => (!wait.is_zero()).then_some(wait),
            Self::Never => None,
        }
    }
}

/// What `grpc-status-details-bin` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) retry_delay: Option<Duration>,
    /// A quota for a day or more, or of nothing at all, is used up.
    pub(super) exhausted: bool,
}

impl<'a> Grpc<'a> {
    pub(super) fn take(&mut self, name: &str, value: &'a str) {
        match name {
            "grpc-status" => self.status = Some(value),
            "grpc-retry-pushback-ms" => self.pushback = Some(value),
            "grpc-status-details-bin" => self.details = Some(value),
            _ => {}
        }
    }

    /// Nothing of this counts unless the content type says that it is gRPC.
    pub(super) fn only_if_grpc(&mut self, headers: &HeaderMap) {
        let told = self.status.is_some() || self.pushback.is_some() || self.details.is_some();
        if told
            && !headers
                .get(CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
        {
            *self = Self::default();
        }
    }

    /// What a status means: 8 (`RESOURCE_EXHAUSTED`) is a quota, 14 (`UNAVAILABLE`) is an upstream with too much to
    /// do. Those that blame the caller are refused, the rest, with what is no [code] at all, failed.
    ///
    /// [code]: https://grpc.io/docs/guides/status-codes/
    pub(super) fn verdict(&self) -> Option<Verdict> {
        Some(match self.status?.parse::<u32>() {
            Ok(0) => Verdict::Accepted,
            // CANCELLED, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION,
            // OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED
            Ok(1 | 3 | 5 | 6 | 7 | 9 | 11 | 12 | 16) => Verdict::Refused,
            Ok(8) => Verdict::Throttled,
            Ok(14) => Verdict::Overloaded,
            // UNKNOWN, DEADLINE_EXCEEDED, ABORTED, INTERNAL, DATA_LOSS
            _ => Verdict::Failed,
        })
    }

    pub(super) fn pushback(&self) -> Option<Pushback> {
        let millis = self.pushback?.trim().parse::<i32>().ok().and_then(|millis| u64::try_from(millis).ok());
        Some(millis.map_or(Pushback::Never, |millis| Pushback::After(Duration::from_millis(millis))))
    }

    /// The `google.rpc.Status` in base64, decoded as far as it is of use. Where it is cut off or damaged, what came
    /// before the damage counts.
    pub(super) fn details(&self, collect: &mut Collect) -> Details {
        let mut details = Details::default();
        if let Some(status) = self.details.and_then(decode_base64) {
            for (_, any) in protobuf::messages(&status).filter(|(field, _)| *field == 3) {
                read_any(any, &mut details, collect);
            }
        }
        details
    }
}

/// `google.protobuf.Any { type_url = 1, value = 2 }`
fn read_any(any: &[u8], details: &mut Details, collect: &mut Collect) {
    let field = |wanted| protobuf::messages(any).find(|(field, _)| *field == wanted).map(|(_, bytes)| bytes);
    let (Some(kind), Some(value)) = (field(1), field(2)) else { return };
    match kind.rsplit(|byte| *byte == b'/').next() {
        // RetryInfo { retry_delay = 1 }
        Some(b"google.rpc.RetryInfo") => {
            let delay = protobuf::messages(value).find(|(field, _)| *field == 1);
            details.retry_delay =
                delay.and_then(|(_, delay)| duration(delay)).filter(|delay| !delay.is_zero());
        }
        // QuotaFailure { violations = 1 }
        Some(b"google.rpc.QuotaFailure") => {
            for (_, violation) in protobuf::messages(value).filter(|(field, _)| *field == 1) {
                read_violation(violation, details, collect);
            }
        }
        _ => {}
    }
}

/// `Duration { seconds = 1, nanos = 2 }`. What is negative says nothing.
fn duration(message: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for (field, value) in protobuf::integers(message) {
        match field {
            1 => seconds = value,
            2 => nanos = value,
            _ => {}
        }
    }
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos).min(LONGEST))
}

/// `Violation { quota_metric = 4, quota_id = 5, quota_value = 7 }`: which quota it was, and how much it is.
fn read_violation(violation: &[u8], details: &mut Details, collect: &mut Collect) {
    let text = |wanted| {
        let found = protobuf::messages(violation).find(|(field, _)| *field == wanted);
        found.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    };
    let (metric, id) = (text(4), text(5));
    let value = protobuf::integers(violation).find(|(field, _)| *field == 7).map(|(_, value)| value);
    let is_daily = [metric, id, text(2)].iter().any(|text| names_a_day(text));
    details.exhausted |= is_daily || value == Some(0);

    let mut reading = Reading::new(if metric.contains("token") { Unit::Tokens } else { Unit::Requests });
    reading.policy = key(&[id, ""]);
    reading.limit = value.and_then(|value| u64::try_from(value).ok());
    reading.window = Subject::in_quota_id(id);
    collect.push(reading);
}

/// In the words of Google's quotas (`GenerateRequestsPerDayPerProjectPerModel`) and of those who describe theirs.
fn names_a_day(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["perday", "per_day", "per day", "daily"].iter().any(|word| text.contains(word))
}

/// With or without padding, as gRPC asks of its readers. Longer than what servers send at most, 8 KiB, is not read.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    if text.len() > 8192 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut len) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        len += 6;
        if len >= 8 {
            len -= 8;
            bytes.push((bits >> len) as u8);
        }
    }
    (len < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_padding() {
        for (text, bytes) in
            [("", &b""[..]), ("aGk", b"hi"), ("aGk=", b"hi"), ("aGVsbG8=", b"hello"), ("/+8", b"\xff\xef")]
        {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(decode_base64("a,b"), None);
        assert_eq!(decode_base64(&"A".repeat(8192)), Some(vec![0; 6144]));
        assert_eq!(decode_base64(&"A".repeat(8196)), None);
    }
}
