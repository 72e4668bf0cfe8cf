use super::{Decision, Reading, Unit};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

/// How an upstream tells of its limits.
///
/// All but [`None`](Self::None) and [`Gemini`](Self::Gemini) send header fields; those of a vendor stand in every answer,
/// `Retry-After` in refused ones only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HintStyle {
    /// Not at all.
    #[default]
    None,
    /// `Retry-After` to the millisecond: `0.517`.
    RetryAfter,
    /// `Retry-After` in whole seconds, rounded up, as the standard has it.
    RetryAfterSeconds,
    /// `x-ratelimit-remaining-requests` and so on, for requests and tokens apart, with the time until all is left as a Go
    /// duration.
    OpenAi,
    /// `anthropic-ratelimit-requests-remaining` and so on, with the time at which all is left, in whole seconds.
    Anthropic,
    /// `x-ratelimit-remaining` and so on, with the end of the window as seconds since 1970.
    GitHub,
    /// `RateLimit` and `RateLimit-Policy` as structured fields
    /// ([draft-ietf-httpapi-ratelimit-headers](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/)).
    RateLimit,
    /// `RateLimit-Limit`, `-Remaining` and `-Reset`, as in drafts 03 to 06 of the same.
    RateLimitHeaders,
    /// `X-RateLimit-Remaining`, `-Reset-After` and so on, with fractions of seconds.
    Discord,
    /// `X-Shopify-Shop-Api-Call-Limit: 32/40`.
    Shopify,
    /// A `RetryInfo` in the body of a refused answer, and nothing in its head.
    Gemini,
}

impl HintStyle {
    /// Whether the limits have to be read for an answer of this style.
    pub(super) const fn needs_readings(self) -> bool {
        !matches!(self, Self::None | Self::RetryAfter | Self::RetryAfterSeconds | Self::Gemini)
    }

    /// The body of a refused answer.
    pub(super) fn body(self, decision: &Decision) -> String {
        let wait = decision.retry_after.unwrap_or_default();
        match self {
            Self::Gemini => format!(
                r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{}.{:09}s"}}]}}}}"#,
                wait.as_secs(),
                wait.subsec_nanos()
            ),
            Self::Discord => format!(r#"{{"retry_after":{:.3},"global":false}}"#, wait.as_secs_f64()),
            _ => String::new(),
        }
    }

    /// Adds the header fields of an answer that is made at `now`.
    pub(super) fn write(
        self,
        headers: &mut HeaderMap,
        decision: &Decision,
        readings: &[Reading],
        now: SystemTime,
    ) {
        let mut fields = Fields { headers };
        match self {
            Self::None | Self::Gemini => return,
            Self::RetryAfter | Self::RetryAfterSeconds => {}
            Self::OpenAi => readings.iter().for_each(|reading| {
                let unit = unit(reading.unit);
                fields.set(&format!("x-ratelimit-limit-{unit}"), reading.limit);
                fields.set(&format!("x-ratelimit-remaining-{unit}"), reading.remaining);
                if let Some(full) = reading.full_in {
                    fields.set(&format!("x-ratelimit-reset-{unit}"), go_duration(full));
                }
            }),
            Self::Anthropic => {
                fields.set("date", httpdate::fmt_http_date(now));
                for reading in readings {
                    let unit = unit(reading.unit);
                    fields.set(&format!("anthropic-ratelimit-{unit}-limit"), reading.limit);
                    fields.set(&format!("anthropic-ratelimit-{unit}-remaining"), reading.remaining);
                    if let Some(full) = reading.full_in {
                        let at = rfc3339(seconds_up(since_1970(now) + full));
                        fields.set(&format!("anthropic-ratelimit-{unit}-reset"), at);
                    }
                }
            }
            Self::GitHub => {
                fields.set("date", httpdate::fmt_http_date(now));
                if let Some(reading) = readings.first() {
                    fields.set("x-ratelimit-limit", reading.limit);
                    fields.set("x-ratelimit-remaining", reading.remaining);
                    fields.set("x-ratelimit-used", reading.limit - reading.remaining);
                    fields.set("x-ratelimit-resource", "core");
                    if let Some(full) = reading.full_in {
                        fields.set("x-ratelimit-reset", seconds_up(since_1970(now) + full));
                    }
                }
            }
            Self::RateLimit => {
                let (mut policies, mut limits) = (String::new(), String::new());
                for (index, reading) in readings.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    let name =
                        reading.name.map_or_else(|| default_name(index, readings.len()), str::to_owned);
                    let _ = write!(policies, "{comma}\"{name}\";q={}", reading.limit);
                    if let Some(window) = reading.window {
                        let _ = write!(policies, ";w={}", seconds_up(window));
                    }
                    let _ = write!(limits, "{comma}\"{name}\";r={}", reading.remaining);
                    if let Some(more) = reading.more_in {
                        let _ = write!(limits, ";t={}", seconds_up(more));
                    }
                }
                fields.set("ratelimit-policy", policies);
                fields.set("ratelimit", limits);
            }
            Self::RateLimitHeaders => {
                if let Some(reading) = readings.first() {
                    fields.set("ratelimit-limit", reading.limit);
                    fields.set("ratelimit-remaining", reading.remaining);
                    if let Some(full) = reading.full_in {
                        fields.set("ratelimit-reset", seconds_up(full));
                    }
                }
            }
            Self::Discord => {
                if let Some(reading) = readings.first() {
                    fields.set("x-ratelimit-limit", reading.limit);
                    fields.set("x-ratelimit-remaining", reading.remaining);
                    fields.set("x-ratelimit-bucket", "abcd1234");
                    if let Some(full) = reading.full_in {
                        fields.set("x-ratelimit-reset-after", format!("{:.3}", full.as_secs_f64()));
                        let at = since_1970(now) + full;
                        fields.set("x-ratelimit-reset", format!("{:.3}", at.as_secs_f64()));
                    }
                }
            }
            Self::Shopify => {
                if let Some(reading) = readings.first() {
                    let used = reading.limit - reading.remaining;
                    fields.set("x-shopify-shop-api-call-limit", format!("{used}/{}", reading.limit));
                }
            }
        }
        let Some(wait) = decision.retry_after else { return };
        match self {
            Self::RetryAfter | Self::Discord => fields.set("retry-after", format!("{:.3}", up(wait, 1e-3))),
            Self::Shopify => fields.set("retry-after", format!("{:.1}", up(wait, 0.1))),
            _ => fields.set("retry-after", seconds_up(wait)),
        }
    }
}

