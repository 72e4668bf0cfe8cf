//! What goes before what, and what is not believed: the twelve rules.

use super::{EPOCH, ms, read, read_dated, secs};
use http::Response;
use std::{convert::Infallible, time::Duration};
use tower_cooldown::signal::{BodyHints, Classify, Hints, HttpClassifier, Signal, Verdict};

fn with_body(status: u16, headers: &[(&str, &str)], body: BodyHints) -> Signal {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let mut response = response.body(()).unwrap();
    response.extensions_mut().insert(body);
    HttpClassifier::new().classify(Ok::<_, &Infallible>(&response))
}

fn body(wait: Duration) -> BodyHints {
    let mut hints = Hints::default();
    hints.retry_after = Some(wait);
    BodyHints { verdict: None, hints }
}

#[test]
fn rule_1_the_order_in_which_waits_are_believed() {
    let all = [
        ("retry-after-ms", "1000"),
        ("retry-after", "2"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "5"),
    ];
    let wait = |headers| with_body(429, headers, body(secs(4))).hints.retry_after;
    assert_eq!(wait(&all[0..]), Some(secs(1)), "milliseconds of a vendor");
    assert_eq!(wait(&all[1..]), Some(secs(2)), "Retry-After");
    assert_eq!(wait(&all[2..]), Some(secs(4)), "the body");
    assert_eq!(read(429, &all[2..]).hints.retry_after, Some(secs(5)), "the reset of what is used up");
    let grpc =
        [("content-type", "application/grpc"), ("grpc-status", "8"), ("grpc-retry-pushback-ms", "3000")];
    let both = [&grpc[..], &[("retry-after", "2")]].concat();
    assert_eq!(read(200, &both).hints.retry_after, Some(secs(2)));
    assert_eq!(with_body(200, &grpc, body(secs(4))).hints.retry_after, Some(secs(3)));
}

#[test]
fn rule_1_a_reset_while_something_is_left_is_no_cooldown() {
    let signal = read(429, &[("ratelimit-remaining", "595"), ("ratelimit-reset", "3000")]);
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, None));
}

#[test]
fn rule_2_what_a_reset_is() {
    let reset = |text: &str| {
        let signal = read_dated(200, &[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", text)]);
        signal.hints.readings.as_slice()[0].reset
    };
    let in_a_minute = EPOCH + 60;
    assert_eq!(reset("60"), Some(secs(60)));
    assert_eq!(reset("0.25"), Some(ms(250)));
    assert_eq!(reset(&in_a_minute.to_string()), Some(secs(60)));
    assert_eq!(reset(&format!("{in_a_minute}.5")), Some(ms(60_500)));
    assert_eq!(reset(&format!("{in_a_minute}000")), Some(secs(60)));
    assert_eq!(reset(&format!("{in_a_minute}000000")), Some(secs(60)));
    assert_eq!(reset("6m0s"), Some(secs(360)), "not six seconds");
    assert_eq!(reset("2015-10-21T07:29:00Z"), Some(secs(60)));
    assert_eq!(reset("Wed, 21 Oct 2015 07:29:00 GMT"), Some(secs(60)));
    assert_eq!(reset(&(EPOCH - 1_000_000).to_string()), Some(secs(0)), "a past time is now");
}

#[test]
fn rule_3_dates_are_read_on_the_servers_clock() {
    let signal = read(
        429,
        &[("date", "Wed, 21 Oct 2015 08:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 08:28:05 GMT")],
    );
    assert_eq!(signal.hints.retry_after, Some(secs(5)));
    assert_eq!(read_dated(429, &[("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT")]).hints.retry_after, None);
    // Without a date it is our own clock.
    assert!(read(429, &[("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")]).hints.retry_after.is_none());
}

#[test]
fn rule_4_a_wait_that_is_too_long_fails_fast_and_says_how_long() {
    for verdict in [429_u16, 503] {
        let signal = read(verdict, &[("retry-after", "3600")]);
        assert_eq!(signal.hints.retry_after, Some(secs(600)), "the gate closes for the cap");
        assert_eq!(signal.hints.exhausted_for, Some(secs(3600)));
    }
    assert_eq!(read(429, &[("retry-after", "3600")]).verdict, Verdict::Exhausted);
    assert_eq!(read(503, &[("retry-after", "3600")]).verdict, Verdict::Overloaded);
    assert_eq!(read(429, &[("retry-after", "600")]).verdict, Verdict::Throttled);
    let patient = HttpClassifier::new().max_retry_after(secs(7200));
    let response = Response::builder().status(429).header("retry-after", "3600").body(()).unwrap();
    let signal = patient.classify(Ok::<_, &Infallible>(&response));
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, Some(secs(3600))));
}

#[test]
fn rule_4_numbers_that_make_no_sense_say_nothing() {
    for nonsense in ["-5", "NaN", "inf", "1e3", "0", "", "99999999999999999999999"] {
        assert_eq!(read(429, &[("retry-after", nonsense)]).hints.retry_after, None, "{nonsense}");
        assert_eq!(read(429, &[("retry-after-ms", nonsense)]).hints.retry_after, None, "{nonsense}");
    }
}

#[test]
fn rule_5_a_second_from_a_fast_bucket_is_obeyed_and_not_made_up_for_in_a_burst() {
    use tokio::time::Instant;
    use tower_cooldown::{
        Cost,
        policy::{Answer, Closing, Learned, Policy, Quota},
    };
    let refused = read(429, &[("retry-after", "1")]);
    let mut policy = Learned::new().seed(Quota::new(20, secs(1)).unwrap());
    let start = Instant::now();
    policy.depart(start, Cost::one());
    let closing = policy.answered(&Answer::new(&refused, start, start + ms(10)));
    assert_eq!(closing, Some(Closing::told(secs(1))), "obeyed, although the bucket is there sooner");
    // Twenty calls' worth of time has passed, and the next two are a slot apart all the same.
    let opened = start + ms(1010);
    policy.depart(opened, Cost::one());
    assert!(policy.departure(opened, Cost::one()).at >= opened + ms(50));
}

