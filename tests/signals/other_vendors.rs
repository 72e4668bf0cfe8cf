//! Those that tell their limits in ways of their own, and those that are told by a code and not by a status.

use super::{answer, ms, one_reading, secs, told};
use tower_cooldown::signal::{Unit, Verdict};

#[test]
fn aws_tells_throttling_by_a_code_under_any_status() {
    for code in [
        "ThrottlingException",
        "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/",
        "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    ] {
        let signal = answer(400, &format!("x-amzn-errortype: {code}\nx-amz-retry-after: 1500"));
        assert_eq!(
            (signal.verdict, signal.hints.retry_after),
            (Verdict::Throttled, Some(ms(1500))),
            "{code}"
        );
    }
    assert_eq!(answer(503, "x-amzn-errortype: SlowDown").verdict, Verdict::Throttled);
    assert_eq!(answer(400, "x-amzn-errortype: ValidationException").verdict, Verdict::Refused);
    assert_eq!(answer(200, "x-amzn-errortype: ThrottlingException").verdict, Verdict::Accepted);
}

#[test]
fn envoy_marks_what_its_limiter_refused() {
    assert_eq!(answer(503, "x-envoy-ratelimited: true").verdict, Verdict::Throttled);
    let grpc = "content-type: application/grpc\ngrpc-status: 14";
    assert_eq!(answer(200, grpc).verdict, Verdict::Overloaded);
    assert_eq!(answer(200, &format!("{grpc}\nx-envoy-ratelimited: true")).verdict, Verdict::Throttled);
    // Its fields are those of the draft 03, with an X before them.
    let signal = answer(
        200,
        r#"x-ratelimit-limit: 10, 10;w=1;name="per-ip", 1000;w=3600
           x-ratelimit-remaining: 9
           x-ratelimit-reset: 1"#,
    );
    assert_eq!(told(&signal), [(Unit::Requests, (Some(10), Some(9), Some(secs(1)), Some(secs(1))))]);
}

#[test]
fn riot_tells_pairs_of_calls_and_seconds() {
    let signal = answer(
        200,
        "X-App-Rate-Limit: 20:1,100:120
         X-App-Rate-Limit-Count: 1:1,98:120
         X-Method-Rate-Limit: 2000:60
         X-Method-Rate-Limit-Count: 15:60",
    );
    assert_eq!(
        told(&signal),
        [
            (Unit::Requests, (Some(20), Some(19), None, Some(secs(1)))),
            (Unit::Requests, (Some(100), Some(2), None, Some(secs(120)))),
            (Unit::Requests, (Some(2000), Some(1985), None, Some(secs(60)))),
        ]
    );
    let mut keys: Vec<_> = signal.hints.readings.into_iter().map(|reading| reading.policy).collect();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    assert_eq!(
        told(&answer(200, "App-Rate-Limit: 10:10,100:120\nApp-Rate-Limit-Count: 1:10,1:120")).len(),
        2
    );
    for junk in ["20", ":", "20:1:3,,", "a:b", "-1:5", "0:0"] {
        let signal = answer(200, &format!("X-App-Rate-Limit: {junk}\nX-App-Rate-Limit-Count: {junk}"));
        assert!(told(&signal).iter().all(|(_, numbers)| numbers.0 == Some(20)), "{junk}");
    }
}

