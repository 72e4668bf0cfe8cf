//! What bodies say: the texts that services send, as their documents and recorded answers have them.

#![cfg(feature = "body")]

use http::{HeaderMap, StatusCode};
use std::time::{Duration, SystemTime};
use tower_cooldown::{
    body_hints::read_body,
    signal::{BodyHints, DEFAULT_MAX_RETRY_AFTER, Reading, Unit, Verdict},
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads it at noon UTC on 24 November 2026: 20 hours before midnight in California.
fn read_with(status: u16, headers: &HeaderMap, body: &[u8]) -> Option<BodyHints> {
    let now = httpdate::parse_http_date("Tue, 24 Nov 2026 12:00:00 GMT").unwrap();
    read_body(StatusCode::from_u16(status).unwrap(), headers, body, now, DEFAULT_MAX_RETRY_AFTER)
}

fn read(status: u16, body: &str) -> BodyHints {
    read_with(status, &HeaderMap::new(), body.as_bytes()).unwrap_or_default()
}

/// The verdict, the wait in milliseconds, and the time in seconds until an exhausted quota is there again.
fn told(status: u16, body: &str) -> (Option<Verdict>, Option<u128>, Option<u64>) {
    let BodyHints { verdict, hints } = read(status, body);
    let wait = hints.retry_after.map(|wait| wait.as_millis());
    (verdict, wait, hints.exhausted_for.map(|time| time.as_secs()))
}

const NOTHING: (Option<Verdict>, Option<u128>, Option<u64>) = (None, None, None);

fn throttled(ms: u128) -> (Option<Verdict>, Option<u128>, Option<u64>) {
    (Some(Verdict::Throttled), Some(ms), None)
}

const THROTTLED: (Option<Verdict>, Option<u128>, Option<u64>) = (Some(Verdict::Throttled), None, None);
const EXHAUSTED: (Option<Verdict>, Option<u128>, Option<u64>) = (Some(Verdict::Exhausted), None, None);

fn gemini(quota_id: &str, value: &str, delay: &str) -> String {
    format!(
        r#"{{
  "error": {{
    "code": 429,
    "message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: {value}, model: gemini-2.5-flash\nPlease retry in {delay}.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
      {{
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{{"description": "Learn more about Gemini API quotas", "url": "https://ai.google.dev/gemini-api/docs/rate-limits"}}]
      }},
      {{
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
          {{
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "{quota_id}",
            "quotaDimensions": {{"location": "global", "model": "gemini-2.5-flash"}},
            "quotaValue": "{value}"
          }}
        ]
      }},
      {{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "{delay}"}}
    ]
  }}
}}"#
    )
}

const PER_MINUTE: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";
const PER_DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

fn only_reading(body: &BodyHints) -> Reading {
    let [reading] = body.hints.readings.as_slice() else { panic!("{body:?}") };
    *reading
}

#[test]
fn geminis_wait_to_the_nanosecond_and_its_limit() {
    let answer = read(429, &gemini(PER_MINUTE, "15", "45.837906927s"));
    assert_eq!(answer.verdict, Some(Verdict::Throttled));
    assert_eq!(answer.hints.retry_after, Some(Duration::new(45, 837_906_927)));
    assert_eq!(answer.hints.exhausted_for, None);
    let reading = only_reading(&answer);
    assert_eq!((reading.unit, reading.limit, reading.window), (Unit::Requests, Some(15), Some(MINUTE)));
    assert_eq!((reading.remaining, reading.reset), (None, None));
    assert_ne!(reading.policy, 0);

    // A stream that fails at once is a list of one.
    let list = format!("[{}]", gemini(PER_MINUTE, "15", "45.837906927s"));
    assert_eq!(read(429, &list), answer);
}

