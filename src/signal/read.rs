//! From the fields and the body to a signal: what goes before what, and what is believed.

use super::{
    BodyHints, Reading, Signal, Verdict, aws, clock::Clock, collect::Collect, fields::Fields, grpc::Pushback,
    number::LONGEST, policy_key::DAY,
};
use http::{HeaderMap, StatusCode};
use std::time::Duration;

/// One response, as [`HttpClassifier`](super::HttpClassifier) sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Option<&'a BodyHints>,
    /// The verdict, where a rule of the user's has found it already.
    pub(super) ruled: Option<Verdict>,
    /// The longest wait that is believed.
    pub(super) cap: Duration,
    /// It was outside the rollout.
    pub(super) bypassed: bool,
}

impl Answer<'_> {
    #[inline]
    pub(super) fn read(&self) -> Signal {
        let by_status = self.ruled.unwrap_or_else(|| verdict_of(self.status));
        // What a redirect says of quotas is said of another resource.
        let is_redirect = by_status == Verdict::Accepted && self.status.is_redirection();
        let are_fields = !is_redirect && Fields::are_in(self.headers);
        if are_fields || (!is_redirect && self.body.is_some()) {
            return self.read_told(by_status, are_fields);
        }
        self.signal(by_status)
    }

    #[inline]
    fn signal(&self, verdict: Verdict) -> Signal {
        Signal { status: Some(self.status), bypassed: self.bypassed, ..Signal::new(verdict) }
    }

    /// The server tells something.
    #[cold]
    #[inline(never)]
    fn read_told(&self, by_status: Verdict, are_fields: bool) -> Signal {
        let (mut signal, mut fields) = (self.signal(by_status), Fields::default());
        if are_fields {
            fields.collect(self.headers);
        }
        self.read_fields(&fields, &mut signal);
        signal
    }

    fn read_fields(&self, fields: &Fields<'_>, signal: &mut Signal) {
        let clock = Clock::of(self.headers);
        let body = self.body.map(|body| body.hints).unwrap_or_default();
        let mut collect = Collect::default();
        fields.read_counters(self.headers, &clock, &mut collect);
        let details = fields.grpc.details(&mut collect);
        body.readings.into_iter().for_each(|reading| collect.push(*reading));

        let told = fields.told_wait(&clock);
        let pushback = fields.grpc.pushback();
        let hints = &mut signal.hints;
        hints.readings = collect.readings;
        hints.concurrency = collect.concurrency || fields.is_for_concurrency() || body.concurrency;
        let never = (pushback == Some(Pushback::Never)).then_some(false);
        hints.should_retry = fields.should_retry.or(never).or(body.should_retry);
        signal.verdict = self.verdict(signal, fields, told);
        if !signal.verdict.is_pushback() {
            // What a served call says about waiting is for other calls than this one.
            return;
        }
        signal.hints.exhausted_for = body.exhausted_for;
        if details.exhausted && signal.verdict == Verdict::Throttled {
            signal.verdict = Verdict::Exhausted;
        }
        let by_grpc = pushback.and_then(Pushback::wait).or(details.retry_delay);
        self.advise(told.or(by_grpc).or(body.retry_after), signal);
    }

    /// What happened: the user's rule knows best, then the body, then gRPC's status, then whatever tells a quota behind
    /// a status that does not.
    fn verdict(&self, signal: &Signal, fields: &Fields<'_>, told: Option<Duration>) -> Verdict {
        if let Some(verdict) = self.ruled.or(self.body.and_then(|body| body.verdict)) {
            return verdict;
        }
        let verdict = match (signal.verdict, fields.grpc.verdict()) {
            (Verdict::Accepted, Some(verdict)) => verdict,
            (verdict, _) => verdict,
        };
        let is_quota = match verdict {
            Verdict::Accepted | Verdict::Throttled => false,
            _ if aws::is_throttling(fields.aws_error) => true,
            Verdict::Overloaded => fields.envoy_ratelimited,
            _ if self.status == StatusCode::FORBIDDEN => {
                let used_up = signal.hints.readings.into_iter().any(Reading::is_exhausted);
                used_up || told.is_some() || fields.envoy_ratelimited
            }
            _ => false,
        };
        if is_quota { Verdict::Throttled } else { verdict }
    }

    /// For how long to wait, and whether waiting cures it.
    fn advise(&self, told: Option<Duration>, signal: &mut Signal) {
        let hints = &mut signal.hints;
        // A 503 is no quota: a counter that is used up is used up besides, and closes the gate on its own.
        let is_quota = signal.verdict != Verdict::Overloaded;
        let used_up = || hints.readings.into_iter().filter(|reading| is_quota && reading.is_exhausted());
        let reset = used_up().filter_map(|reading| reading.reset).max();
        let daily = used_up().any(|reading| reading.window >= Some(DAY));

        let wait = told.or(reset).filter(|wait| !wait.is_zero() && !self.cap.is_zero());
        let wait = wait.map(|wait| wait.min(LONGEST));
        let long = wait.filter(|wait| *wait > self.cap);
        if signal.verdict == Verdict::Throttled && (daily || long.is_some()) {
            signal.verdict = Verdict::Exhausted;
        }
        hints.exhausted_for = match signal.verdict {
            Verdict::Exhausted => long.or(hints.exhausted_for).or(reset.or(wait).filter(|_| daily)),
            _ => long,
        };
        hints.retry_after = wait.map(|wait| wait.min(self.cap));
    }
}

fn verdict_of(status: StatusCode) -> Verdict {
    match status.as_u16() {
        429 => Verdict::Throttled,
        503 | 529 => Verdict::Overloaded,
        500.. => Verdict::Failed,
        400.. => Verdict::Refused,
        _ => Verdict::Accepted,
    }
}
