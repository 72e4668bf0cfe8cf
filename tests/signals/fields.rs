//! Every family, with the text that it sends.

use super::{EPOCH, ms, numbers, one, read, read_dated, secs};
use tower_cooldown::signal::{Reading, Unit, Verdict};

fn wait(status: u16, headers: &[(&str, &str)]) -> Option<std::time::Duration> {
    read_dated(status, headers).hints.retry_after
}

#[test]
fn retry_after_in_seconds_and_in_the_three_forms_of_dates() {
    assert_eq!(wait(429, &[("retry-after", "120")]), Some(secs(120)));
    assert_eq!(wait(503, &[("retry-after", "0.5")]), Some(ms(500)));
    for date in
        ["Wed, 21 Oct 2015 07:28:30 GMT", "Wednesday, 21-Oct-15 07:28:30 GMT", "Wed Oct 21 07:28:30 2015"]
    {
        assert_eq!(wait(429, &[("retry-after", date)]), Some(secs(30)), "{date}");
    }
    for nothing in ["", "-5", "0", "soon"] {
        assert_eq!(wait(429, &[("retry-after", nothing)]), None, "{nothing}");
    }
}

#[test]
fn milliseconds_of_azure_cosmos_and_aws() {
    for name in ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after"] {
        assert_eq!(wait(429, &[(name, "1500")]), Some(ms(1500)), "{name}");
    }
}

