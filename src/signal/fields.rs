//! The header fields that tell of limits, of all families, collected in one pass.

use super::{
    Reading, Unit, structured,
    time::{When, count, decimal, text, when},
};
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// What stands in the fields, before it is weighed.
#[derive(Default)]
pub(super) struct Fields<'a> {
    /// `retry-after-ms` and its like.
    pub(super) retry_after_ms: Option<Duration>,
    pub(super) retry_after: Option<&'a HeaderValue>,
    /// `x-should-retry`, `stripe-should-retry`.
    pub(super) should_retry: Option<bool>,
    pub(super) concurrency: bool,
    /// Something here speaks of limits, so that a 403 may be one.
    pub(super) is_limit: bool,
    /// The refusal is for what others did.
    pub(super) is_shared: bool,
    pub(super) grpc_status: Option<&'a HeaderValue>,
    pub(super) grpc_pushback: Option<&'a HeaderValue>,
    pub(super) grpc_details: Option<&'a HeaderValue>,
    counters: [Counter; COUNTERS],
    len: usize,
    policies: [Option<&'a str>; LINES],
    limits: [Option<&'a str>; LINES],
}

/// One counter, as its fields have it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counter {
    key: u64,
    pub(super) unit: Unit,
    pub(super) policy: u64,
    limit: Option<u64>,
    remaining: Option<u64>,
    used: Option<u64>,
    reset: Option<When>,
    window: Option<Duration>,
}

const COUNTERS: usize = 8;
/// Lists may be split over several lines.
const LINES: usize = 4;