struct Fields<'a> {
    headers: &'a mut HeaderMap,
}

impl Fields<'_> {
    fn set(&mut self, name: &str, value: impl ToString) {
        let name = HeaderName::try_from(name).expect("a name of ASCII letters");
        self.headers.insert(name, HeaderValue::try_from(value.to_string()).expect("printable ASCII"));
    }
}

const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
    }
}

fn default_name(index: usize, of: usize) -> String {
    if of == 1 { "default".to_owned() } else { format!("default-{}", index + 1) }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Whole seconds, rounded up.
fn seconds_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Seconds, rounded up to a multiple of `step`.
fn up(time: Duration, step: f64) -> f64 {
    (time.as_secs_f64() / step).ceil() * step
}

/// As Go prints a duration: `1m30.951s`, `17ms`.
fn go_duration(time: Duration) -> String {
    let fraction = |whole: u64, nanos: u32, digits: usize| {
        let text = format!("{whole}.{nanos:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    match seconds {
        0 if nanos == 0 => "0s".to_owned(),
        0 => format!("{}ms", fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        _ => {
            let last = fraction(seconds % 60, nanos, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{last}s"),
                (0, minutes) => format!("{minutes}m{last}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
            }
        }
    }
}

/// Seconds since 1970 as `2026-01-01T00:00:00Z`. The date is Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let print = |nanos| go_duration(Duration::from_nanos(nanos));
        assert_eq!(print(0), "0s");
        assert_eq!(print(17_000_000), "17ms");
        assert_eq!(print(1_500_000), "1.5ms");
        assert_eq!(print(7_660_000_000), "7.66s");
        assert_eq!(print(90_951_000_000), "1m30.951s");
        assert_eq!(print(360_000_000_000), "6m0s");
        assert_eq!(print(3_600_000_000_000), "1h0m0s");
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_772_049_752), "2026-02-25T20:02:32Z");
    }
}
