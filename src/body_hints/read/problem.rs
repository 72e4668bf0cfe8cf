//! The problem types of `draft-ietf-httpapi-ratelimit-headers`.

use super::{Found, Object, is_daily, policy, text};
use crate::signal::{Reading, Unit, Verdict};
use serde_json::Value;

pub(super) fn read(object: &Object, found: &mut Found) {
    let Some((_, problem)) = text(object, "type").and_then(|name| name.rsplit_once("http-problem-types#"))
    else {
        return;
    };
    match problem {
        "quota-exceeded" | "abnormal-usage-detected" => found.verdict(Verdict::Throttled),
        "temporary-reduced-capacity" => found.verdict(Verdict::Overloaded),
        _ => return,
    }
    let policies = object.get("violated-policies").and_then(Value::as_array).into_iter().flatten();
    for name in policies.filter_map(Value::as_str) {
        // What it counts is not said.
        let mut reading = Reading::new(Unit::Other);
        reading.policy = policy(name);
        reading.remaining = Some(0);
        found.reading(reading);
        if is_daily(name) {
            found.verdict(Verdict::Exhausted);
        }
    }
}
