//! `RateLimit` and `RateLimit-Policy`, strictly by the drafts.

use super::{answer, one_reading as one, secs, told};
use tower_cooldown::signal::{Unit, Verdict};

#[test]
fn the_present_draft_names_its_policies() {
    let signal = answer(
        200,
        r#"RateLimit-Policy: "burst";q=100;w=60,"daily";q=1000;w=86400
           RateLimit: "burst";r=50;t=30"#,
    );
    assert_eq!(
        told(&signal),
        [(Unit::Requests, (Some(100), Some(50), Some(secs(30)), Some(secs(60))))],
        "a policy of which nothing is told stands nowhere"
    );
}

#[test]
fn a_limit_without_its_policy_is_read_alone() {
    let signal = answer(200, r#"RateLimit: "default";r=50;t=30"#);
    assert_eq!(told(&signal), [(Unit::Requests, (None, Some(50), Some(secs(30)), None))]);
    let signal = answer(200, r#"RateLimit: default;r=50"#);
    assert_eq!(told(&signal), [(Unit::Requests, (None, Some(50), None, None))]);
}

#[test]
fn lists_may_be_spread_over_lines() {
    let signal = answer(
        429,
        r#"RateLimit-Policy: "burst";q=100;w=60
           RateLimit-Policy: "hour";q=500;w=3600
           RateLimit: "burst";r=0;t=30
           RateLimit: "hour";r=10;t=1800"#,
    );
    assert_eq!(
        told(&signal),
        [
            (Unit::Requests, (Some(100), Some(0), Some(secs(30)), Some(secs(60)))),
            (Unit::Requests, (Some(500), Some(10), Some(secs(1800)), Some(secs(3600)))),
        ]
    );
    assert_eq!(signal.hints.retry_after, Some(secs(30)));
}

#[test]
fn partitions_are_counters_of_their_own() {
    let key = |partition| one(&answer(200, &format!(r#"RateLimit: "peruser";r=5;pk=:{partition}:"#))).policy;
    assert_ne!(key("c2Rm"), key("c2Rn"));
    assert_eq!(key("c2Rm"), key("c2Rm"));
    // A policy with a partition is not that of another one.
    for (policy, limit, quota) in [
        (";pk=:c2Rm:", ";pk=:c2Rm:", Some(100)),
        (";pk=:c2Rm:", ";pk=:c2Rn:", None),
        ("", ";pk=:c2Rm:", Some(100)),
        (";pk=:c2Rm:", "", Some(100)),
    ] {
        let signal =
            answer(200, &format!("RateLimit-Policy: \"user\";q=100{policy}\nRateLimit: \"user\";r=5{limit}"));
        assert_eq!(one(&signal).limit, quota, "{policy} {limit}");
    }
}

#[test]
fn units_are_told_apart() {
    let signal = answer(
        429,
        r#"RateLimit-Policy: "a";q=10;qu="concurrent-requests", "b";q=65535;qu="content-bytes";w=10, "c";q=9;qu="requests"
           RateLimit: "a";r=0, "b";r=1, "c";r=2"#,
    );
    let units: Vec<_> = told(&signal).into_iter().map(|(unit, _)| unit).collect();
    assert_eq!(units, [Unit::Other, Unit::Other, Unit::Requests]);
    assert!(signal.hints.concurrency);
}

#[test]
fn what_is_malformed_is_ignored() {
    for field in [
        r#"RateLimit: "default";r=50;t=30,"#,
        r#"RateLimit: "default;r=50"#,
        r#"RateLimit: "default";r=-1"#,
        r#"RateLimit: "default";r=50.5"#,
        r#"RateLimit: "default";t=30"#,
        r#"RateLimit: "default";R=50"#,
        r#"RateLimit: 50"#,
        r#"RateLimit: limit=100, remaining"#,
        r#"RateLimit-Policy: "burst";w=60"#,
        r#"RateLimit-Policy: "burst";q=-5;w=60"#,
    ] {
        assert!(answer(200, field).hints.readings.is_empty(), "{field}");
    }
}

#[test]
fn draft_07_is_a_dictionary() {
    let signal = answer(200, "RateLimit: limit=100, remaining=50, reset=5\nRateLimit-Policy: 100;w=10");
    assert_eq!(told(&signal), [(Unit::Requests, (Some(100), Some(50), Some(secs(5)), Some(secs(10))))]);
}

#[test]
fn drafts_04_to_06_have_a_field_per_number() {
    let signal = answer(
        200,
        "RateLimit-Limit: 100
         RateLimit-Policy: 100;w=10
         RateLimit-Remaining: 50
         RateLimit-Reset: 50",
    );
    assert_eq!(told(&signal), [(Unit::Requests, (Some(100), Some(50), Some(secs(50)), Some(secs(10))))]);
}

#[test]
fn draft_03_lists_its_policies_behind_the_limit() {
    let signal = answer(
        200,
        "RateLimit-Limit: 10, 10;w=1, 50;w=60
         RateLimit-Remaining: 9
         RateLimit-Reset: 1",
    );
    assert_eq!(told(&signal), [(Unit::Requests, (Some(10), Some(9), Some(secs(1)), Some(secs(1))))]);
}

#[test]
fn retry_after_wins_over_the_reset() {
    let signal = answer(429, "Retry-After: 7\nRateLimit: \"default\";r=0;t=30");
    assert_eq!((signal.verdict, signal.hints.retry_after), (Verdict::Throttled, Some(secs(7))));
}
