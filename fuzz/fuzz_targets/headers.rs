//! Whatever the fields of a response say: no panic, no wait of zero or beyond the cap, and everything has a bound.
//!
//! The input is the status, and then a line per field: the number of its name, and its value.

#![no_main]

use http::{HeaderName, HeaderValue, Response};
use libfuzzer_sys::fuzz_target;
use std::{convert::Infallible, time::Duration};
use tower_cooldown::signal::{Classify, DEFAULT_MAX_RETRY_AFTER, HttpClassifier, Readings};

const NAMES: [&str; 67] = [
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-amz-retry-after",
    "x-amzn-errortype",
    "x-should-retry",
    "x-envoy-ratelimited",
    "stripe-should-retry",
    "stripe-rate-limited-reason",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit-resettime",
    "ratelimit-observed",
    "ratelimit-name",
    "ratelimit-reason",
    "ratelimit-",
    "x-ratelimit",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-used",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-retry-after",
    "x-ratelimit-next",
    "x-ratelimit-bucket",
    "x-ratelimit-resource",
    "x-ratelimit-scope",
    "x-ratelimit-interval-seconds",
    "x-ratelimit-interval-milliseconds",
    "x-ratelimit-fillrate",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-minute",
    "x-ratelimit-remaining-day",
    "x-ratelimit-requests-reset",
    "x-ratelimit-complexity-remaining",
    "x-rate-limit-remaining",
    "x-rate-limit-reset",
    "x-user-limit-24hour-remaining",
    "x-app-limit-24hour-reset",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-",
    "x-hubspot-ratelimit-daily",
    "x-hubspot-ratelimit-daily-remaining",
    "x-hubspot-ratelimit-interval-milliseconds",
    "x-shopify-shop-api-call-limit",
    "x-app-rate-limit",
    "x-app-rate-limit-count",
    "x-method-rate-limit-count",
    "x-method-rate-limit",
    "opik-user-remaining-limit",
    "opik-user-remaining-limit-ttl-millis",
    "grpc-status",
    "grpc-retry-pushback-ms",
    "grpc-status-details-bin",
    "content-type",
    "date",
    "age",
];

const STATUSES: [u16; 8] = [200, 302, 400, 403, 429, 500, 503, 529];
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fuzz_target!(|data: &[u8]| {
    let Some((status, fields)) = data.split_first() else { return };
    let mut response = Response::new(());
    *response.status_mut() = STATUSES[usize::from(*status) % STATUSES.len()].try_into().unwrap();
    for line in fields.split(|byte| *byte == b'\n').take(32) {
        let Some((name, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        let name = HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]);
        response.headers_mut().append(name, value);
    }

    let signal = HttpClassifier::new().classify(Ok::<_, &Infallible>(&response));
    let hints = signal.hints;
    assert!(hints.retry_after.is_none_or(|wait| !wait.is_zero() && wait <= DEFAULT_MAX_RETRY_AFTER));
    assert!(hints.retry_after.is_none() || signal.verdict.is_pushback());
    assert!(hints.exhausted_for.is_none_or(|time| time <= YEAR));
    assert!(hints.readings.as_slice().len() <= Readings::MAX);
    for reading in &hints.readings {
        assert!(reading.limit.is_some() || reading.remaining.is_some());
        assert!(reading.limit != Some(0));
        assert!(reading.reset.is_none_or(|reset| reset <= YEAR));
        assert!(reading.window.is_none_or(|window| !window.is_zero() && window <= YEAR));
    }
});
