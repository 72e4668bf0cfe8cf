//! gRPC's fields, both ways: any `grpc-timeout` is the time that the specification says, or nothing; and whatever wait
//! `GrpcStatus` tells its callers is read back as no less.

#![no_main]

use http::{HeaderValue, Request, Response};
use libfuzzer_sys::fuzz_target;
use std::{convert::Infallible, time::Duration};
use tower_cooldown::{
    Rejected,
    cooldown::{GrpcStatus, GrpcTimeout, Reject, TimeLeft},
    signal::{Classify, HttpClassifier, Verdict},
};

/// `Timeout → "grpc-timeout" TimeoutValue TimeoutUnit`, with a value of one to eight digits.
fn expected(value: &[u8]) -> Option<u128> {
    let (unit, digits) = value.split_last()?;
    let nanos: u128 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1000,
        b'n' => 1,
        _ => return None,
    };
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u128::from(digit - b'0')) * nanos)
}

fuzz_target!(|input: (u64, u32, &[u8])| {
    let (seconds, nanos, value) = input;
    if let Ok(value) = HeaderValue::from_bytes(value) {
        let mut request = Request::new(());
        assert_eq!(GrpcTimeout.time_left(&request), None);
        request.headers_mut().insert("grpc-timeout", value.clone());
        let time = GrpcTimeout.time_left(&request).map(|time| time.as_nanos());
        assert_eq!(time, expected(value.as_bytes()), "{value:?}");
    }

    let wait = Duration::new(seconds, nanos % 1_000_000_000);
    let answer: Result<Response<()>, Infallible> = GrpcStatus.reject(Rejected::new(wait));
    let Ok(mut answer) = answer;
    // As a client sees it, from the fields alone.
    answer.extensions_mut().clear();
    let signal = HttpClassifier::new().max_retry_after(Duration::MAX).classify(Ok::<_, &Infallible>(&answer));
    assert_eq!(signal.verdict, Verdict::Throttled, "{answer:?}");
    let longest = Duration::from_millis(i32::MAX as u64);
    let told = signal.hints.retry_after.unwrap_or_default();
    assert!(
        told >= wait.min(longest) && told < wait.saturating_add(Duration::from_millis(1)),
        "{told:?} of {wait:?}"
    );
    assert_eq!(told.is_zero(), wait.is_zero());
});