impl<'a> Fields<'a> {
    pub(super) fn collect(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            // Most fields are told by their first letter to be others.
            match name.as_bytes().first() {
                Some(b'r') => fields.r(name, value),
                Some(b'x') => fields.x(name, value),
                Some(b'a') => fields.a(name, value),
                Some(b's') => fields.s(name, value),
                Some(b'g') => match name {
                    "grpc-status" => fields.grpc_status = Some(value),
                    "grpc-retry-pushback-ms" => fields.grpc_pushback = Some(value),
                    "grpc-status-details-bin" => fields.grpc_details = Some(value),
                    _ => {}
                },
                _ => {}
            }
        }
        fields
    }

    /// `Retry-After`, `RateLimit`, and the older `RateLimit-…`.
    fn r(&mut self, name: &str, value: &'a HeaderValue) {
        if let Some(rest) = name.strip_prefix("retry-after") {
            match rest {
                "" => self.retry_after = Some(value),
                "-ms" => self.milliseconds(value),
                _ => {}
            }
        } else if let Some(rest) = name.strip_prefix("ratelimit") {
            let Some(text) = text(value) else { return };
            match rest {
                "" => push(&mut self.limits, text),
                "-policy" => push(&mut self.policies, text),
                "-limit" => self.limit_list(text),
                "-reason" => self.reason(text),
                _ => {
                    if let Some(part) = rest.strip_prefix('-') {
                        self.part(RATE_LIMIT, part, text);
                    }
                }
            }
        }
    }

    fn x(&mut self, name: &str, value: &'a HeaderValue) {
        let Some(rest) = name.strip_prefix("x-") else { return };
        if let Some(part) = rest.strip_prefix("ratelimit-").or_else(|| rest.strip_prefix("rate-limit-")) {
            if let Some(text) = text(value) {
                self.x_rate_limit(part, text);
            }
            return;
        }
        match rest {
            "ms-retry-after-ms" | "amz-retry-after" => self.milliseconds(value),
            "should-retry" => self.should_retry(value),
            "shopify-shop-api-call-limit" => self.used_of_size(value),
            _ => {
                let hubspot = rest.strip_prefix("hubspot-ratelimit-");
                if let (Some(part), Some(text)) = (hubspot, text(value)) {
                    self.hubspot(part, text);
                }
            }
        }
    }

    fn a(&mut self, name: &str, value: &'a HeaderValue) {
        let Some(part) = name.strip_prefix("anthropic-ratelimit-") else { return };
        let (Some((unit, field)), Some(text)) = (part.rsplit_once('-'), text(value)) else { return };
        let unit = match unit {
            "requests" => Unit::Requests,
            "tokens" => Unit::Tokens,
            "input-tokens" => Unit::InputTokens,
            "output-tokens" => Unit::OutputTokens,
            _ => return,
        };
        self.counter(ANTHROPIC + unit as u64, unit).set(field, text);
    }

    fn s(&mut self, name: &str, value: &HeaderValue) {
        match name {
            "stripe-rate-limited-reason" => {
                if let Some(text) = text(value) {
                    self.reason(text);
                }
            }
            "stripe-should-retry" => self.should_retry(value),
            _ => {}
        }
    }

    /// Vendors' `X-RateLimit-…`, which is nobody's standard.
    fn x_rate_limit(&mut self, part: &str, value: &str) {
        self.is_limit = true;
        match part {
            "limit" | "remaining" | "used" | "reset" | "observed" => self.part(X_RATE_LIMIT, part, value),
            // Discord: more exact than the time of day.
            "reset-after" => self.counter(X_RATE_LIMIT, Unit::Requests).reset = decimal(value).map(When::In),
            "bucket" | "resource" => self.counter(X_RATE_LIMIT, Unit::Requests).policy = policy(value),
            "scope" => self.is_shared = value == "shared",
            "interval-seconds" => self.counter(X_RATE_LIMIT, Unit::Requests).window = decimal(value),
            "interval-milliseconds" => {
                self.counter(X_RATE_LIMIT, Unit::Requests).window = decimal(value).map(|ms| ms / 1000);
            }
            _ => {
                let Some((first, last)) = part.rsplit_once('-') else { return };
                // OpenAI has `remaining-tokens`, Linear `requests-remaining`, Kong `remaining-minute`.
                if let Some((unit, offset)) = unit(last) {
                    self.counter(X_BY_UNIT + offset, unit).set(first, value);
                } else if let Some((unit, offset)) = unit(first) {
                    self.counter(X_BY_UNIT + offset, unit).set(last, value);
                } else if let Some(window) = span(last) {
                    let counter = self.counter(X_BY_SPAN + window.as_secs(), Unit::Requests);
                    counter.window = Some(window);
                    counter.policy = window.as_secs();
                    counter.set(first, value);
                }
            }
        }
    }

    /// HubSpot: `daily`, `daily-remaining`, `secondly…`, and `max`, `remaining`, `interval-milliseconds`.
    fn hubspot(&mut self, part: &str, value: &str) {
        self.is_limit = true;
        let (span, field) = match part {
            "max" => (HUBSPOT, "limit"),
            "remaining" => (HUBSPOT, "remaining"),
            "interval-milliseconds" => {
                self.counter(HUBSPOT, Unit::Requests).window = decimal(value).map(|ms| ms / 1000);
                return;
            }
            "daily" => (HUBSPOT + DAY.as_secs(), "limit"),
            "daily-remaining" => (HUBSPOT + DAY.as_secs(), "remaining"),
            "secondly" => (HUBSPOT + 1, "limit"),
            "secondly-remaining" => (HUBSPOT + 1, "remaining"),
            _ => return,
        };
        let counter = self.counter(span, Unit::Requests);
        if span != HUBSPOT {
            counter.window = Some(Duration::from_secs(span - HUBSPOT));
            counter.policy = span - HUBSPOT;
        }
        counter.set(field, value);
    }

    /// Shopify: `32/40`, a bucket of which 32 are used.
    fn used_of_size(&mut self, value: &HeaderValue) {
        self.is_limit = true;
        let Some((used, size)) = text(value).and_then(|text| text.split_once('/')) else { return };
        let counter = self.counter(SHOPIFY, Unit::Requests);
        counter.used = count(used.trim());
        counter.limit = count(size.trim());
    }

    /// `100`, or of draft 03 `10, 10;w=1, 50;w=60`: the first is the one that the other fields speak of.
    fn limit_list(&mut self, text: &str) {
        let Some((items, len)) = structured::list(text) else { return };
        let Some(first) = items[..len].first() else { return };
        let limit = count(first.name);
        // The policy with the same number tells the window.
        let window = items[..len].iter().find(|item| item.w.is_some() && count(item.name) == limit);
        let counter = self.counter(RATE_LIMIT, Unit::Requests);
        counter.limit = limit;
        counter.window = window.and_then(|item| item.w).map(Duration::from_secs);
        self.is_limit = true;
    }

    /// `limit`, `remaining`, `reset` and so on of a counter for which one set of fields stands.
    fn part(&mut self, key: u64, part: &str, value: &str) {
        self.is_limit = true;
        self.counter(key, Unit::Requests).set(part, value);
    }

    /// Stripe's and Atlassian's.
    fn reason(&mut self, reason: &str) {
        self.is_limit = true;
        self.concurrency = reason.contains("concurren");
    }

    fn milliseconds(&mut self, value: &HeaderValue) {
        let wait = text(value).and_then(decimal).map(|ms| ms / 1000).filter(|wait| !wait.is_zero());
        self.retry_after_ms = self.retry_after_ms.or(wait);
    }

    fn should_retry(&mut self, value: &HeaderValue) {
        self.should_retry = match text(value) {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => self.should_retry,
        };
    }

    fn counter(&mut self, key: u64, unit: Unit) -> &mut Counter {
        let found = self.counters[..self.len].iter().position(|counter| counter.key == key);
        let index = found.unwrap_or_else(|| {
            // Beyond the last place, the last one is overwritten: nobody sends that many.
            let index = self.len.min(COUNTERS - 1);
            self.counters[index] = Counter { key, unit, ..Counter::default() };
            self.len = index + 1;
            index
        });
        &mut self.counters[index]
    }

    /// Joins the lists of policies and limits, and adds them to the counters.
    pub(super) fn counters(&mut self) -> &[Counter] {
        for line in self.limits.into_iter().flatten() {
            if let Some((items, len)) = structured::list(line).filter(|_| !line.contains("limit=")) {
                items[..len].iter().for_each(|item| self.structured_limit(item));
            } else if let Some((limit, remaining, reset)) = dictionary(line) {
                let counter = self.counter(RATE_LIMIT, Unit::Requests);
                (counter.limit, counter.remaining, counter.reset) = (limit, remaining, reset.map(When::In));
            }
        }
        for line in self.policies.into_iter().flatten() {
            if let Some((items, len)) = structured::list(line) {
                items[..len].iter().for_each(|item| self.structured_policy(item));
            }
        }
        &self.counters[..self.len]
    }

    fn structured_limit(&mut self, item: &structured::Item<'_>) {
        // A limit without what is left of it says nothing.
        let Some(remaining) = item.r else { return };
        let key = policy(item.name) ^ item.pk.map_or(0, policy).rotate_left(1);
        let counter = self.counter(key, Unit::Requests);
        counter.policy = key;
        counter.remaining = Some(remaining);
        counter.reset = item.t.map(|t| When::In(Duration::from_secs(t)));
        self.is_limit = true;
    }

    fn structured_policy(&mut self, item: &structured::Item<'_>) {
        // Drafts 04 to 06 have `100;w=10` beside the three fields.
        let old = item.q.is_none().then(|| count(item.name)).flatten();
        let key = policy(item.name) ^ item.pk.map_or(0, policy).rotate_left(1);
        let known = self.counters[..self.len].iter_mut().find(|counter| {
            counter.key == key || old.is_some() && counter.key == RATE_LIMIT && counter.limit == old
        });
        let Some(counter) = known else { return };
        counter.limit = counter.limit.or(item.q);
        counter.window = item.w.filter(|w| *w > 0).map(Duration::from_secs);
        counter.unit = match item.qu {
            None | Some("requests") => counter.unit,
            _ => Unit::Other,
        };
        // What is in flight comes back by itself.
        if item.qu == Some("concurrent-requests") && counter.remaining == Some(0) {
            self.concurrency = true;
        }
    }
}

