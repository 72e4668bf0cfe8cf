//! Which header fields are read, and by whom. One pass over the names: a look-up in a header map costs as much as
//! looking at all the names of an ordinary response.

use super::{
    clock::Clock,
    collect::Collect,
    counters::{Counters, Scope},
    grpc::Grpc,
    ietf::Ietf,
    number::Decimal,
    packed::{self, Opik, Riot},
};
use http::{HeaderMap, header::AGE};
use std::time::Duration;

/// The fields of one response that say something of a limit, by family, most of them not read yet.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    retry_after_ms: Option<Duration>,
    retry_after: Option<&'a str>,
    own_retry_after: Option<&'a str>,
    pub(super) grpc: Grpc<'a>,
    /// `X-Should-Retry`, `Stripe-Should-Retry`.
    pub(super) should_retry: Option<bool>,
    /// Why the call was refused, in the words of Stripe or Atlassian.
    reason: &'a str,
    pub(super) aws_error: &'a str,
    pub(super) envoy_ratelimited: bool,
    /// What is used up was used by others, too; what is told is our own part of it.
    is_shared: bool,
    counters: Counters<'a>,
    ietf: Ietf<'a>,
    shopify: Option<&'a str>,
    basecamp: Option<&'a str>,
    riot: Riot<'a>,
    opik: Opik<'a>,
}

impl<'a> Fields<'a> {
    /// Whether any field of the response is of interest. This is all that most responses cost.
    pub(super) fn are_in(headers: &HeaderMap) -> bool {
        headers.keys().any(|name| is_of_interest(name.as_str()))
    }

    pub(super) fn collect(&mut self, headers: &'a HeaderMap) {
        for (name, value) in headers.iter().filter(|(name, _)| is_of_interest(name.as_str())) {
            if let Ok(value) = value.to_str() {
                self.take(name.as_str(), value.trim_matches([' ', '\t']));
            }
        }
        self.grpc.only_if_grpc(headers);
    }

    fn take(&mut self, name: &'a str, value: &'a str) {
        match name {
            "retry-after" => {
                self.retry_after.get_or_insert(value);
            }
            "retry-after-ms" | "x-ms-retry-after-ms" | "x-amz-retry-after" => {
                self.retry_after_ms = self.retry_after_ms.or(Decimal::parse(value).map(Decimal::millis));
            }
            "x-should-retry" | "stripe-should-retry" => {
                self.should_retry = value.parse().ok().or(self.should_retry);
            }
            "stripe-rate-limited-reason" | "ratelimit-reason" => self.reason = value,
            "x-amzn-errortype" => self.aws_error = value,
            "x-envoy-ratelimited" => self.envoy_ratelimited = true,
            "ratelimit" => self.ietf.take_limit(value),
            "ratelimit-policy" => self.ietf.take_policy(value),
            // A name of its own for the same.
            "x-ratelimit-retry-after" => self.own_retry_after = Some(value),
            // Discord: who has used it up.
            "x-ratelimit-scope" => self.is_shared = value == "shared",
            "x-shopify-shop-api-call-limit" => self.shopify = Some(value),
            "x-ratelimit" => self.basecamp = Some(value),
            _ if name.starts_with("grpc-") => self.grpc.take(name, value),
            _ => self.take_counter(name, value),
        }
    }

    fn take_counter(&mut self, name: &'a str, value: &'a str) {
        for (prefix, scope) in [
            ("x-ratelimit-", Scope::Main),
            ("anthropic-ratelimit-", Scope::Main),
            ("ratelimit-", Scope::Ietf),
            ("x-rate-limit-", Scope::Main),
            ("x-hubspot-ratelimit-", Scope::Main),
            ("x-app-limit-", Scope::App),
            ("x-user-limit-", Scope::User),
        ] {
            if let Some(name) = name.strip_prefix(prefix) {
                return self.counters.take(scope, name, value);
            }
        }
        if let Some(name) = name.strip_prefix("opik-") {
            return self.opik.take(name, value);
        }
        self.riot.take(name.strip_prefix("x-").unwrap_or(name), value);
    }

    /// The wait that the server tells in so many words. A wait of zero says nothing.
    pub(super) fn told_wait(&self, clock: &Clock<'_>) -> Option<Duration> {
        let read = |text: Option<&str>| clock.retry_after(text?).filter(|wait| !wait.is_zero());
        let millis = self.retry_after_ms.filter(|wait| !wait.is_zero());
        millis.or_else(|| read(self.retry_after)).or_else(|| read(self.own_retry_after))
    }

    /// The counters, unless they are those of another answer, as in one from a cache, or of another caller.
    pub(super) fn read_counters(&self, headers: &HeaderMap, clock: &Clock<'_>, collect: &mut Collect) {
        if self.is_shared || is_cached(headers) {
            return;
        }
        let policies = self.ietf.policies();
        self.ietf.read(policies.as_ref(), collect);
        self.counters.read(policies.as_ref(), clock, collect);
        self.riot.read(collect);
        self.opik.read(collect);
        if let Some(text) = self.shopify {
            packed::shopify(text, collect);
        }
        if let Some(text) = self.basecamp {
            packed::basecamp(text, clock, collect);
        }
    }

    /// Stripe's `global-concurrency` and `endpoint-concurrency`.
    pub(super) fn is_for_concurrency(&self) -> bool {
        self.reason.contains("concurrency")
    }
}

fn is_cached(headers: &HeaderMap) -> bool {
    let age = headers.get(AGE).and_then(|age| age.to_str().ok());
    age.is_some_and(|age| age.bytes().any(|digit| matches!(digit, b'1'..=b'9')))
}

/// Whether a field is read, judged by the beginning of its (lower-case) name. It may let others through, which are
/// sorted out later.
fn is_of_interest(name: &str) -> bool {
    let begins = |with: &str| name.starts_with(with);
    match name.as_bytes().first() {
        Some(b'r') => begins("retry-after") || begins("ratelimit"),
        Some(b'x') => match name.as_bytes().get(2) {
            Some(b'r') => begins("x-ratelimit") || begins("x-rate-limit-"),
            Some(b'a') => begins("x-am") || begins("x-app-"),
            Some(b'm') => begins("x-ms-retry-after-ms") || begins("x-method-rate-limit"),
            Some(b's') => begins("x-should-retry") || begins("x-shopify-shop-api-call-limit"),
            Some(b'h') => begins("x-hubspot-ratelimit-"),
            Some(b'u') => begins("x-user-limit-"),
            Some(b'e') => begins("x-envoy-ratelimited"),
            _ => false,
        },
        Some(b'a') => begins("anthropic-ratelimit-") || begins("app-rate-limit"),
        Some(b'g') => begins("grpc-"),
        Some(b's') => begins("stripe-"),
        Some(b'o') => begins("opik-"),
        Some(b'm') => begins("method-rate-limit"),
        _ => false,
    }
}
