//! Whatever the fields hold, nothing panics and nothing waits beyond the cap.

use super::secs;
use http::{HeaderName, HeaderValue, Response};
use std::{convert::Infallible, time::Duration};
use tower_cooldown::signal::{Classify, DEFAULT_MAX_RETRY_AFTER, HttpClassifier};

const NAMES: [&str; 40] = [
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-amz-retry-after",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit-observed",
    "ratelimit-reason",
    "ratelimit-",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-bucket",
    "x-ratelimit-scope",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-remaining-minute",
    "x-ratelimit-requests-reset",
    "x-ratelimit-interval-seconds",
    "x-rate-limit-reset",
    "x-ratelimit-",
    "x-",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-x-y",
    "x-hubspot-ratelimit-daily-remaining",
    "x-hubspot-ratelimit-interval-milliseconds",
    "x-shopify-shop-api-call-limit",
    "grpc-status",
    "grpc-retry-pushback-ms",
    "grpc-status-details-bin",
    "content-type",
    "date",
    "age",
];

const PIECES: [&[u8]; 30] = [
    b"0",
    b"1",
    b"9",
    b"18446744073709551615",
    b"1700000000",
    b"1700000000000000",
    b".",
    b"-",
    b"+",
    b";",
    b",",
    b"=",
    b"\"",
    b":",
    b"q",
    b"r=",
    b"t=",
    b"w=",
    b"pk=:",
    b"s",
    b"m",
    b"ms",
    b"T",
    b"Z",
    b" ",
    b"\xff",
    b"/",
    b"Wed, 21 Oct 2015 07:28:00 GMT",
    b"2026-02-25T20:02:32Z",
    b"application/grpc",
];

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn whatever_the_fields_hold() {
    for seed in 0..30_000 {
        let mut random = Random(seed);
        let mut response = Response::new(());
        *response.status_mut() = [200, 302, 403, 429, 500, 503][random.below(6)].try_into().unwrap();
        for _ in 0..random.below(8) {
            let name = HeaderName::from_static(NAMES[random.below(NAMES.len())]);
            let value: Vec<u8> =
                (0..random.below(7)).flat_map(|_| PIECES[random.below(PIECES.len())]).copied().collect();
            response.headers_mut().append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let signal = HttpClassifier::new().classify(Ok::<_, &Infallible>(&response));
        let wait = signal.hints.retry_after;
        assert!(wait.is_none_or(|wait| wait <= DEFAULT_MAX_RETRY_AFTER && !wait.is_zero()), "seed {seed}");
        let year = secs(366 * 86_400);
        assert!(signal.hints.exhausted_for.is_none_or(|time| time <= year), "seed {seed}");
        for reading in &signal.hints.readings {
            assert!(reading.reset.is_none_or(|reset| reset <= year), "seed {seed}");
            assert!(reading.limit != Some(0), "seed {seed}");
        }
    }
}

#[test]
fn long_fields_take_no_long_time() {
    let start = std::time::Instant::now();
    let long = "\"a\";r=1,".repeat(8000) + "\"a\";r=1";
    let response = Response::builder()
        .status(429)
        .header("ratelimit", &long)
        .header("ratelimit-policy", &long)
        .header("x-ratelimit-reset", "9".repeat(60_000))
        .body(())
        .unwrap();
    let signal = HttpClassifier::new().classify(Ok::<_, &Infallible>(&response));
    assert!(!signal.hints.readings.is_empty());
    assert!(start.elapsed() < Duration::from_secs(1));
}
