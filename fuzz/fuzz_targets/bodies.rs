//! Any body, under any status: no panic, no wait beyond the cap, nothing zero, no more than the readings' place.

#![no_main]

use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, SystemTime};
use tower_cooldown::{
    body_hints::read_body,
    signal::{Readings, Verdict},
};

const LEAP_YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fuzz_target!(|input: (u8, u16, u64, &[u8])| {
    let (status, max, now, body) = input;
    let statuses = [200, 400, 403, 429, 503, 529];
    let status = StatusCode::from_u16(statuses[usize::from(status) % statuses.len()]).expect("a status");
    let max = Duration::from_secs(max.into());
    let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now)).unwrap_or(SystemTime::UNIX_EPOCH);
    let Some(told) = read_body(status, &HeaderMap::new(), body, now, max) else { return };

    let hints = told.hints;
    assert!(told.verdict.is_some() || hints != Default::default());
    assert!(hints.retry_after.is_none_or(|wait| !wait.is_zero() && wait <= max));
    assert!(hints.exhausted_for.is_none_or(|time| time <= LEAP_YEAR));
    assert!(hints.exhausted_for.is_none() || told.verdict == Some(Verdict::Exhausted));
    assert!(hints.readings.as_slice().len() <= Readings::MAX);
    assert!(told.verdict != Some(Verdict::Refused) || hints.retry_after.is_none());
    // It is a function: the same answer says the same again.
    assert_eq!(read_body(status, &HeaderMap::new(), body, now, max), Some(told));
});
