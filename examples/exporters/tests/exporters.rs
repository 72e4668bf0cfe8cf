//! The same stack through a real OpenTelemetry SDK and through a recorder of the `metrics` facade.

use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use opentelemetry::{KeyValue, Value, metrics::MeterProvider};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
    data::{AggregatedMetrics, HistogramDataPoint, MetricData, SumDataPoint},
};
use std::{collections::BTreeMap, time::Duration};
use tower_cooldown::export::{INSTRUMENTS, Kind, Sources, metrics::Exporter, opentelemetry as otel};
use tower_cooldown_exporters_example::Stack;

fn is<'a>(mut attributes: impl Iterator<Item = &'a KeyValue>, name: &str, value: &str) -> bool {
    attributes.any(|label| label.key.as_str() == name && label.value == Value::from(value.to_owned()))
}

struct Sdk {
    memory: InMemoryMetricExporter,
    provider: SdkMeterProvider,
}

impl Sdk {
    fn new(sources: &Sources) -> Self {
        let memory = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(memory.clone()).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        otel::register(sources, &provider.meter("tower_cooldown"));
        Self { memory, provider }
    }

    /// Collects, and shows the metric of this name to `look`.
    fn collect<T>(&self, name: &str, look: impl Fn(&str, &AggregatedMetrics) -> T) -> Option<T> {
        self.memory.reset();
        self.provider.force_flush().unwrap();
        let finished = self.memory.get_finished_metrics().unwrap();
        let mut metrics = finished.iter().flat_map(|m| m.scope_metrics()).flat_map(|scope| scope.metrics());
        metrics.find(|metric| metric.name() == name).map(|metric| look(metric.unit(), metric.data()))
    }

    fn counter(&self, name: &str, (label, value): (&str, &str)) -> u64 {
        let sum = self.collect(name, |_, data| match data {
            AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                assert!(sum.is_monotonic());
                let of = |point: &&SumDataPoint<u64>| is(point.attributes(), label, value);
                sum.data_points().filter(of).map(SumDataPoint::value).sum::<u64>()
            }
            other => panic!("{other:?}"),
        });
        sum.unwrap_or_default()
    }

    /// Bounds, counts and sum.
    fn histogram(&self, name: &str, (label, value): (&str, &str)) -> (Vec<f64>, Vec<u64>, f64) {
        let found = self.collect(name, |_, data| match data {
            AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                let of = |point: &&HistogramDataPoint<f64>| is(point.attributes(), label, value);
                let point = histogram.data_points().find(of).expect("this label");
                (point.bounds().collect(), point.bucket_counts().collect(), point.sum())
            }
            other => panic!("{other:?}"),
        });
        found.expect("this histogram")
    }
}