#[test]
fn basecamp_tells_it_in_json() {
    let signal = answer(
        200,
        r#"date: Fri, 10 Feb 2017 18:52:40 GMT
           X-RateLimit: {"name":"General API limit by IP","period":10,"limit":50,"remaining":49,"until":"2017-02-10T18:52:47Z"}"#,
    );
    assert_eq!(told(&signal), [(Unit::Requests, (Some(50), Some(49), Some(secs(7)), Some(secs(10))))]);
    for junk in
        ["{", r#"{"limit""#, r#"{"limit":"#, r#"{"limit":"x","remaining":-1}"#, "nothing", r#""limit":1e9"#]
    {
        assert!(answer(200, &format!("X-RateLimit: {junk}")).hints.readings.is_empty(), "{junk}");
    }
}

#[test]
fn akamai_tells_when_the_next_call_may_come() {
    let signal = answer(
        429,
        "date: Mon, 22 Jul 2024 06:23:30 GMT
         X-RateLimit-Limit: 100
         X-RateLimit-Remaining: 0
         X-RateLimit-Next: 2024-07-22T06:23:37.255Z",
    );
    assert_eq!(signal.hints.retry_after, Some(ms(7255)));
}

#[test]
fn mailerlite_tells_the_wait_under_a_name_of_its_own() {
    let fields = "x-ratelimit-limit: 60\nx-ratelimit-remaining: 0\nx-ratelimit-retry-after: 17";
    assert_eq!(answer(429, fields).hints.retry_after, Some(secs(17)));
    assert_eq!(answer(429, &format!("{fields}\nretry-after: 5")).hints.retry_after, Some(secs(5)));
}

#[test]
fn high_level_tells_the_day_and_an_interval() {
    let signal = answer(
        200,
        "X-RateLimit-Limit-Daily: 200000
         X-RateLimit-Daily-Remaining: 199999
         X-RateLimit-Interval-Milliseconds: 10000
         X-RateLimit-Max: 100
         X-RateLimit-Remaining: 99",
    );
    assert_eq!(
        told(&signal),
        [
            (Unit::Requests, (Some(200_000), Some(199_999), None, Some(secs(86_400)))),
            (Unit::Requests, (Some(100), Some(99), None, Some(secs(10)))),
        ]
    );
}

#[test]
fn opik_tells_the_reset_in_milliseconds_from_now() {
    let signal = answer(
        429,
        "ratelimit-reset: 53
         opik-get-spans-limit: get-spans
         opik-get-spans-remaining-limit: 0
         opik-get-spans-remaining-limit-ttl-millis: 53907",
    );
    assert_eq!(told(&signal), [(Unit::Requests, (None, Some(0), Some(ms(53_907)), None))]);
    assert_eq!(signal.hints.retry_after, Some(ms(53_907)));
    let key = |name| one_reading(&answer(200, &format!("opik-{name}-remaining-limit: 5"))).policy;
    assert_ne!(key("get-spans"), key("get-traces"));
}

/// So that a counter is the same whether an answer has it under the one name or the other.
#[test]
fn a_counter_that_is_named_by_its_unit_alone_has_no_other_name() {
    for name in ["x-ratelimit-remaining", "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"] {
        assert_eq!(one_reading(&answer(200, &format!("{name}: 5"))).policy, 0, "{name}");
    }
    assert_ne!(one_reading(&answer(200, "x-ratelimit-remaining-project-tokens: 5")).policy, 0);
}

#[test]
fn jira_that_lets_nobody_in_is_not_waited_for() {
    let signal = answer(
        429,
        "X-RateLimit-Limit: 0
         X-RateLimit-Remaining: 0
         X-RateLimit-FillRate: 0
         Retry-After: 9223372036854775807",
    );
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Exhausted, Some(secs(600))));
    assert_eq!(signal.hints.exhausted_for, Some(secs(366 * 86_400)));
    assert!(signal.hints.readings.is_empty());
}

#[test]
fn jira_data_center_gives_back_a_part_of_the_limit_per_interval() {
    let signal = answer(
        200,
        "X-RateLimit-Limit: 50
         X-RateLimit-Remaining: 49
         X-RateLimit-FillRate: 10
         X-RateLimit-Interval-Seconds: 60",
    );
    assert_eq!(told(&signal), [(Unit::Requests, (Some(50), Some(49), None, Some(secs(300))))]);
}

#[test]
fn cerebras_and_others_name_the_period_behind_the_unit() {
    let signal = answer(
        200,
        "x-ratelimit-limit-requests-day: 14400
         x-ratelimit-remaining-requests-day: 14399
         x-ratelimit-reset-requests-day: 33011.382867
         x-ratelimit-limit-tokens-minute: 60000
         x-ratelimit-remaining-tokens-minute: 59000
         x-ratelimit-reset-tokens-minute: 11.382867",
    );
    let day = std::time::Duration::new(33_011, 382_867_000);
    let minute = std::time::Duration::new(11, 382_867_000);
    assert_eq!(
        told(&signal),
        [
            (Unit::Requests, (Some(14_400), Some(14_399), Some(day), Some(secs(86_400)))),
            (Unit::Tokens, (Some(60_000), Some(59_000), Some(minute), Some(secs(60)))),
        ]
    );
}

#[test]
fn x_tells_the_users_day_and_the_apps_apart() {
    let signal = answer(
        200,
        "x-user-limit-24hour-limit: 100
         x-user-limit-24hour-remaining: 99
         x-app-limit-24hour-limit: 100
         x-app-limit-24hour-remaining: 0",
    );
    let day = Some(secs(86_400));
    assert_eq!(
        told(&signal),
        [
            (Unit::Requests, (Some(100), Some(99), None, day)),
            (Unit::Requests, (Some(100), Some(0), None, day)),
        ]
    );
    let [user, app] = signal.hints.readings.as_slice() else { panic!("{signal:?}") };
    assert_ne!(user.policy, app.policy);
}

#[test]
fn gitlab_names_its_limits() {
    let key =
        |name| one_reading(&answer(200, &format!("RateLimit-Remaining: 3\nRateLimit-Name: {name}"))).policy;
    assert_ne!(key("throttle_authenticated_web"), key("throttle_authenticated_api"));
}

#[test]
fn of_more_counters_than_are_kept_the_tightest_stay() {
    let signal = answer(
        429,
        "X-RateLimit-Remaining-Second: 5
         X-RateLimit-Remaining-Minute: 50
         X-RateLimit-Remaining-Hour: 500
         X-RateLimit-Remaining-Day: 5000
         X-RateLimit-Remaining-Month: 0",
    );
    let left: Vec<_> = told(&signal).into_iter().filter_map(|(_, numbers)| numbers.1).collect();
    assert_eq!(left, [5, 50, 500, 0]);
    assert_eq!(signal.verdict, Verdict::Exhausted);
}
