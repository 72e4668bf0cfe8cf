//! A small stack in which something happens, and its sources.

use http::Response;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, Handle,
    export::{Source, Sources},
    policy::Ladder,
    record::{Statistics, Usage},
};

/// Of one upstream, with a book and a gate.
#[derive(Debug)]
pub struct Stack {
    /// For the exporters.
    pub sources: Sources,
    /// Of the gate.
    pub handle: Handle,
    statistics: Statistics,
    layer: AdaptiveCooldownLayer,
    calls: Arc<AtomicU64>,
}

impl Stack {
    /// With nothing in its book yet.
    pub fn new() -> Self {
        let statistics = Statistics::new();
        let layer = AdaptiveCooldownLayer::with_policy(Ladder::new()).statistics(&statistics);
        let handle = layer.handle();
        let sources = Sources::new();
        let source = Source::new("tagging", "gemini").statistics(&statistics).gate(&handle);
        sources.add(source.gen_ai("chat", "gcp.gemini", None));
        Self { sources, handle, statistics, layer, calls: Arc::default() }
    }

    /// Makes that many calls, one after another, every fourth of which is answered 429 and goes to the fallback.
    pub async fn calls(&self, calls: u64) {
        let answer = |status| move || Response::builder().status(status).body(()).expect("a status");
        let first = service_fn({
            let count = Arc::clone(&self.calls);
            move |()| {
                let nth = count.fetch_add(1, Relaxed);
                async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    Ok::<_, Infallible>(answer(if nth % 4 == 3 { 429 } else { 200 })())
                }
            }
        });
        let second = service_fn(move |()| async move { Ok::<_, Infallible>(answer(200)()) });
        let service = ServiceBuilder::new()
            .layer(FallbackLayer::new(second).statistics(&self.statistics))
            .layer(self.layer.clone())
            .service(first);
        for _ in 0..calls {
            let answered = service.clone().oneshot(()).await;
            assert!(answered.is_ok(), "the fallback answers");
            Usage::new(&self.statistics).report(1200, 85);
        }
    }

    /// What is in its book, and its gate, as `tracing` events.
    pub fn log(&self) {
        self.sources.log();
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}