#[test]
fn rule_6_what_says_nothing_about_a_quota() {
    assert_eq!(read(503, &[]).verdict, Verdict::Overloaded);
    assert_eq!(read(503, &[]).hints.retry_after, None);
    assert_eq!(read(503, &[("retry-after", "7")]).hints.retry_after, Some(secs(7)));
    assert_eq!(read(529, &[]).verdict, Verdict::Overloaded);
    for status in [500, 502, 504] {
        assert_eq!(read(status, &[("retry-after", "7")]).verdict, Verdict::Failed, "{status}");
    }
    assert_eq!(read(429, &[]).verdict, Verdict::Throttled);
}

#[test]
fn rule_7_a_403_is_a_limit_only_with_evidence() {
    assert_eq!(read(403, &[]).verdict, Verdict::Refused);
    assert_eq!(read(403, &[("retry-after", "60")]).verdict, Verdict::Throttled);
    assert_eq!(read(403, &[("x-ratelimit-remaining", "0")]).verdict, Verdict::Throttled);
    assert_eq!(read(403, &[("x-ratelimit-remaining", "17")]).verdict, Verdict::Refused);
    let told = BodyHints { verdict: Some(Verdict::Throttled), hints: Hints::default() };
    assert_eq!(with_body(403, &[], told).verdict, Verdict::Throttled);
    assert_eq!(with_body(400, &[], told).verdict, Verdict::Throttled, "AWS");
    assert_eq!(with_body(200, &[], told).verdict, Verdict::Throttled, "GraphQL");
}

#[test]
fn rule_8_a_success_that_used_up_the_last_one_says_so() {
    let signal = read(200, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")]);
    assert_eq!(signal.verdict, Verdict::Accepted);
    let [reading] = signal.hints.readings.as_slice() else { panic!("{signal:?}") };
    assert!(reading.is_exhausted());
    assert_eq!(reading.reset, Some(secs(30)));
    assert_eq!(signal.hints.retry_after, None);
}

#[test]
fn rule_9_of_several_policies_the_one_that_is_used_up_binds() {
    let signal = read(429, &[("ratelimit", r#""burst";r=0;t=5, "hourly";r=90;t=1800, "minute";r=0;t=30"#)]);
    assert_eq!(signal.hints.retry_after, Some(secs(30)));
    assert_eq!(signal.hints.readings.as_slice().len(), 3);
    for unknown in ["-1", "", "many"] {
        assert!(read(200, &[("x-ratelimit-remaining", unknown)]).hints.readings.is_empty(), "{unknown}");
    }
    let zero = [("x-ratelimit-limit", "0"), ("x-ratelimit-remaining", "0")];
    assert!(read(200, &zero).hints.readings.is_empty(), "0 of 0 is not known");
}

#[test]
fn rule_10_a_quota_for_a_day_is_exhausted_and_says_until_when() {
    let signal = read(
        429,
        &[("ratelimit-policy", r#""daily";q=1000;w=86400"#), ("ratelimit", r#""daily";r=0;t=7200"#)],
    );
    assert_eq!(signal.verdict, Verdict::Exhausted);
    assert_eq!(signal.hints.exhausted_for, Some(secs(7200)));
    let billing = BodyHints { verdict: Some(Verdict::Exhausted), hints: Hints::default() };
    let signal = with_body(429, &[], billing);
    assert_eq!((signal.verdict, signal.hints.exhausted_for), (Verdict::Exhausted, None));
}

#[test]
fn rule_11_redirected_and_cached_answers_are_about_others() {
    let counters = [("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "0")];
    assert!(read(302, &counters).hints.readings.is_empty());
    let cached = [&counters[..], &[("age", "5")]].concat();
    assert!(read(200, &cached).hints.readings.is_empty());
    let fresh = [&counters[..], &[("age", "0")]].concat();
    assert_eq!(read(200, &fresh).hints.readings.as_slice().len(), 1);
}

#[test]
fn rule_12_counters_are_told_apart_by_policy_partition_bucket_and_resource() {
    let policy = |headers: &[(&str, &str)]| {
        let signal = read(200, headers);
        signal.hints.readings.as_slice()[0].policy
    };
    let left = ("x-ratelimit-remaining", "1");
    assert_ne!(policy(&[left, ("x-ratelimit-bucket", "a")]), policy(&[left, ("x-ratelimit-bucket", "b")]));
    assert_eq!(policy(&[left, ("x-ratelimit-bucket", "a")]), policy(&[left, ("x-ratelimit-bucket", "a")]));
    assert_ne!(policy(&[left, ("x-ratelimit-resource", "core")]), policy(&[left]));
    assert_ne!(policy(&[("ratelimit", r#""a";r=1"#)]), policy(&[("ratelimit", r#""b";r=1"#)]));
}

#[test]
fn a_status_or_a_field_of_ones_own_takes_three_lines() {
    let classifier = HttpClassifier::new().with(|result: Result<&Response<()>, &Infallible>| {
        let busy = result.ok().filter(|response| response.status() == 420)?;
        Some(Signal::new(Verdict::Throttled).retry_after(secs(busy.headers().len() as u64)))
    });
    let response = Response::builder().status(420).header("x-calm", "1").body(()).unwrap();
    let signal = classifier.classify(Ok::<_, &Infallible>(&response));
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, Some(secs(1))));
}
