//! What goes before what, and what is not believed.

use super::{
    BodyHints, Hints, Reading, Readings, Signal, Verdict,
    fields::Fields,
    grpc,
    retry_after::retry_after,
    time::{Clock, decimal, text},
};
use http::{
    HeaderMap, StatusCode,
    header::{AGE, DATE},
};
use std::time::{Duration, SystemTime};

/// Quotas for as long as this are not waited for.
const DAILY: Duration = Duration::from_secs(20 * 60 * 60);
/// The longest time that is believed of a quota that nobody waits for.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads one response. `max` is the longest wait that is worth waiting for.
pub(super) fn weigh(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&BodyHints>,
    max: Duration,
) -> Signal {
    let mut fields = Fields::collect(headers);
    let mut signal = Signal::new(by_status(status)).status(status);
    let grpc = fields.grpc_status.filter(|_| signal.verdict == Verdict::Accepted && grpc::is_grpc(headers));
    if let Some(status) = grpc {
        signal.verdict = grpc::verdict(status);
    }
    if let Some(verdict) = body.and_then(|body| body.verdict) {
        signal.verdict = verdict;
    }
    read_counters(&mut fields, status, headers, &mut signal.hints);
    signal.hints.concurrency = fields.concurrency;
    signal.hints.should_retry = fields.should_retry;
    if let Some(body) = body {
        merge(&mut signal.hints, &body.hints);
    }
    // A 403 is a limit only where something says so.
    let used_up = signal.hints.readings.into_iter().any(Reading::is_exhausted);
    let is_evident = fields.is_limit && used_up || fields.retry_after.is_some();
    if status == StatusCode::FORBIDDEN && signal.verdict == Verdict::Refused && is_evident {
        signal.verdict = Verdict::Throttled;
    }
    if signal.verdict.is_pushback() {
        wait(&fields, grpc.is_some(), headers, body, max, &mut signal);
    } else {
        // What a served call says about waiting is for other calls than this one.
        signal.hints.retry_after = None;
    }
    signal
}

fn by_status(status: StatusCode) -> Verdict {
    match status.as_u16() {
        429 => Verdict::Throttled,
        503 | 529 => Verdict::Overloaded,
        500.. => Verdict::Failed,
        400.. => Verdict::Refused,
        _ => Verdict::Accepted,
    }
}

/// Where the counters stand. Those of a redirection or of a cached answer are another answer's.
fn read_counters(fields: &mut Fields<'_>, status: StatusCode, headers: &HeaderMap, hints: &mut Hints) {
    let counters = fields.counters();
    if counters.is_empty() || status.is_redirection() || is_cached(headers) {
        return;
    }
    let clock = Clock::of(headers.get(DATE));
    for counter in counters {
        if let Some(reading) = counter.reading(|when| clock.until(when)) {
            hints.readings.push(reading);
        }
    }
    if fields.is_shared {
        // Others have used it up; what is told is our own.
        hints.readings = Readings::new();
    }
}

fn is_cached(headers: &HeaderMap) -> bool {
    headers.get(AGE).and_then(text).and_then(decimal).is_some_and(|age| !age.is_zero())
}

/// What the fields say goes before what the body says.
fn merge(hints: &mut Hints, body: &Hints) {
    hints.concurrency |= body.concurrency;
    hints.should_retry = hints.should_retry.or(body.should_retry);
    hints.exhausted_for = body.exhausted_for;
    if hints.readings.is_empty() {
        hints.readings = body.readings;
    }
}

/// For how long to wait: the first of these that says so.
fn wait(
    fields: &Fields<'_>,
    is_grpc: bool,
    headers: &HeaderMap,
    body: Option<&BodyHints>,
    max: Duration,
    signal: &mut Signal,
) {
    let told = |wait: &Duration| !wait.is_zero();
    let by_field = || {
        let value = fields.retry_after?;
        retry_after(value, headers.get(DATE), SystemTime::now()).filter(told)
    };
    let mut by_grpc = None;
    if let Some(pushback) = fields.grpc_pushback.filter(|_| is_grpc) {
        by_grpc = grpc::pushback(pushback).filter(told);
        if grpc::pushback(pushback).is_none() {
            signal.hints.should_retry = Some(false);
        }
    }
    let details = fields.grpc_details.filter(|_| is_grpc).and_then(grpc::details).unwrap_or_default();
    let used_up = || {
        let used_up = signal.hints.readings.into_iter().filter(|reading| reading.is_exhausted());
        used_up.filter_map(|reading| reading.reset).filter(told).max()
    };
    let wait = fields
        .retry_after_ms
        .or_else(by_field)
        .or(by_grpc)
        .or(details.retry_delay.filter(told))
        .or(body.and_then(|body| body.hints.retry_after))
        .or_else(used_up)
        .map(|wait| wait.min(YEAR))
        .filter(|_| !max.is_zero());
    let daily = signal
        .hints
        .readings
        .into_iter()
        .any(|reading| reading.is_exhausted() && reading.window.is_some_and(|window| window >= DAILY));
    let long = wait.filter(|wait| *wait > max);
    if signal.verdict == Verdict::Throttled && (daily || details.is_daily || long.is_some()) {
        signal.verdict = Verdict::Exhausted;
    }
    signal.hints.exhausted_for = match signal.verdict {
        Verdict::Exhausted => long.or(signal.hints.exhausted_for).or(wait.filter(|_| daily)),
        _ => long,
    };
    signal.hints.retry_after = wait.map(|wait| wait.min(max));
}