#[test]
fn geminis_wait_in_words_only() {
    let body = r#"{"error": {"code": 429, "message": "You exceeded your current quota. Please retry in 26.66s.", "status": "RESOURCE_EXHAUSTED"}}"#;
    assert_eq!(told(429, body), throttled(26_660));
    // From an early version of the API, and from Vertex: nothing but a status.
    let body = r#"{"error": {"code": 429, "message": "Resource has been exhausted (e.g. check quota).", "status": "RESOURCE_EXHAUSTED"}}"#;
    assert_eq!(told(429, body), THROTTLED);
}

#[test]
fn twenty_six_seconds_are_not_until_midnight() {
    let answer = read(429, &gemini(PER_DAY, "20", "26.211922938s"));
    assert_eq!(answer.verdict, Some(Verdict::Exhausted));
    assert_eq!(answer.hints.exhausted_for, Some(Duration::from_secs(20 * 3600)));
    assert_eq!(answer.hints.retry_after, Some(DEFAULT_MAX_RETRY_AFTER));
    assert_eq!(only_reading(&answer).window, Some(DAY));

    // By the server's clock, where it tells it.
    let headers =
        HeaderMap::from_iter([(http::header::DATE, "Wed, 25 Nov 2026 07:59:00 GMT".parse().unwrap())]);
    let answer = read_with(429, &headers, gemini(PER_DAY, "20", "26s").as_bytes()).unwrap();
    assert_eq!(answer.hints.exhausted_for, Some(MINUTE));
    assert_eq!(answer.hints.retry_after, Some(MINUTE));
}

#[test]
fn several_violations_at_once_and_the_longest_window_decides() {
    let body = r#"{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
            {"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_input_token_count", "quotaId": "GenerateContentInputTokensPerModelPerMinute-FreeTier", "quotaValue": "250000"},
            {"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests", "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "10"},
            {"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests", "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "22s"}]}}"#;
    let answer = read(429, body);
    assert_eq!(answer.verdict, Some(Verdict::Exhausted));
    assert_eq!(answer.hints.exhausted_for, Some(Duration::from_secs(20 * 3600)));
    let readings = answer.hints.readings;
    assert_eq!(readings.get(Unit::InputTokens).unwrap().limit, Some(250_000));
    assert_eq!(readings.get(Unit::Requests).unwrap().limit, Some(10));
    assert_eq!(readings.as_slice().len(), 2);
}

#[test]
fn a_limit_of_zero_is_a_model_that_is_not_offered() {
    assert_eq!(told(429, &gemini(PER_MINUTE, "0", "45.578569677s")), EXHAUSTED);
    assert_eq!(told(429, &gemini(PER_DAY, "0", "22s")), EXHAUSTED);
    let in_words = r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-3-pro\nPlease retry in 45.578569677s."}}"#;
    assert_eq!(told(429, in_words), EXHAUSTED);
    assert_eq!(told(429, &in_words.replace("limit: 0,", "limit: 05,")).0, Some(Verdict::Throttled));
}

#[test]
fn googles_other_services() {
    let body = r#"{"error": {"code": 429, "message": "Quota exceeded for quota metric 'Read requests' and limit 'Read requests per minute per user' of service 'sheets.googleapis.com' for consumer 'project_number:1'.", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com", "metadata": {"service": "sheets.googleapis.com", "quota_limit": "ReadRequestsPerMinutePerUser", "quota_limit_value": "60", "consumer": "projects/1"}}]}}"#;
    let answer = read(429, body);
    assert_eq!(answer.verdict, Some(Verdict::Throttled));
    let reading = only_reading(&answer);
    assert_eq!((reading.limit, reading.window), (Some(60), Some(MINUTE)));

    let old = r#"{"error": {"errors": [{"domain": "usageLimits", "reason": "userRateLimitExceeded", "message": "User Rate Limit Exceeded"}], "code": 403, "message": "User Rate Limit Exceeded"}}"#;
    assert_eq!(told(403, old), THROTTLED);
    let daily = old.replace("userRateLimitExceeded", "dailyLimitExceeded");
    assert_eq!(told(403, &daily), (Some(Verdict::Exhausted), Some(600_000), Some(20 * 3600)));
    assert_eq!(told(403, &old.replace("userRateLimitExceeded", "insufficientPermissions")), NOTHING);

    // Code Assist, of which a client was locked out for hours: what it says is true there.
    let body = r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You have exhausted your capacity on this model. Your quota will reset after 13h43m.", "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "QUOTA_EXHAUSTED", "domain": "cloudcode-pa.googleapis.com", "metadata": {"quotaResetDelay": "13h43m1.5s"}},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "49381.5s"}]}}"#;
    assert_eq!(told(429, body), (Some(Verdict::Exhausted), Some(600_000), Some(49_381)));
}

