//! Services that put several numbers into one field.

use super::{
    Reading, Unit,
    clock::Clock,
    collect::Collect,
    number::{Decimal, LONGEST, count, window},
    policy_key::key,
};
use std::time::Duration;

/// Shopify: `X-Shopify-Shop-Api-Call-Limit: 32/40`, which is how much of the bucket is used, and its size.
pub(super) fn shopify(text: &str, collect: &mut Collect) {
    let mut reading = Reading::new(Unit::Requests);
    if let Some((Some(used), Some(size))) =
        text.split_once('/').map(|(used, size)| (count(used), count(size)))
    {
        reading.limit = Some(size);
        reading.remaining = Some(size.saturating_sub(used));
        collect.push(reading);
    }
}

/// Basecamp: `X-RateLimit: {"period":10,"limit":50,"remaining":49,"until":"2017-02-10T18:52:47Z", ..}`.
///
/// It is flat, and read as that: the first value that follows each name.
pub(super) fn basecamp(text: &str, clock: &Clock<'_>, collect: &mut Collect) {
    let value = |name: &str| {
        let after = &text[text.find(name)? + name.len()..];
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let value = match value.strip_prefix('"') {
            Some(text) => text.split('"').next(),
            None => value.split([',', '}']).next(),
        };
        value.map(str::trim)
    };
    let mut reading = Reading::new(Unit::Requests);
    reading.policy = value("\"name\"").map_or(0, |name| key(&[name]));
    reading.limit = value("\"limit\"").and_then(count);
    reading.remaining = value("\"remaining\"").and_then(count);
    reading.reset = value("\"until\"").and_then(|until| clock.wait(until));
    reading.window = value("\"period\"").and_then(seconds);
    collect.push(reading);
}

/// Opik: `Opik-Get-Spans-Remaining-Limit: 0` and `Opik-Get-Spans-Remaining-Limit-TTL-Millis: 53907`.
#[derive(Debug, Default)]
pub(super) struct Opik<'a> {
    name: &'a str,
    remaining: Option<u64>,
    reset: Option<Duration>,
}

impl<'a> Opik<'a> {
    /// Takes the field whose name begins with `Opik-`.
    pub(super) fn take(&mut self, name: &'a str, value: &str) {
        if let Some(name) = name.strip_suffix("-remaining-limit") {
            (self.name, self.remaining) = (name, count(value));
        } else if name.ends_with("-remaining-limit-ttl-millis") {
            self.reset = Decimal::parse(value).map(|ttl| ttl.millis().min(LONGEST));
        }
    }

    pub(super) fn read(&self, collect: &mut Collect) {
        let mut reading = Reading::new(Unit::Requests);
        (reading.policy, reading.remaining, reading.reset) = (key(&[self.name]), self.remaining, self.reset);
        collect.push(reading);
    }
}

/// Riot: `X-App-Rate-Limit: 20:1,100:120` and `X-App-Rate-Limit-Count: 1:1,1:120`: calls and seconds, for the key
/// and for the method.
#[derive(Debug, Default)]
pub(super) struct Riot<'a> {
    app: [&'a str; 2],
    method: [&'a str; 2],
}

impl<'a> Riot<'a> {
    pub(super) fn take(&mut self, name: &str, value: &'a str) {
        match name {
            "app-rate-limit" => self.app[0] = value,
            "app-rate-limit-count" => self.app[1] = value,
            "method-rate-limit" => self.method[0] = value,
            "method-rate-limit-count" => self.method[1] = value,
            _ => {}
        }
    }

    pub(super) fn read(&self, collect: &mut Collect) {
        for (who, [limits, counts]) in [("app", self.app), ("method", self.method)] {
            for (limit, span) in pairs(limits) {
                let used = pairs(counts).find(|(_, seconds)| *seconds == span).map(|(used, _)| used);
                let mut reading = Reading::new(Unit::Requests);
                reading.policy = key(&[who, span]);
                reading.limit = count(limit);
                reading.remaining = reading.limit.and_then(|limit| Some(limit.saturating_sub(count(used?)?)));
                reading.window = seconds(span);
                collect.push(reading);
            }
        }
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').take(8).filter_map(|pair| pair.trim().split_once(':'))
}

fn seconds(text: &str) -> Option<Duration> {
    window(Decimal::parse(text)?.seconds())
}
