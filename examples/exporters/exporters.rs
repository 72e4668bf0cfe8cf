//! One stack, seen through each of the exporters.
//!
//! `cargo run --example exporters`

use metrics_util::debugging::DebuggingRecorder;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use tower_cooldown::export::{metrics, opentelemetry as otel, prometheus};
use tower_cooldown_exporters_example::Stack;

#[tokio::main]
async fn main() {
    let stack = Stack::new();
    let memory = InMemoryMetricExporter::default();
    let provider =
        SdkMeterProvider::builder().with_reader(PeriodicReader::builder(memory.clone()).build()).build();
    otel::register(&stack.sources, &provider.meter("tower_cooldown"));
    let mut facade = metrics::Exporter::new(&stack.sources);
    stack.calls(5).await;

    println!("== Prometheus ({})\n", prometheus::CONTENT_TYPE);
    println!("{}", prometheus::Exporter::new(&stack.sources).text());

    let recorder = DebuggingRecorder::new();
    ::metrics::with_local_recorder(&recorder, || facade.publish());
    println!("== the metrics facade\n");
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        println!("{} {value:?}", key.key());
    }

    println!("\n== OpenTelemetry\n");
    provider.force_flush().expect("the reader is there");
    for metric in
        memory.get_finished_metrics().expect("nobody panicked").iter().flat_map(|m| m.scope_metrics())
    {
        for metric in metric.metrics() {
            println!("{} [{}] {:?}\n", metric.name(), metric.unit(), metric.data());
        }
    }
}