#[test]
fn openais_spent_balance_is_not_waited_for() {
    let body = r#"{
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        "type": "insufficient_quota",
        "param": null,
        "code": "insufficient_quota"
    }
}"#;
    assert_eq!(told(429, body), EXHAUSTED);
}

#[test]
fn openais_wait_and_its_counter() {
    let body = |rest: &str| {
        format!(
            r#"{{"error": {{"message": "Rate limit reached for gpt-4 in organization org-x on {rest} Visit https://platform.openai.com/account/rate-limits to learn more.", "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}}}"#
        )
    };
    let tokens =
        body("tokens per min (TPM): Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s.");
    assert_eq!(told(429, &tokens), throttled(9_816));
    let reading = only_reading(&read(429, &tokens));
    assert_eq!((reading.unit, reading.limit, reading.remaining), (Unit::Tokens, Some(10_000), Some(1_446)));

    let requests =
        body("requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in 120ms.");
    assert_eq!(told(429, &requests), throttled(120));
    assert_eq!(only_reading(&read(429, &requests)).remaining, Some(0));

    for (words, ms) in [("20ms", 20), ("6m0s", 360_000), ("1.5s", 1_500), ("7m12s", 432_000)] {
        assert_eq!(told(429, &body(&format!("tokens per min. Please try again in {words}."))), throttled(ms));
    }
    // By day, as a bucket that is filled again little by little: the wait is honest. Without one it is spent.
    let daily = body("requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.");
    assert_eq!(told(429, &daily), throttled(432_000));
    let daily = body("requests per day (RPD): Limit 200, Used 200, Requested 1.");
    assert_eq!(told(429, &daily), EXHAUSTED);
    let long = body(
        "tokens per day (TPD): Limit 100000, Used 99950, Requested 3000. Please try again in 42m30.528s.",
    );
    assert_eq!(told(429, &long), (Some(Verdict::Exhausted), Some(600_000), Some(2_550)));
}

#[test]
fn a_request_for_more_than_the_whole_quota_is_refused_for_good() {
    let body = r#"{"error": {"message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 30601. The input or output tokens must be reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more.", "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}"#;
    let answer = read(429, body);
    assert_eq!(answer.verdict, Some(Verdict::Refused));
    assert_eq!(answer.hints.retry_after, None);
    assert_eq!(only_reading(&answer).limit, Some(30_000));
}

#[test]
fn azure_in_words() {
    let body = |seconds: u32| {
        format!(
            r#"{{"error":{{"code":"429","message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2023-05-15 have exceeded token rate limit of your current AIServices S0 pricing tier. Please retry after {seconds} seconds. Please contact Azure support service if you would like to further increase the default rate limit."}}}}"#
        )
    };
    assert_eq!(told(429, &body(3)), (None, Some(3_000), None));
    assert_eq!(told(429, &body(86_400)), (Some(Verdict::Exhausted), Some(600_000), Some(86_400)));
    let gateway = r#"{ "statusCode": 429, "message": "Rate limit is exceeded. Try again in 30 seconds." }"#;
    assert_eq!(told(429, gateway), (None, Some(30_000), None));
}

