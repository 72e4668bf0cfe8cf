//! Google's errors: `google.rpc.RetryInfo`, `QuotaFailure` and `ErrorInfo`, as JSON.

use super::{Found, Object, amount, error, is_daily, objects, pacific, policy, text};
use crate::signal::{Reading, Unit, Verdict};
use serde_json::Value;
use std::time::{Duration, SystemTime};

pub(super) fn read(object: &Object, now: SystemTime, found: &mut Found) {
    let Some(error) = error(object) else { return };
    let mut quotas = Quotas::default();
    for detail in objects(error, "details") {
        match text(detail, "@type").and_then(|name| name.rsplit("google.rpc.").next()) {
            Some("RetryInfo") => found.wait(text(detail, "retryDelay").and_then(amount::time)),
            Some("QuotaFailure") => objects(detail, "violations").for_each(|violation| {
                let name = text(violation, "quotaId").or_else(|| text(violation, "quotaMetric"));
                quotas.violated(name, violation.get("quotaValue"), found);
            }),
            Some("ErrorInfo") => {
                if text(detail, "reason") == Some("QUOTA_EXHAUSTED") {
                    found.verdict(Verdict::Exhausted);
                }
                if let Some(metadata) = detail.get("metadata").and_then(Value::as_object) {
                    found.wait(text(metadata, "quotaResetDelay").and_then(amount::time));
                    quotas.violated(text(metadata, "quota_limit"), metadata.get("quota_limit_value"), found);
                }
            }
            _ => {}
        }
    }
    quotas.daily |= objects(error, "errors").any(|error| text(error, "reason") == Some("dailyLimitExceeded"));
    quotas.none |= text(error, "status") == Some("RESOURCE_EXHAUSTED")
        && text(error, "message").is_some_and(says_limit_zero);
    if quotas.none {
        // The quota is zero: the model is not offered, and no time changes that.
        found.verdict(Verdict::Exhausted);
        found.never = true;
    } else if quotas.daily {
        found.verdict(Verdict::Exhausted);
        found.exhausted_for = pacific::until_midnight(now);
    }
}

#[derive(Default)]
struct Quotas {
    daily: bool,
    none: bool,
}

impl Quotas {
    fn violated(&mut self, name: Option<&str>, limit: Option<&Value>, found: &mut Found) {
        let Some(name) = name else { return };
        self.daily |= is_daily(name);
        let Some(limit) = limit.and_then(amount::count) else { return };
        self.none |= limit == 0;
        if limit > 0 {
            let mut reading = Reading::new(unit(name));
            reading.policy = policy(name);
            reading.limit = Some(limit);
            reading.window = window(name);
            found.reading(reading);
        }
    }
}

fn unit(name: &str) -> Unit {
    let name = name.to_ascii_lowercase().replace('_', "");
    match () {
        () if name.contains("inputtoken") => Unit::InputTokens,
        () if name.contains("outputtoken") => Unit::OutputTokens,
        () if name.contains("token") => Unit::Tokens,
        () if name.contains("request") => Unit::Requests,
        () => Unit::Other,
    }
}

fn window(name: &str) -> Option<Duration> {
    let name = name.to_ascii_lowercase().replace('_', "");
    let spans = [("persecond", 1), ("perminute", 60), ("perhour", 60 * 60), ("perday", 24 * 60 * 60)];
    let found = spans.iter().find(|(word, _)| name.contains(word));
    found.map(|(_, seconds)| Duration::from_secs(*seconds))
}

/// `…, limit: 0, model: …`, where the value in the violation is left out because it is zero.
fn says_limit_zero(message: &str) -> bool {
    const ZERO: &str = "limit: 0";
    message.match_indices(ZERO).any(|(at, _)| {
        let next = message[at + ZERO.len()..].chars().next();
        next.is_none_or(|next| !next.is_ascii_digit() && next != '.')
    })
}
