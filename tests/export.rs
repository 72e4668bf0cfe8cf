//! The closed list of metrics, its budget, and Prometheus' text.
#![cfg(feature = "prometheus")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::{Upstream, ms, request, secs};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, CoalesceLayer, MicroBatchLayer, Rollout, WaitReason,
    cooldown::TooManyRequests,
    export::{INSTRUMENTS, Kind, Source, Sources, Value},
    policy::{Known, Quota},
    record::{Arm, CallOutcome, CallRecord, FallbackReason, Outcome, RecordRing, Statistics, Usage},
};

/// A book in which everything has happened.
fn full_book() -> Statistics {
    let statistics = Statistics::with_ring(&RecordRing::new(16).unwrap());
    for outcome in Outcome::ALL {
        for arm in Arm::ALL {
            for reason in WaitReason::ALL {
                let mut record = CallRecord::new(outcome, Instant::now());
                (record.arm, record.wait_reason, record.service) = (arm, reason, ms(700));
                record.waited = if reason == WaitReason::Normal { ms(0) } else { ms(1500) };
                statistics.record(&record);
            }
        }
    }
    for reason in FallbackReason::ALL {
        for outcome in [CallOutcome::Fallback, CallOutcome::FallbackFailed, CallOutcome::Failed] {
            statistics.record_call(outcome(reason), secs(2));
        }
    }
    for outcome in [CallOutcome::Primary, CallOutcome::Refused, CallOutcome::Cancelled] {
        statistics.record_call(outcome, secs(1));
    }
    Usage::new(&statistics).report(1200, 85);
    statistics
}

/// The same, and calls that went through a micro-batch and were coalesced.
async fn fuller_book() -> Statistics {
    let statistics = full_book();
    let group = MicroBatchLayer::new(2).unwrap().statistics(&statistics);
    let service = ServiceBuilder::new().layer(group).service(Upstream::ok());
    service.oneshot(request(1)).await.unwrap();
    let many = tower::service_fn(|texts: Vec<&'static str>| async move {
        Ok::<_, tower::BoxError>(texts.into_iter().map(Ok::<_, tower::BoxError>).collect::<Vec<_>>())
    });
    let service =
        ServiceBuilder::new().layer(CoalesceLayer::new(8).unwrap().statistics(&statistics)).service(many);
    service.oneshot("text").await.unwrap();
    statistics
}