#[test]
fn anthropics_types() {
    let body = |name: &str, message: &str| {
        format!(
            r#"{{"type":"error","error":{{"type":"{name}","message":"{message}"}},"request_id":"req_1"}}"#
        )
    };
    let limit =
        "This request would exceed the rate limit for your organization of 20,000 input tokens per minute.";
    assert_eq!(told(429, &body("rate_limit_error", limit)), THROTTLED);
    // Overload is no quota, whatever the status.
    let overloaded = (Some(Verdict::Overloaded), None, None);
    assert_eq!(told(429, &body("overloaded_error", "Overloaded")), overloaded);
    assert_eq!(told(529, &body("overloaded_error", "Overloaded")), overloaded);
    let spent = "Your credit balance is too low to access the Anthropic API.";
    assert_eq!(told(400, &body("invalid_request_error", spent)), EXHAUSTED);
    assert_eq!(told(400, &body("invalid_request_error", "max_tokens: Field required")), NOTHING);
}

#[test]
fn every_name_that_aws_has_for_throttling() {
    for name in [
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottledException",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "TransactionInProgressException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "RequestThrottled",
        "SlowDown",
        "PriorRequestNotComplete",
        "EC2ThrottledException",
    ] {
        let json =
            format!(r#"{{"__type":"com.amazonaws.kinesis.v20131202#{name}","message":"Rate exceeded"}}"#);
        let code = format!(r#"{{"code":"{name}","message":"Rate exceeded"}}"#);
        let inner = format!(r#"{{"Error":{{"Code":"{name}","Message":"Rate exceeded"}}}}"#);
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{name}</Code><Message>Please reduce your request rate.</Message><RequestId>1</RequestId></Error>"
        );
        let query = format!(
            "<ErrorResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\">\n  <Error>\n    <Type>Sender</Type>\n    <Code>{name}</Code>\n    <Message>Rate exceeded</Message>\n  </Error>\n</ErrorResponse>"
        );
        for body in [json, code, inner, xml, query] {
            assert_eq!(told(400, &body), THROTTLED, "{body}");
            assert_eq!(told(503, &body), THROTTLED, "{body}");
        }
        // Services that speak REST and JSON put it into the head.
        let value = format!("{name}:http://internal.amazon.com/coral/com.amazon.coral.availability/");
        let headers = HeaderMap::from_iter([("x-amzn-errortype".parse().unwrap(), value.parse().unwrap())]);
        let answer = read_with(400, &headers, br#"{"message":"Rate exceeded"}"#).unwrap();
        assert_eq!(answer.verdict, Some(Verdict::Throttled));
    }
    for body in [
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"Requested resource not found"}"#,
        r#"{"__type":"ValidationException"}"#,
        "<Error><Code>NoSuchKey</Code></Error>",
        "<Error><Code></Code></Error>",
        "<Error><Code",
    ] {
        assert_eq!(told(400, body), NOTHING, "{body}");
    }
    let lambda = r#"{"Reason":"ConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#;
    assert!(read(429, lambda).hints.concurrency);
}

const SHOPIFY: &str = r#"{
  "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED", "documentation": "https://shopify.dev/api/usage/rate-limits"}}],
  "extensions": {"cost": {"requestedQueryCost": 70, "actualQueryCost": null,
    "throttleStatus": {"maximumAvailable": 1000, "currentlyAvailable": 66, "restoreRate": 50}}}
}"#;

