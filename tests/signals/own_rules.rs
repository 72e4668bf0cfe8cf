//! Rules of one's own, alone and together, and what they leave to the classifier.

use super::{ms, response, secs};
use http::Response;
use std::convert::Infallible;
use tower_cooldown::signal::{Classify, HttpClassifier, Rejected, Signal, Verdict};

type Answer<'a, 'e> = Result<&'a Response<()>, &'e Infallible>;

fn on_430(answer: Answer<'_, '_>) -> Option<Signal> {
    (answer.ok()?.status().as_u16() == 430).then(|| Signal::new(Verdict::Throttled))
}

/// A service that says how many tenths of a second it wants to be left alone.
fn on_a_field(answer: Answer<'_, '_>) -> Option<Signal> {
    let tenths: u64 = answer.ok()?.headers().get("x-slow-down")?.to_str().ok()?.parse().ok()?;
    Some(Signal::new(Verdict::Throttled).retry_after(ms(tenths * 100)))
}

#[test]
fn a_rule_says_what_happened_and_the_hints_are_read_as_usual() {
    let classifier = HttpClassifier::new().with(on_430);
    let answer = response(430, "retry-after: 7\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 9");
    let signal = classifier.classify(Ok(&answer) as Answer<'_, '_>);
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, Some(secs(7))));
    assert_eq!(signal.hints.readings.as_slice().len(), 1);
    assert_eq!(signal.status.map(|status| status.as_u16()), Some(430));
    // A wait that is too long is too long here, too.
    let signal = classifier.classify(Ok(&response(430, "retry-after: 3600")) as Answer<'_, '_>);
    assert_eq!((signal.verdict, signal.hints.exhausted_for), (Verdict::Exhausted, Some(secs(3600))));
}

#[test]
fn a_wait_that_a_rule_gives_goes_before_the_fields() {
    let classifier = HttpClassifier::new().with(on_a_field);
    let signal =
        classifier.classify(Ok(&response(200, "x-slow-down: 5\nretry-after: 3600")) as Answer<'_, '_>);
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, Some(ms(500))));
    assert_eq!(signal.hints.exhausted_for, None);
}

#[test]
fn of_several_rules_the_last_one_is_asked_first() {
    let classifier = HttpClassifier::new().with(on_430).with(on_a_field).with(|answer: Answer<'_, '_>| {
        (answer.ok()?.status() == 418).then(|| Signal::new(Verdict::Accepted))
    });
    let verdict = |status, fields| {
        let signal = classifier.classify(Ok(&response(status, fields)) as Answer<'_, '_>);
        (signal.verdict, signal.hints.retry_after)
    };
    assert_eq!(verdict(430, "retry-after: 7"), (Verdict::Throttled, Some(secs(7))));
    assert_eq!(verdict(430, "x-slow-down: 5"), (Verdict::Throttled, Some(ms(500))));
    assert_eq!(verdict(418, "x-slow-down: 5"), (Verdict::Accepted, None));
    assert_eq!(verdict(404, ""), (Verdict::Refused, None));
    assert_eq!(verdict(429, "retry-after: 3"), (Verdict::Throttled, Some(secs(3))));
}

#[test]
fn a_rule_can_take_a_refusal_back() {
    let classifier = HttpClassifier::new().with(|_: Answer<'_, '_>| Some(Signal::new(Verdict::Failed)));
    let signal = classifier.classify(Ok(&response(429, "retry-after: 7")) as Answer<'_, '_>);
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Failed, None));
}

#[test]
fn a_rule_on_a_redirect_may_use_its_fields() {
    let classifier = HttpClassifier::new().with(|answer: Answer<'_, '_>| {
        (answer.ok()?.status() == 302).then(|| Signal::new(Verdict::Throttled))
    });
    let signal = classifier.classify(Ok(&response(302, "retry-after: 7")) as Answer<'_, '_>);
    assert_eq!(signal.hints.retry_after, Some(secs(7)));
}

#[test]
fn a_closure_below_rules_keeps_its_hints() {
    let text = |answer: Result<&&str, &Infallible>| match answer {
        Ok(&"later") => Signal::new(Verdict::Overloaded).retry_after(secs(4)),
        _ => Signal::new(Verdict::Accepted),
    };
    assert_eq!(text.classify_as(Ok(&"later"), Verdict::Throttled).hints.retry_after, Some(secs(4)));
}

#[cfg(feature = "reqwest")]
#[test]
fn responses_of_reqwest_are_read_like_others() {
    let answer = response(429, "retry-after: 7\nx-ratelimit-remaining: 0").map(|()| "slow down");
    let mut answer = reqwest::Response::from(answer);
    let classifier = HttpClassifier::new();
    let signal = classifier.classify(Ok::<_, &reqwest::Error>(&answer));
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, Some(secs(7))));
    assert!(signal.hints.readings.as_slice()[0].is_exhausted());
    Classify::<_, reqwest::Error>::attach(&classifier, &mut answer, 7_u8);
    assert_eq!(answer.extensions().get::<u8>(), Some(&7));

    let mut rejected = response(429, "").map(|()| "a gate further in says so");
    rejected.extensions_mut().insert(Rejected::new(secs(9)));
    let rejected = reqwest::Response::from(rejected);
    let signal = classifier.classify(Ok::<_, &reqwest::Error>(&rejected));
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Rejected, Some(secs(9))));
}