#[tokio::test(start_paused = true)]
async fn opentelemetry_hears_of_everything_once() {
    let stack = Stack::new();
    let sdk = Sdk::new(&stack.sources);
    assert_eq!(sdk.counter("tower_cooldown.attempts", ("outcome", "accepted")), 0);
    stack.calls(5).await;

    for _ in 0..3 {
        // However often it is asked.
        assert_eq!(sdk.counter("tower_cooldown.attempts", ("outcome", "accepted")), 4);
        assert_eq!(sdk.counter("tower_cooldown.attempts", ("outcome", "throttled")), 1);
        assert_eq!(sdk.counter("tower_cooldown.calls", ("outcome", "fallback")), 1);
        assert_eq!(sdk.counter("tower_cooldown.fallbacks", ("reason", "429")), 1);
        let (bounds, counts, sum) =
            sdk.histogram("tower_cooldown.attempt.service.duration", ("arm", "treated"));
        assert_eq!(bounds[..3], [0.01024, 0.02048, 0.04096]);
        assert_eq!((counts[2], counts.iter().sum::<u64>()), (5, 5), "30 ms each");
        assert!((sum - 0.15).abs() < 1e-3, "{sum}");
    }
    stack.calls(3).await;
    let (_, counts, sum) = sdk.histogram("tower_cooldown.attempt.service.duration", ("arm", "treated"));
    assert_eq!(counts.iter().sum::<u64>(), 8);
    assert!((sum - 0.24).abs() < 2e-3, "{sum}");
    let (bounds, counts, sum) = sdk.histogram("gen_ai.client.token.usage", ("gen_ai.token.type", "input"));
    assert_eq!((bounds[6], counts[6], counts.iter().sum::<u64>()), (4096.0, 8, 8));
    assert!((sum - 9600.0).abs() < 1.0, "{sum}");

    stack.handle.cool_for(Duration::from_secs(3600));
    let closed = sdk.collect("tower_cooldown.gates.closed", |unit, data| match data {
        AggregatedMetrics::I64(MetricData::Sum(sum)) => {
            assert!(!sum.is_monotonic() && unit == "{gate}");
            let point = sum.data_points().next().expect("a gate");
            assert!(
                is(point.attributes(), "layer", "tagging") && is(point.attributes(), "provider", "gemini")
            );
            point.value()
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(closed, Some(1));
    let rate = sdk.collect("tower_cooldown.rate", |unit, data| match data {
        AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
            assert_eq!(unit, "{request}/s");
            gauge.data_points().next().map(|point| point.value())
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(rate.flatten(), Some(2.0), "the ladder: two calls a second at most");
}

/// Millions of calls that were before would all be recorded one by one.
#[tokio::test(start_paused = true)]
async fn histograms_count_from_when_they_are_registered() {
    let stack = Stack::new();
    stack.calls(3).await;
    let sdk = Sdk::new(&stack.sources);
    stack.calls(2).await;
    assert_eq!(sdk.counter("tower_cooldown.attempts", ("arm", "treated")), 5);
    let (_, counts, _) = sdk.histogram("tower_cooldown.attempt.service.duration", ("arm", "treated"));
    assert_eq!(counts.iter().sum::<u64>(), 2);
}

#[tokio::test(start_paused = true)]
async fn opentelemetry_forgets_sources_that_are_taken_off() {
    let stack = Stack::new();
    let sdk = Sdk::new(&stack.sources);
    stack.calls(1).await;
    assert_eq!(sdk.counter("tower_cooldown.attempts", ("outcome", "accepted")), 1);
    assert!(stack.sources.remove("tagging", "gemini"));
    assert_eq!(sdk.counter("tower_cooldown.attempts", ("outcome", "accepted")), 0);
}

/// Everything that the recorder has, by name and labels.
fn seen(snapshotter: &Snapshotter) -> BTreeMap<String, (MetricKind, DebugValue, Option<String>)> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.map(|(key, unit, help, value)| {
        assert!(unit.is_some(), "{key:?}");
        let labels: Vec<_> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.key().name(), labels.join(","));
        (name, (key.kind(), value, help.map(|help| help.to_string())))
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn the_facade_hears_of_everything_once() {
    let stack = Stack::new();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let mut exporter = Exporter::new(&stack.sources);
    let mut publish = || {
        metrics::with_local_recorder(&recorder, || exporter.publish());
        seen(&snapshotter)
    };
    stack.calls(5).await;
    stack.handle.cool_for(Duration::from_secs(7));
    let seen = publish();

    let base = "layer=tagging,provider=gemini";
    let attempts = &seen[&format!("tower_cooldown_attempts_total{{{base},arm=treated,outcome=accepted}}")];
    assert_eq!((attempts.0, &attempts.1), (MetricKind::Counter, &DebugValue::Counter(4)));
    assert_eq!(attempts.2.as_deref(), Some(INSTRUMENTS[3].help));
    let remaining = &seen[&format!("tower_cooldown_cooldown_remaining_seconds{{{base}}}")];
    assert_eq!(remaining.1, DebugValue::Gauge(7.0.into()));
    let service = format!("tower_cooldown_attempt_service_duration_seconds{{{base},arm=treated}}");
    let DebugValue::Histogram(values) = &seen[&service].1 else { panic!("a histogram") };
    assert_eq!(values.len(), 5);
    assert!(values.iter().all(|value| (value.0 - 0.03).abs() < 1e-4), "{values:?}");

    // Again: counters stay, and nothing is recorded twice.
    let seen = publish();
    assert_eq!(
        seen[&format!("tower_cooldown_attempts_total{{{base},arm=treated,outcome=accepted}}")].1,
        attempts.1
    );
    let DebugValue::Histogram(values) = &seen[&service].1 else { panic!("a histogram") };
    assert_eq!(values.len(), 0, "the recorder gives each value once");

    let names: Vec<_> = INSTRUMENTS.iter().map(|instrument| instrument.prometheus_name()).collect();
    assert!(seen.keys().all(|key| names.iter().any(|name| key.starts_with(&format!("{name}{{")))));
}

/// The conventions' rules for names and units, on the closed list.
#[test]
fn names_keep_to_the_conventions() {
    for instrument in INSTRUMENTS {
        let name = instrument.name;
        let fits = name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.') && name.len() <= 255;
        assert!(fits && !name.ends_with("_total") && !name.ends_with(".count"), "{name}");
        let is_time = instrument.unit == "s";
        let is_named_so = [".duration", ".remaining", ".slip"].iter().any(|end| name.ends_with(end));
        assert_eq!(is_time, is_named_so, "{name}");
        let braces = instrument.unit.starts_with('{') == instrument.unit.contains('}');
        assert!(braces && instrument.unit.len() <= 63, "{name}");
        if let Kind::Histogram(bounds) = instrument.kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
        }
    }
}