#[test]
fn shopifys_bucket_says_when_the_query_passes() {
    assert_eq!(told(200, SHOPIFY), throttled(80));
    let reading = only_reading(&read(200, SHOPIFY));
    assert_eq!((reading.unit, reading.limit, reading.remaining), (Unit::Other, Some(1000), Some(66)));
    assert_eq!(reading.reset, Some(Duration::from_millis(18_680)));
    assert_eq!(reading.window, Some(Duration::from_secs(20)));

    // Before the codes were introduced; floats.
    let old = r#"{"errors":[{"message":"Throttled"}],"extensions":{"cost":{"requestedQueryCost":202,"actualQueryCost":null,"throttleStatus":{"maximumAvailable":1000.0,"currentlyAvailable":118,"restoreRate":50.0}}}}"#;
    assert_eq!(told(200, old), throttled(1_680));
    assert_eq!(told(429, old), throttled(1_680));

    // More than the bucket ever holds.
    let never = SHOPIFY.replace("70", "1001");
    assert_eq!(told(200, &never), (Some(Verdict::Refused), None, None));

    // A success says where the bucket stands, and nothing else.
    let served = r#"{"data":{"shop":{"name":"x"}},"extensions":{"cost":{"requestedQueryCost":101,"actualQueryCost":46,"throttleStatus":{"maximumAvailable":1000,"currentlyAvailable":954,"restoreRate":50}}}}"#;
    assert_eq!(told(200, served), NOTHING);
    assert_eq!(only_reading(&read(200, served)).remaining, Some(954));
    for (from, to) in [("50}", "0}"), ("50}", "-1}"), ("1000,", "0,"), ("954", "null"), ("1000,", "\"x\",")] {
        assert_eq!(read(200, &served.replace(from, to)), BodyHints::default(), "{to}");
    }
}

#[test]
fn graphql_in_a_success_and_in_a_bad_request() {
    let github = r#"{"errors":[{"type":"RATE_LIMITED","message":"API rate limit exceeded for user ID 1."}]}"#;
    assert_eq!(told(200, github), THROTTLED);
    let since_2025 = r#"{"errors":[{"type":"RATE_LIMIT","code":"graphql_rate_limit","message":"API rate limit already exceeded for user ID 1."}]}"#;
    assert_eq!(told(200, since_2025), THROTTLED);
    let linear = r#"{"errors":[{"message":"Rate limit exceeded","extensions":{"type":"ratelimited","code":"RATELIMITED","statusCode":429,"userError":true}}]}"#;
    assert_eq!(told(400, linear), THROTTLED);
    let apollo =
        r#"{"errors":[{"message":"Too many requests","extensions":{"code":"RATE_LIMITED"}}],"data":null}"#;
    assert_eq!(told(200, apollo), THROTTLED);

    for other in [
        r#"{"errors":[{"message":"Query cost is 1002, which exceeds the single query max cost limit (1000).","extensions":{"code":"MAX_COST_EXCEEDED","cost":1002,"maxCost":1000}}]}"#,
        r#"{"errors":[{"message":"syntax error","extensions":{"code":"GRAPHQL_PARSE_FAILED"}}]}"#,
        r#"{"data":{"code":"THROTTLED"}}"#,
        // The caller's own data may have such words, and waits.
        r#"{"type":"throttled","retry_after":30,"message":"try again in 5s"}"#,
        r#"{"errors":[]}"#,
        r#"{"errors":{"code":"RATE_LIMITED"}}"#,
    ] {
        assert_eq!(told(200, other), NOTHING, "{other}");
    }
}

#[test]
fn githubs_refusals_by_403() {
    let secondary = r#"{"documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits", "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}"#;
    assert_eq!(told(403, secondary), throttled(60_000));
    let primary = r#"{"message": "API rate limit exceeded for xxx.xxx.xxx.xxx. (But here's the good news: Authenticated requests get a higher rate limit.)", "documentation_url": "https://docs.github.com/rest/overview/resources-in-the-rest-api#rate-limiting"}"#;
    assert_eq!(told(403, primary), THROTTLED);
    let forbidden = r#"{"message": "Resource not accessible by integration", "documentation_url": "https://docs.github.com/rest"}"#;
    assert_eq!(told(403, forbidden), NOTHING);
}