impl Counter {
    fn set(&mut self, field: &str, value: &str) {
        match field {
            "limit" => self.limit = count(value),
            "remaining" => self.remaining = count(value),
            "used" | "observed" => self.used = count(value),
            "reset" => self.reset = when(value),
            _ => {}
        }
    }

    /// The reading, if it says anything: a limit of zero is not known, and so is what is left of it.
    pub(super) fn reading(&self, until: impl Fn(When) -> Duration) -> Option<Reading> {
        let limit = self.limit.filter(|limit| *limit > 0);
        let remaining = self.remaining.or_else(|| Some(limit?.saturating_sub(self.used?)));
        if self.limit == Some(0) || limit.is_none() && remaining.is_none() {
            return None;
        }
        let mut reading = Reading::new(self.unit);
        reading.policy = self.policy;
        reading.limit = limit;
        reading.remaining = remaining;
        reading.reset = self.reset.map(until).map(|reset| reset.min(MAX_RESET));
        reading.window = self.window.filter(|window| !window.is_zero() && *window <= MAX_RESET);
        Some(reading)
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Nobody's quota is reset later than in a year.
const MAX_RESET: Duration = Duration::from_secs(366 * 24 * 60 * 60);

// Keys of the families. Those of the structured fields are hashes.
const RATE_LIMIT: u64 = 1;
const X_RATE_LIMIT: u64 = 2;
const SHOPIFY: u64 = 3;
const ANTHROPIC: u64 = 0x100;
const X_BY_UNIT: u64 = 0x200;
const HUBSPOT: u64 = 0x1_0000_0000;
const X_BY_SPAN: u64 = 0x2_0000_0000;

fn unit(name: &str) -> Option<(Unit, u64)> {
    Some(match name {
        "requests" | "request" => (Unit::Requests, 0),
        "tokens" => (Unit::Tokens, 1),
        "input-tokens" => (Unit::InputTokens, 2),
        "output-tokens" => (Unit::OutputTokens, 3),
        "complexity" | "points" => (Unit::Other, 4),
        _ => return None,
    })
}

fn span(name: &str) -> Option<Duration> {
    let seconds = match name {
        "second" => 1,
        "minute" => 60,
        "hour" => 60 * 60,
        "day" => 24 * 60 * 60,
        "month" => 30 * 24 * 60 * 60,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// Tells one policy from another: FNV-1a, which is the same in every process.
pub(crate) fn policy(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The lower numbers are the families'.
    hash | 1 << 63
}

/// Draft 07: `limit=100, remaining=50, reset=5`.
fn dictionary(text: &str) -> Option<(Option<u64>, Option<u64>, Option<Duration>)> {
    let (mut limit, mut remaining, mut reset) = (None, None, None);
    for part in text.split(',').take(8) {
        let (key, value) = part.trim().split_once('=')?;
        let number = count(value.split(';').next()?.trim())?;
        match key {
            "limit" => limit = Some(number),
            "remaining" => remaining = Some(number),
            "reset" => reset = Some(Duration::from_secs(number)),
            _ => {}
        }
    }
    Some((limit, remaining, reset))
}

fn push<'a>(lines: &mut [Option<&'a str>; LINES], line: &'a str) {
    if let Some(free) = lines.iter_mut().find(|line| line.is_none()) {
        *free = Some(line);
    }
}