#[test]
fn ietf_structured_fields() {
    let signal = read(
        200,
        &[
            ("ratelimit-policy", r#""burst";q=100;w=60,"daily";q=1000;w=86400"#),
            ("ratelimit", r#""burst";r=50;t=30"#),
        ],
    );
    assert_eq!(one(&signal), (Some(100), Some(50), Some(secs(30)), Some(secs(60))));
    // The drafts' own examples have a token for a name, and lists over several lines.
    let signal = read(
        200,
        &[
            ("ratelimit", "quota;r=5;t=10"),
            ("ratelimit", r#""other";r=0;t=99"#),
            ("ratelimit-policy", "quota;q=100"),
        ],
    );
    let readings = signal.hints.readings.as_slice();
    assert_eq!(numbers(&readings[0]), (Some(100), Some(5), Some(secs(10)), None));
    assert_eq!(numbers(&readings[1]), (None, Some(0), Some(secs(99)), None));
    assert_ne!(readings[0].policy, readings[1].policy);
}

#[test]
fn ietf_units_and_partitions() {
    let signal = read(
        200,
        &[
            ("ratelimit-policy", r#""bytes";q=65535;qu="content-bytes";w=10"#),
            ("ratelimit", r#""bytes";r=999;t=3;pk=:QUJD:"#),
        ],
    );
    assert_eq!(signal.hints.readings.as_slice()[0].remaining, Some(999));
    let partition = |pk| {
        let limit = format!(r#""a";r=1;pk=:{pk}:"#);
        read(200, &[("ratelimit", &limit)]).hints.readings.as_slice()[0].policy
    };
    assert_ne!(partition("QUJD"), partition("REVG"));
    let in_flight = read(
        429,
        &[
            ("ratelimit-policy", r#""flight";q=10;qu="concurrent-requests""#),
            ("ratelimit", r#""flight";r=0"#),
        ],
    );
    assert!(in_flight.hints.concurrency);
    assert_eq!(in_flight.hints.readings.as_slice()[0].unit, Unit::Other);
}

#[test]
fn ietf_drafts_03_to_07() {
    let draft_03 = read(
        200,
        &[("ratelimit-limit", "10, 10;w=1, 50;w=60"), ("ratelimit-remaining", "9"), ("ratelimit-reset", "1")],
    );
    assert_eq!(one(&draft_03), (Some(10), Some(9), Some(secs(1)), Some(secs(1))));
    let draft_06 = read(
        200,
        &[
            ("ratelimit-limit", "100"),
            ("ratelimit-policy", "100;w=10"),
            ("ratelimit-remaining", "50"),
            ("ratelimit-reset", "50"),
        ],
    );
    assert_eq!(one(&draft_06), (Some(100), Some(50), Some(secs(50)), Some(secs(10))));
    let draft_07 = read(200, &[("ratelimit", "limit=100, remaining=50, reset=5")]);
    assert_eq!(one(&draft_07), (Some(100), Some(50), Some(secs(5)), None));
}

#[test]
fn cloudflare() {
    let signal = read(
        429,
        &[
            ("ratelimit", r#""default";r=0;t=30"#),
            ("ratelimit-policy", r#""default";q=1200;w=300"#),
            ("retry-after", "300"),
        ],
    );
    assert_eq!(signal.hints.retry_after, Some(secs(300)));
    assert_eq!(one(&signal), (Some(1200), Some(0), Some(secs(30)), Some(secs(300))));
}

#[test]
fn github() {
    let reset = (EPOCH + 600).to_string();
    let headers = [
        ("x-ratelimit-limit", "5000"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-used", "5000"),
        ("x-ratelimit-reset", &reset),
        ("x-ratelimit-resource", "core"),
    ];
    let signal = read_dated(403, &headers);
    assert_eq!(signal.verdict, Verdict::Throttled);
    assert_eq!(signal.hints.retry_after, Some(secs(600)));
    assert_eq!(one(&signal), (Some(5000), Some(0), Some(secs(600)), None));
    let search = read_dated(200, &[headers[1], ("x-ratelimit-resource", "search")]);
    let policy = |signal: &tower_cooldown::signal::Signal| signal.hints.readings.as_slice()[0].policy;
    assert_ne!(policy(&signal), policy(&search));
    // The secondary limit: no counter, a blank or missing hint.
    assert_eq!(read_dated(403, &[("retry-after", "60")]).verdict, Verdict::Throttled);
    assert_eq!(read_dated(403, &[("x-ratelimit-remaining", "4999")]).verdict, Verdict::Refused);
    assert_eq!(read_dated(403, &[]).verdict, Verdict::Refused);
}

#[test]
fn gitlab() {
    let reset = (EPOCH + 30).to_string();
    let signal = read_dated(
        429,
        &[
            ("ratelimit-limit", "600"),
            ("ratelimit-observed", "601"),
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", &reset),
            ("ratelimit-resettime", "Wed, 21 Oct 2015 07:28:30 GMT"),
        ],
    );
    assert_eq!(one(&signal), (Some(600), Some(0), Some(secs(30)), None));
    assert_eq!(signal.hints.retry_after, Some(secs(30)));
}

#[test]
fn openai() {
    let signal = read(
        200,
        &[
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-limit-tokens", "30000"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-remaining-tokens", "29983"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ],
    );
    let get = |unit| signal.hints.readings.get(unit).map(numbers);
    assert_eq!(get(Unit::Requests), Some((Some(500), Some(499), Some(ms(120)), None)));
    assert_eq!(get(Unit::Tokens), Some((Some(30_000), Some(29_983), Some(secs(360)), None)));
    for (text, time) in [("1s", secs(1)), ("17ms", ms(17)), ("7.66s", ms(7660)), ("1m30.951s", ms(90_951))] {
        let signal =
            read(200, &[("x-ratelimit-remaining-requests", "1"), ("x-ratelimit-reset-requests", text)]);
        assert_eq!(one(&signal).2, Some(time), "{text}");
    }
}

#[test]
fn azure_openai() {
    let signal = read(
        429,
        &[
            ("retry-after-ms", "4200"),
            ("retry-after", "5"),
            ("x-ratelimit-remaining-tokens", "-1"),
            ("x-ratelimit-limit-tokens", "-1"),
            ("x-ratelimit-remaining-requests", "6"),
            ("x-ratelimit-reset-tokens", "54"),
        ],
    );
    assert_eq!(signal.hints.retry_after, Some(ms(4200)));
    assert!(signal.hints.readings.get(Unit::Tokens).is_none(), "-1 is not known");
    assert_eq!(signal.hints.readings.get(Unit::Requests).map(numbers), Some((None, Some(6), None, None)));
}

#[test]
fn anthropic() {
    let signal = read(
        200,
        &[
            ("date", "Wed, 25 Feb 2026 20:02:31 GMT"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-02-25T20:02:32Z"),
            ("anthropic-ratelimit-tokens-limit", "40000"),
            ("anthropic-ratelimit-tokens-remaining", "39000"),
            ("anthropic-ratelimit-tokens-reset", "2026-02-25T20:02:33Z"),
            ("anthropic-ratelimit-input-tokens-limit", "30000"),
            ("anthropic-ratelimit-input-tokens-remaining", "30000"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-02-25T20:02:31Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "8000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-02-25T20:02:31Z"),
        ],
    );
    let get = |unit| signal.hints.readings.get(unit).map(numbers);
    assert_eq!(get(Unit::Requests), Some((Some(50), Some(49), Some(secs(1)), None)));
    assert_eq!(get(Unit::Tokens), Some((Some(40_000), Some(39_000), Some(secs(2)), None)));
    assert_eq!(get(Unit::InputTokens), Some((Some(30_000), Some(30_000), Some(secs(0)), None)));
    assert_eq!(get(Unit::OutputTokens), Some((Some(8000), Some(8000), Some(secs(0)), None)));
    assert_eq!(read(529, &[]).verdict, Verdict::Overloaded);
}

#[test]
fn discord() {
    let headers = [
        ("x-ratelimit-limit", "10"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "1470173023.123"),
        ("x-ratelimit-reset-after", "64.57"),
        ("x-ratelimit-bucket", "abcd1234"),
    ];
    let signal = read(429, &headers);
    assert_eq!(one(&signal).2, Some(ms(64_570)), "the time from now is more exact");
    assert_eq!(signal.hints.retry_after, Some(ms(64_570)));
    let shared = read(
        429,
        &[
            ("x-ratelimit-limit", "10"),
            ("x-ratelimit-remaining", "9"),
            ("x-ratelimit-reset-after", "64.57"),
            ("x-ratelimit-scope", "shared"),
            ("retry-after", "300"),
        ],
    );
    assert_eq!(shared.hints.retry_after, Some(secs(300)));
    assert!(shared.hints.readings.is_empty(), "what others have used up is not ours");
}

#[test]
fn x_reddit_and_linear() {
    let reset = (EPOCH + 900).to_string();
    let x = read_dated(
        200,
        &[("x-rate-limit-limit", "15"), ("x-rate-limit-remaining", "14"), ("x-rate-limit-reset", &reset)],
    );
    assert_eq!(one(&x), (Some(15), Some(14), Some(secs(900)), None));
    let reddit = read(
        200,
        &[("x-ratelimit-used", "2"), ("x-ratelimit-remaining", "98.0"), ("x-ratelimit-reset", "300")],
    );
    assert_eq!(one(&reddit), (Some(100), Some(98), Some(secs(300)), None));
    let reset = format!("{}000", EPOCH + 60);
    let linear = read_dated(
        200,
        &[
            ("x-ratelimit-requests-limit", "1500"),
            ("x-ratelimit-requests-remaining", "1499"),
            ("x-ratelimit-requests-reset", &reset),
            ("x-ratelimit-complexity-limit", "250000"),
            ("x-ratelimit-complexity-remaining", "0"),
        ],
    );
    let get = |unit| linear.hints.readings.get(unit).map(numbers);
    assert_eq!(get(Unit::Requests), Some((Some(1500), Some(1499), Some(secs(60)), None)));
    assert!(linear.hints.readings.get(Unit::Other).is_some_and(Reading::is_exhausted));
}

#[test]
fn shopify() {
    let signal = read(200, &[("x-shopify-shop-api-call-limit", "32/40")]);
    assert_eq!(one(&signal), (Some(40), Some(8), None, None));
    let signal = read(429, &[("x-shopify-shop-api-call-limit", "40/40"), ("retry-after", "2.0")]);
    assert_eq!(signal.hints.retry_after, Some(secs(2)));
}

#[test]
fn hubspot() {
    let signal = read(
        200,
        &[
            ("x-hubspot-ratelimit-daily", "250000"),
            ("x-hubspot-ratelimit-daily-remaining", "249999"),
            ("x-hubspot-ratelimit-interval-milliseconds", "10000"),
            ("x-hubspot-ratelimit-max", "100"),
            ("x-hubspot-ratelimit-remaining", "99"),
        ],
    );
    let all: Vec<_> = signal.hints.readings.as_slice().iter().map(numbers).collect();
    assert_eq!(
        all,
        [
            (Some(250_000), Some(249_999), None, Some(secs(86_400))),
            (Some(100), Some(99), None, Some(secs(10))),
        ]
    );
    let spent =
        read(429, &[("x-hubspot-ratelimit-daily", "250000"), ("x-hubspot-ratelimit-daily-remaining", "0")]);
    assert_eq!(spent.verdict, Verdict::Exhausted);
}

#[test]
fn atlassian() {
    let signal = read_dated(
        429,
        &[
            ("retry-after", "5"),
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "2015-10-21T07:29Z"),
            ("x-ratelimit-nearlimit", "true"),
            ("ratelimit-reason", "jira-burst-based"),
        ],
    );
    assert_eq!(one(&signal), (Some(100), Some(0), Some(secs(60)), None));
    assert_eq!(signal.hints.retry_after, Some(secs(5)));
    let data_center = read(
        200,
        &[("x-ratelimit-remaining", "4"), ("x-ratelimit-limit", "5"), ("x-ratelimit-interval-seconds", "1")],
    );
    assert_eq!(one(&data_center), (Some(5), Some(4), None, Some(secs(1))));
}

#[test]
fn stripe() {
    let signal = read(429, &[("stripe-rate-limited-reason", "endpoint-concurrency")]);
    assert!(signal.hints.concurrency);
    assert!(!read(429, &[("stripe-rate-limited-reason", "global-rate")]).hints.concurrency);
    assert_eq!(read(429, &[("stripe-should-retry", "false")]).hints.should_retry, Some(false));
    assert_eq!(read(429, &[("x-should-retry", "true")]).hints.should_retry, Some(true));
}

#[test]
fn kong_and_vimeo() {
    let kong = read(
        200,
        &[
            ("x-ratelimit-limit-minute", "20"),
            ("x-ratelimit-remaining-minute", "19"),
            ("x-ratelimit-limit-hour", "500"),
            ("x-ratelimit-remaining-hour", "499"),
        ],
    );
    let all: Vec<_> = kong.hints.readings.as_slice().iter().map(numbers).collect();
    assert_eq!(
        all,
        [(Some(20), Some(19), None, Some(secs(60))), (Some(500), Some(499), None, Some(secs(3600)))]
    );
    let vimeo = read_dated(
        200,
        &[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "Wed, 21 Oct 2015 07:28:10 GMT")],
    );
    assert_eq!(one(&vimeo).2, Some(secs(10)));
}

#[test]
fn slack() {
    assert_eq!(wait(429, &[("retry-after", "30")]), Some(secs(30)));
}

#[test]
fn grpc() {
    let grpc = |headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/grpc+proto")];
        all.extend(headers);
        read(200, &all)
    };
    for (status, verdict) in [
        ("0", Verdict::Accepted),
        ("8", Verdict::Throttled),
        ("14", Verdict::Overloaded),
        ("13", Verdict::Failed),
        ("4", Verdict::Failed),
        ("3", Verdict::Refused),
        ("16", Verdict::Refused),
        ("x", Verdict::Failed),
    ] {
        assert_eq!(grpc(&[("grpc-status", status)]).verdict, verdict, "{status}");
    }
    assert_eq!(read(200, &[("grpc-status", "8")]).verdict, Verdict::Accepted, "not gRPC");
    let told = grpc(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", "1500")]);
    assert_eq!(told.hints.retry_after, Some(ms(1500)));
    let never = grpc(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", "-1")]);
    assert_eq!((never.hints.retry_after, never.hints.should_retry), (None, Some(false)));
}

#[test]
fn grpc_details() {
    let details = |value: &str| {
        read(
            200,
            &[("content-type", "application/grpc"), ("grpc-status", "8"), ("grpc-status-details-bin", value)],
        )
    };
    let wait = details(&details_bin(45, 500_000_000, None));
    assert_eq!(wait.hints.retry_after, Some(ms(45_500)));
    let daily = details(&details_bin(22, 0, Some("GenerateRequestsPerDayPerProject-FreeTier")));
    assert_eq!(daily.verdict, Verdict::Exhausted);
    let minute = details(&details_bin(22, 0, Some("GenerateRequestsPerMinute")));
    assert_eq!(minute.verdict, Verdict::Throttled);
}

/// A `google.rpc.Status` in base64, made by hand.
fn details_bin(seconds: u8, nanos: u32, quota: Option<&str>) -> String {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend(bytes);
        field
    }
    fn varint(mut number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }
    let any = |name: &str, message: Vec<u8>| {
        let name = format!("type.googleapis.com/google.rpc.{name}");
        field(3, &[field(1, name.as_bytes()), field(2, &message)].concat())
    };
    let duration = [vec![0x08, seconds, 0x10], varint(nanos)].concat();
    let mut status = vec![0x08, 8];
    status.extend(any("RetryInfo", field(1, &duration)));
    if let Some(quota) = quota {
        let violation = [field(1, b"project:1"), field(2, quota.as_bytes())].concat();
        status.extend(any("QuotaFailure", field(1, &violation)));
    }
    base64(&status)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63].into());
        }
    }
    text
}