#[test]
fn the_problem_types_of_the_ratelimit_draft() {
    let problem = |name: &str, policies: &str| {
        format!(
            r#"{{"type": "https://iana.org/assignments/http-problem-types#{name}", "title": "Request cannot be satisfied as assigned quota has been exceeded"{policies}}}"#
        )
    };
    let bandwidth = problem("quota-exceeded", r#", "violated-policies": ["burst", "bandwidth"]"#);
    assert_eq!(told(429, &bandwidth), THROTTLED);
    let readings = read(429, &bandwidth).hints.readings;
    assert_eq!(readings.as_slice().len(), 2);
    assert!(readings.as_slice().iter().all(Reading::is_exhausted));
    assert_ne!(readings.as_slice()[0].policy, readings.as_slice()[1].policy);

    let daily = problem("quota-exceeded", r#", "violated-policies": ["daily","bandwidth"]"#);
    assert_eq!(told(429, &daily), EXHAUSTED);
    let reduced = problem("temporary-reduced-capacity", "");
    assert_eq!(told(503, &reduced), (Some(Verdict::Overloaded), None, None));
    assert_eq!(
        told(429, &problem("abnormal-usage-detected", r#", "violated-policies": ["hourly"]"#)),
        THROTTLED
    );
    assert_eq!(told(400, &problem("out-of-credit", "")), NOTHING);
    let many = problem("quota-exceeded", r#", "violated-policies": ["a","b","c","d","e",6]"#);
    assert_eq!(read(429, &many).hints.readings.as_slice().len(), 4);
}

#[test]
fn waits_in_a_field_of_their_own() {
    let discord = r#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#;
    assert_eq!(told(429, discord), (None, Some(64_570), None));
    let long = r#"{"message": "You are being rate limited.", "retry_after": 1336.57, "global": true}"#;
    assert_eq!(told(429, long), (Some(Verdict::Exhausted), Some(600_000), Some(1_336)));
    let telegram = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 14","parameters":{"retry_after":14}}"#;
    assert_eq!(told(429, telegram), (None, Some(14_000), None));
    let matrix = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":2000}"#;
    assert_eq!(told(429, matrix), throttled(2_000));
    let slack = r#"{"ok":false,"error":"ratelimited"}"#;
    assert_eq!(told(200, slack), THROTTLED);
}

#[test]
fn hubspots_policies() {
    let body = |policy: &str| {
        format!(
            r#"{{"status": "error", "message": "You have reached your {policy} limit.", "errorType": "RATE_LIMIT", "correlationId": "c033cdaa-2c40-4a64-ae48-b4cec88dad24", "policyName": "{policy}", "requestId": "3d3e35b7-0dae-4b9f-a6e3-9c230cbcf8dd"}}"#
        )
    };
    // Midnight in the account's time zone, which it does not say.
    assert_eq!(told(429, &body("DAILY")), EXHAUSTED);
    assert_eq!(told(429, &body("SECONDLY")), THROTTLED);
    assert_eq!(told(429, &body("TEN_SECONDLY_ROLLING")), THROTTLED);
}

#[test]
fn numbers_that_make_no_sense_are_ignored() {
    for delay in ["-5s", "0s", "NaN", "infs", "1e9s", "", "s", "99999999999999999999999s", "5"] {
        let body = format!(
            r#"{{"error":{{"details":[{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}]}}}}"#
        );
        assert_eq!(told(429, &body), NOTHING, "{delay}");
    }
    for number in ["-1", "0", "null", "\"soon\"", "[]", "1e300", "true", "-0.5"] {
        assert_eq!(told(429, &format!(r#"{{"retry_after":{number}}}"#)), NOTHING, "{number}");
    }
    // A time that is too long is still a time, but not for ever.
    let leap_year = 366 * 24 * 3600;
    assert_eq!(
        told(429, r#"{"retry_after":8000000000}"#),
        (Some(Verdict::Exhausted), Some(600_000), Some(leap_year))
    );
}

#[test]
fn what_is_not_understood_says_nothing() {
    let whole = gemini(PER_MINUTE, "15", "45.837906927s");
    for end in 0..whole.len() {
        assert_eq!(told(429, &whole[..end]), NOTHING, "cut off at {end}");
    }
    let deep = "[".repeat(30_000);
    let deeper = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    for body in
        ["", " ", "null", "429", "\"x\"", "[]", "{}", "Too Many Requests", "<", "<html>", &deep, &deeper]
    {
        assert_eq!(told(429, body), NOTHING, "{body:.20}");
    }
    for body in [&b"{\"retry_after\":\xff}"[..], b"{\"message\":\"\xff\xfe try again in 5s\"}", b"\xff\xfe{}"]
    {
        assert_eq!(read_with(429, &HeaderMap::new(), body), None);
    }
    // A byte order mark is no part of the text.
    let marked = b"\xef\xbb\xbf {\"retry_after\":5}";
    assert!(read_with(429, &HeaderMap::new(), marked).is_some());
}

#[test]
fn a_cap_of_zero_ignores_waits() {
    let body = gemini(PER_MINUTE, "15", "45.837906927s");
    let read = |max| {
        let (status, headers) = (StatusCode::TOO_MANY_REQUESTS, HeaderMap::new());
        read_body(status, &headers, body.as_bytes(), SystemTime::now(), max).unwrap()
    };
    assert_eq!(read(Duration::ZERO).hints.retry_after, None);
    assert_eq!(read(Duration::ZERO).verdict, Some(Verdict::Throttled));
    assert_eq!(read(Duration::from_secs(45)).verdict, Some(Verdict::Exhausted));
    assert_eq!(read(Duration::from_secs(46)).verdict, Some(Verdict::Throttled));
}

/// The fuzz target `bodies`, for a moment and without the fuzzer: true bodies, damaged at random.
#[test]
fn damaged_bodies_neither_panic_nor_break_the_caps() {
    let seed: u64 = 20_261_124;
    let mut state = seed;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let texts = [
        gemini(PER_DAY, "20", "26.2s"),
        gemini(PER_MINUTE, "15", "45.837906927s"),
        SHOPIFY.to_owned(),
        r#"{"error":{"message":"on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s.","code":"rate_limit_exceeded"}}"#.to_owned(),
        r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":["daily"],"retry_after":64.57}"#.to_owned(),
        "<Error><Code>SlowDown</Code></Error>".to_owned(),
    ];
    let mut understood = 0;
    for round in 0..20_000 {
        let mut body = texts[below(texts.len())].clone().into_bytes();
        for _ in 0..=below(4) {
            if body.is_empty() {
                break;
            }
            let at = below(body.len());
            match below(4) {
                0 => body[at] = below(256) as u8,
                1 => body[at] = b"0123456789-.\"{}[],:eE"[below(21)],
                2 => {
                    body.remove(at);
                }
                _ => body.truncate(at.max(1)),
            }
        }
        let status = [200, 400, 403, 429, 503, 529][below(6)];
        let Some(BodyHints { verdict, hints }) = read_with(status, &HeaderMap::new(), &body) else {
            continue;
        };
        understood += 1;
        let in_bounds = |time: Option<Duration>, max| time.is_none_or(|time| !time.is_zero() && time <= max);
        assert!(
            in_bounds(hints.retry_after, DEFAULT_MAX_RETRY_AFTER),
            "seed {seed}, round {round}: {hints:?}"
        );
        assert!(in_bounds(hints.exhausted_for, 366 * DAY), "seed {seed}, round {round}: {hints:?}");
        assert!(
            hints.exhausted_for.is_none() || verdict == Some(Verdict::Exhausted),
            "seed {seed}, round {round}"
        );
    }
    assert!(understood > 2_000, "{understood}");
}