#[cfg(all(feature = "keyed", feature = "prometheus"))]
#[tokio::test(start_paused = true)]
async fn the_gates_of_all_keys_are_added_up() {
    let layer = AdaptiveCooldownLayer::with_policy(support::every(secs(10)))
        .max_waiting(5)
        .reject_with(TooManyRequests)
        .keyed(|request: &http::Request<()>| request.uri().path().to_owned());
    let handle = layer.handle();
    let service = tower::Layer::layer(&layer, Upstream::new(|_| support::Reply::status(200).after(secs(5))));
    let _sent: Vec<_> = [1, 1, 1, 2, 2].map(|id| support::send(&service, id)).into();
    support::settle().await;
    handle.get("/1").expect("this key").cool_for(secs(60));
    let sources = Sources::new();
    sources.add(Source::new("stack", "all").keyed(&handle).statistics(&handle.statistics()));
    let text = tower_cooldown::export::prometheus::Exporter::new(&sources).text();
    for (name, value) in [
        ("gates", "3"),
        ("keys", "2"),
        ("keys_evicted_total", "0"),
        ("gates_closed", "1"),
        ("cooldown_remaining_seconds", "60"),
        ("queue_size", "3"),
        ("queue_capacity", "15"),
        ("active_requests", "2"),
    ] {
        let line = format!("tower_cooldown_{name}{{layer=\"stack\",provider=\"all\"}} {value}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

fn with_gate(source: Source) -> Source {
    let quota = Known::new(Quota::new(10, secs(1)).unwrap());
    let layer = AdaptiveCooldownLayer::with_policy(quota).max_waiting(100).reject_with(TooManyRequests);
    // One by key has the most series.
    #[cfg(feature = "keyed")]
    return source.keyed(&layer.keyed(|_: &()| "key").handle());
    #[cfg(not(feature = "keyed"))]
    return source.gate(&layer.handle());
}

async fn full_source(layer: &str, provider: &str) -> Source {
    with_gate(Source::new(layer, provider).statistics(&fuller_book().await))
        .rollout(&Rollout::percent(50).unwrap())
        .gen_ai("chat", "openai", Some("gpt-4o"))
}

#[tokio::test(start_paused = true)]
async fn the_list_is_closed_and_all_of_it_is_exported() {
    let sources = Sources::new();
    sources.add(full_source("stack", "upstream").await);
    let mut seen: BTreeMap<&str, BTreeSet<Vec<(String, String)>>> = BTreeMap::new();
    sources.visit(|point| {
        let instrument = point.instrument;
        assert!(INSTRUMENTS.iter().any(|listed| listed.name == instrument.name));
        let [("layer", "stack"), ("provider", "upstream"), labels @ ..] = point.labels else {
            panic!("{:?}", point.labels)
        };
        for (name, value) in labels {
            let label = instrument.labels.iter().find(|label| label.name == *name);
            let label = label.unwrap_or_else(|| panic!("{} has no label {name}", instrument.name));
            let is_name = label.values.is_empty();
            assert!(is_name || label.values.contains(value), "{}: {name}={value}", instrument.name);
        }
        let fits = match (point.value, instrument.kind) {
            (Value::Count(_), Kind::Counter | Kind::UpDownCounter) => true,
            (Value::Level(level), Kind::Gauge) => level.is_finite(),
            (Value::Buckets(buckets), Kind::Histogram(bounds)) => buckets.counts.len() == bounds.len() + 1,
            _ => false,
        };
        assert!(fits, "{point:?}");
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert!(seen.entry(instrument.name).or_default().insert(labels), "twice: {point:?}");
    });
    // Every value of every label is there, where it can be.
    let by_key = |name: &str| name.starts_with("tower_cooldown.keys");
    for instrument in INSTRUMENTS.iter().filter(|i| cfg!(feature = "keyed") || !by_key(i.name)) {
        let points = &seen.get(instrument.name).unwrap_or_else(|| panic!("{} is missing", instrument.name));
        for label in instrument.labels {
            for value in label.values {
                let found = points.iter().flatten().any(|(name, seen)| name == label.name && seen == value);
                assert!(found, "{}: {}={value}", instrument.name, label.name);
            }
        }
    }
}

/// Names, kinds and units, as dashboards and alerts rely on them. A change here is one that breaks.
#[test]
fn names_and_units() {
    let names: Vec<_> = INSTRUMENTS.iter().map(|i| (i.prometheus_name(), i.unit)).collect();
    let names: Vec<_> = names.iter().map(|(name, unit)| (name.as_str(), *unit)).collect();
    assert_eq!(
        names,
        [
            ("tower_cooldown_calls_total", "{call}"),
            ("tower_cooldown_call_duration_seconds", "s"),
            ("tower_cooldown_fallbacks_total", "{fallback}"),
            ("tower_cooldown_attempts_total", "{attempt}"),
            ("tower_cooldown_attempt_duration_seconds", "s"),
            ("tower_cooldown_attempt_service_duration_seconds", "s"),
            ("tower_cooldown_wait_duration_seconds", "s"),
            ("tower_cooldown_slot_slip_seconds", "s"),
            ("tower_cooldown_cooldowns_total", "{cooldown}"),
            ("tower_cooldown_throttled_run", "{attempt}"),
            ("tower_cooldown_group_duration_seconds", "s"),
            ("tower_cooldown_batches_total", "{batch}"),
            ("tower_cooldown_batch_size", "{request}"),
            ("tower_cooldown_batch_weight_total", ""),
            ("tower_cooldown_batch_calls_total", "{call}"),
            ("tower_cooldown_batch_wait_duration_seconds", "s"),
            ("tower_cooldown_batch_duration_seconds", "s"),
            ("tower_cooldown_gates", "{gate}"),
            ("tower_cooldown_gates_closed", "{gate}"),
            ("tower_cooldown_keys", "{key}"),
            ("tower_cooldown_keys_evicted_total", "{key}"),
            ("tower_cooldown_cooldown_remaining_seconds", "s"),
            ("tower_cooldown_queue_size", "{request}"),
            ("tower_cooldown_queue_capacity", "{request}"),
            ("tower_cooldown_active_requests", "{request}"),
            ("tower_cooldown_rate_per_second", "{request}/s"),
            ("tower_cooldown_rollout_ratio", "1"),
            ("tower_cooldown_records_overwritten_total", "{record}"),
            ("gen_ai_client_token_usage", "{token}"),
            ("gen_ai_client_operation_duration_seconds", "s"),
        ]
    );
}

#[cfg(feature = "prometheus")]
mod prometheus {
    use super::*;
    use std::{
        env,
        io::Write,
        process::{Command, Stdio},
    };
    use support::unpaced;
    use tower_cooldown::{FallbackLayer, export::prometheus::Exporter};

    /// The number after this series, if it is there.
    fn value(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stack_in_prometheus_text() {
        let statistics = Statistics::new();
        let cooldown = AdaptiveCooldownLayer::with_policy(unpaced()).statistics(&statistics);
        let handle = cooldown.handle();
        let service = ServiceBuilder::new()
            .layer(FallbackLayer::new(Upstream::ok()).statistics(&statistics))
            .layer(cooldown)
            .service(Upstream::statuses([200, 429]));
        for id in 0..2 {
            service.clone().oneshot(request(id)).await.unwrap();
        }
        handle.cool_for(secs(7));
        let sources = Sources::new();
        sources.add(Source::new("tagging", "say \"hi\"\\\n").statistics(&statistics).gate(&handle));

        let text = Exporter::new(&sources).text();
        let labels = r#"layer="tagging",provider="say \"hi\"\\\n""#;
        let of = |name: &str, more: &str| value(&text, &format!("tower_cooldown_{name}{{{labels}{more}}}"));
        assert_eq!(of("calls_total", r#",outcome="success""#), Some(1.0));
        assert_eq!(of("calls_total", r#",outcome="fallback""#), Some(1.0));
        assert_eq!(of("calls_total", r#",outcome="failure",error_type="429""#), Some(0.0));
        assert_eq!(of("fallbacks_total", r#",reason="429",result="ok""#), Some(1.0));
        assert_eq!(of("attempts_total", r#",arm="treated",outcome="throttled""#), Some(1.0));
        assert_eq!(of("attempts_total", r#",arm="control",outcome="throttled""#), None, "no rollout");
        assert_eq!(of("wait_duration_seconds_count", r#",reason="normal""#), Some(2.0));
        assert_eq!(of("cooldowns_total", r#",reason="adaptive""#), Some(2.0), "a 429, and by hand");
        assert_eq!(of("cooldown_remaining_seconds", ""), Some(7.0));
        assert_eq!(of("gates_closed", ""), Some(1.0));
        assert_eq!(of("queue_capacity", ""), None, "without a bound");
        assert_eq!(of("batches_total", r#",trigger="items""#), None, "nothing is coalesced");
        assert_eq!(text.matches("# TYPE tower_cooldown_calls_total counter\n").count(), 1);
        assert!(sources.remove("tagging", "say \"hi\"\\\n"));
        assert_eq!(Exporter::new(&sources).text(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn buckets_add_up_and_hold_what_they_say() {
        let statistics = Statistics::new();
        for waited in [1, 999, 1001, 1040, 1060, 400_000] {
            let mut record = CallRecord::new(Outcome::Accepted, Instant::now());
            (record.waited, record.wait_reason) = (ms(waited), WaitReason::Preflight);
            statistics.record(&record);
        }
        let sources = Sources::new();
        sources.add(Source::new("a", "b").statistics(&statistics).rollout(&Rollout::percent(10).unwrap()));
        let text = Exporter::new(&sources).text();
        assert_eq!(value(&text, r#"tower_cooldown_rollout_ratio{layer="a",provider="b"}"#), Some(0.1));
        assert_eq!(
            value(&text, r#"tower_cooldown_gates{layer="a",provider="b"}"#),
            None,
            "no gate was given"
        );
        let series = r#"tower_cooldown_wait_duration_seconds_X{layer="a",provider="b",reason="preflight""#;
        let up_to = |le: &str| {
            value(&text, &format!("{},le=\"{le}\"}}", series.replace('X', "bucket"))).expect("this bound")
        };
        assert_eq!(["0.001024", "0.524288", "1.048576", "2.097152"].map(up_to), [1.0, 1.0, 4.0, 5.0]);
        assert_eq!(["301.989888", "+Inf"].map(up_to), [5.0, 6.0]);
        assert_eq!(value(&text, &format!("{}}}", series.replace('X', "count"))), Some(6.0));
        assert_eq!(value(&text, &format!("{}}}", series.replace('X', "sum"))), Some(404.101));
    }

    fn series(text: &str, layer: &str) -> usize {
        let label = format!("layer=\"{layer}\"");
        text.lines().filter(|line| !line.starts_with('#') && line.contains(&label)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_upstreams_stay_inside_the_budget() {
        let sources = Sources::new();
        for upstream in 0..150 {
            sources.add(full_source("stack", &format!("upstream-{upstream}")).await);
        }
        let text = Exporter::new(&sources).text();
        let count = series(&text, "stack");
        println!("{count} series, {} bytes", text.len());
        assert!(count < 4000, "{count}");
        // Nothing is lost: what has no place of its own is added up.
        let attempts = |provider: &str| {
            let labels =
                format!("layer=\"stack\",provider=\"{provider}\",arm=\"treated\",outcome=\"accepted\"");
            value(&text, &format!("tower_cooldown_attempts_total{{{labels}}}"))
        };
        let own = attempts("upstream-0").expect("the first has a place");
        assert_eq!(attempts("_OTHER"), Some(own * 143.0));
        assert_eq!(value(&text, r#"tower_cooldown_gates{layer="stack",provider="_OTHER"}"#), Some(50.0));

        for layer in 0..20 {
            sources.add(full_source(&format!("stack-{layer}"), "upstream").await);
        }
        let text = Exporter::new(&sources).text();
        let layers: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.split_once("layer=\"")?.1.split_once('"'))
            .map(|l| l.0)
            .collect();
        assert_eq!(layers.len(), 9, "{layers:?}");
        assert!(layers.contains("_OTHER") && series(&text, "_OTHER") < 4000);
    }

    /// A gateway's stack with a hundred upstreams, each with a gate and a book of its own.
    #[tokio::test(start_paused = true)]
    async fn a_scrape_of_a_hundred_upstreams_is_quick() {
        let sources = Sources::new();
        for upstream in 0..100 {
            sources.add(full_source("gateway", &format!("upstream-{upstream}")).await);
        }
        let exporter = Exporter::new(&sources);
        let quickest = (0..10)
            .map(|_| {
                let began = std::time::Instant::now();
                assert!(!exporter.text().is_empty());
                began.elapsed()
            })
            .min();
        let quickest = quickest.expect("ten scrapes");
        println!("{quickest:?} a scrape");
        // Unoptimized it takes ten times as long.
        let most = if cfg!(debug_assertions) { ms(500) } else { ms(5) };
        assert!(quickest < most, "{quickest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn promtool_finds_nothing_to_complain_about() {
        let sources = Sources::new();
        for upstream in ["one", "two", "3: \"odd\" \\ näme"] {
            sources.add(full_source("stack", upstream).await);
        }
        let text = Exporter::new(&sources).text();
        let promtool = env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
        let run = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match run {
            Ok(promtool) => promtool,
            Err(error) if env::var_os("REQUIRE_TOOLS").is_none() => {
                return eprintln!("not checked, there is no promtool: {error}");
            }
            Err(error) => panic!("no promtool: {error}"),
        };
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let complaints = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{complaints}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_names_are_cut() {
    let sources = Sources::new();
    sources.add(Source::new(&"ä".repeat(1000), "upstream").statistics(&Statistics::new()));
    let mut longest = 0;
    sources.visit(|point| longest = longest.max(point.labels[0].1.chars().count()));
    assert_eq!(longest, 64);
    assert!(sources.remove(&"ä".repeat(1000), "upstream"));
}
