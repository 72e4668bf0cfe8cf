//! The names that services give to a refusal, wherever in the answer they stand.

use super::{Found, Object, error, objects, text};
use crate::signal::Verdict;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// Where a name may stand in an object.
const KEYS: [&str; 11] = [
    "__type",
    "code",
    "Code",
    "error",
    "errcode",
    "errorCode",
    "errorType",
    "type",
    "reason",
    "Reason",
    "status",
];

/// What a name means, in lower case and without what is not a letter or digit: `RATE_LIMITED`, `rate-limited` and
/// `RateLimited` are one.
fn meaning(word: &str) -> Option<Verdict> {
    match word {
        // AWS, as its SDKs for Rust list them.
        "throttling"
        | "throttlingexception"
        | "throttledexception"
        | "requestthrottled"
        | "requestthrottledexception"
        | "toomanyrequestsexception"
        | "provisionedthroughputexceededexception"
        | "transactioninprogressexception"
        | "requestlimitexceeded"
        | "bandwidthlimitexceeded"
        | "limitexceededexception"
        | "slowdown"
        | "priorrequestnotcomplete"
        | "ec2throttledexception"
        // Google: the gRPC status, and the reasons of its older services.
        | "resourceexhausted"
        | "ratelimitexceeded"
        | "userratelimitexceeded"
        // GraphQL: Shopify; GitHub and many; GitHub since 2025; Linear.
        | "throttled"
        | "ratelimited"
        | "ratelimit"
        | "graphqlratelimit"
        // Anthropic; Azure; Matrix; others.
        | "ratelimiterror"
        | "ratelimitreached"
        | "mlimitexceeded"
        | "toomanyrequests" => Some(Verdict::Throttled),
        // Anthropic.
        "overloadederror" => Some(Verdict::Overloaded),
        // OpenAI; Anthropic; Google.
        "insufficientquota" | "billinghardlimitreached" | "billingnotactive" | "billingerror" | "dailylimitexceeded"
        | "quotaexhausted" => Some(Verdict::Exhausted),
        _ => None,
    }
}

/// Names of limits on calls in flight: AWS Lambda's, Stripe's.
fn is_concurrency(word: &str) -> bool {
    matches!(
        word,
        "concurrentinvocationlimitexceeded"
            | "reservedfunctionconcurrentinvocationlimitexceeded"
            | "locktimeout"
    )
}

pub(super) fn in_object(status: StatusCode, object: &Object, found: &mut Found) {
    // What a successful answer says at the top is the caller's data.
    if !status.is_success() {
        keys(object, found);
    }
    if let Some(name) = text(object, "error") {
        word(name, found);
    }
    if let Some(error) = error(object) {
        keys(error, found);
        objects(error, "errors").for_each(|error| keys(error, found));
    }
    for error in objects(object, "errors") {
        keys(error, found);
        if let Some(extensions) = error.get("extensions").and_then(Value::as_object) {
            keys(extensions, found);
        }
    }
}

fn keys(object: &Object, found: &mut Found) {
    KEYS.iter().filter_map(|key| text(object, key)).for_each(|name| word(name, found));
}

/// AWS puts the name into the head, where the body has only the message.
pub(super) fn in_headers(headers: &HeaderMap, found: &mut Found) {
    if let Some(name) = headers.get("x-amzn-errortype").and_then(|name| name.to_str().ok()) {
        word(name, found);
    }
}

/// AWS's older services: `<Error><Code>SlowDown</Code>`, somewhere in it.
pub(super) fn in_xml(body: &[u8], found: &mut Found) {
    const OPEN: &[u8] = b"<Code>";
    let Some(at) = body.windows(OPEN.len()).position(|window| window == OPEN) else { return };
    let name = body[at + OPEN.len()..].split(|byte| *byte == b'<').next().unwrap_or_default();
    if let Ok(name) = std::str::from_utf8(name) {
        word(name, found);
    }
}

/// One name: `ThrottlingException`, `com.amazonaws.kinesis#ThrottlingException`, `ThrottlingException:http://…`.
fn word(name: &str, found: &mut Found) {
    const LONGEST: usize = 64;
    let name = name.rsplit('#').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    if name.len() > LONGEST {
        return;
    }
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    if let Some(verdict) = meaning(&name) {
        found.verdict(verdict);
    }
    found.concurrency |= is_concurrency(&name);
}
