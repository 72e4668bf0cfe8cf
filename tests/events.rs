//! The events that go to `tracing`. Alone in its process: who is asked first whether an event is wanted, a thread with a
//! subscriber or one without, is left to chance otherwise.

mod support;

use http::{Request, Response};
use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
};
use support::{Reply, Upstream, request, secs, unpaced};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer,
    export::{Source, Sources},
    record::Statistics,
    retry::RetryPolicy,
};
use tracing::{Level, Metadata, Subscriber, field::Visit, span};

/// Keeps the events of this crate, as `LEVEL message field=value …`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn has(&self, start: &str, part: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.starts_with(start) && line.contains(part))
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, " {value:?}").unwrap();
        } else {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_cooldown") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn events_come_at_the_level_that_one_would_expect() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());

    let statistics = Statistics::new();
    let second = service_fn(|_: Request<()>| async { Err::<Response<String>, BoxError>("down".into()) });
    let cooldown = AdaptiveCooldownLayer::with_policy(unpaced()).name("gemini").statistics(&statistics);
    let service = ServiceBuilder::new()
        .layer(FallbackLayer::new(second).statistics(&statistics))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(1)))
        .layer(cooldown)
        .service(Upstream::new(|_| Reply::throttled(3)));
    service.oneshot(request(1)).await.unwrap_err();

    assert!(log.has("WARN gate closed", "upstream=gemini"));
    assert!(log.has("WARN gate closed", "wait_ms=3000"));
    assert!(log.has("INFO gate open", "upstream=gemini"));
    assert!(log.has("DEBUG retrying", "retries_left=0"));
    assert!(log.has("DEBUG not retrying", "no retries left"));
    assert!(log.has("INFO falling back", "reason=\"429\""));
    assert!(log.has("WARN the fallback failed, too", "reason=\"429\""));

    statistics.snapshot().log();
    assert!(log.has("INFO statistics", "fallback_rate=1.0"));
    assert!(log.has("DEBUG waits", "reason=\"rate_limit\" count=1"));

    let sources = Sources::new();
    let layer = AdaptiveCooldownLayer::with_policy(unpaced());
    layer.handle().cool_for(secs(9));
    sources.add(Source::new("tagging", "gemini").statistics(&statistics).gate(&layer.handle()));
    sources.log();
    assert!(
        log.has("INFO gate", "layer=\"tagging\" provider=\"gemini\" gates=1 closed=1 closed_for_ms=9000")
    );

    let paced = AdaptiveCooldownLayer::with_policy(support::every(secs(1))).name("slow");
    let paced = paced.layer(Upstream::ok());
    for id in 0..2 {
        paced.clone().oneshot(request(id)).await.unwrap();
    }
    assert!(log.has("DEBUG call waits", "upstream=slow wait_ms=1000 reason=\"preflight\""));
}
