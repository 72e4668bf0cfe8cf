//! Waits and policies in fields of their own: Discord, Telegram, Matrix, HubSpot, and whoever does it like them.

use super::{Found, Object, amount, error, is_daily, text};
use crate::signal::Verdict;
use serde_json::Value;

const KEYS: [(&str, u64); 5] = [
    ("retry_after", amount::SECOND),
    ("retryAfter", amount::SECOND),
    ("retry_after_seconds", amount::SECOND),
    ("retry_after_ms", amount::SECOND / 1000),
    ("retryAfterMs", amount::SECOND / 1000),
];

pub(super) fn read(object: &Object, found: &mut Found) {
    let parameters = object.get("parameters").and_then(Value::as_object);
    for object in [Some(object), error(object), parameters].into_iter().flatten() {
        for (key, unit) in KEYS {
            found.wait(object.get(key).and_then(|value| amount::number(value, unit)));
        }
    }
    if text(object, "policyName").is_some_and(is_daily) {
        found.verdict(Verdict::Exhausted);
    }
}
