//! Where the types can go: into tasks, other threads, a `static`, or nowhere at all.

mod support;

use http::{Request, Response};
use std::{cell::Cell, rc::Rc, sync::LazyLock};
use support::request;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer, Rollout,
    cooldown::TooManyRequests,
    export::{Source, Sources},
    record::{RecordRing, Statistics},
    retry::RetryPolicy,
    signal::{Signal, Verdict},
};

/// Compiles if they are so.
#[test]
fn auto_traits() {
    fn shared<T: Clone + Send + Sync + Unpin + 'static>(_: &T) {}
    fn sent<T: Send + 'static>(_: T) {}
    let statistics = Statistics::new();
    let cooldown = AdaptiveCooldownLayer::new().max_wait(support::secs(9)).reject_with(TooManyRequests);
    let batch = MicroBatchLayer::new(2).unwrap();
    let fallback = FallbackLayer::new(service_fn(answer));
    let retry = RetryPolicy::new().decline_if_closed_for(cooldown.handle(), support::secs(1));
    shared(&statistics);
    shared(&cooldown);
    shared(&cooldown.handle());
    shared(&cooldown.layer(service_fn(answer)));
    shared(&batch);
    shared(&batch.layer(service_fn(answer)));
    shared(&fallback);
    shared(&fallback.layer(service_fn(answer)));
    shared(&retry);
    shared(&Rollout::on());
    shared(&statistics.snapshot());
    let (ring, sources) = (RecordRing::new(2).unwrap(), Sources::new());
    shared(&ring);
    shared(&sources);
    shared(&Source::new("stack", "upstream").gate(&cooldown.handle()));
    sent(ring.reader());
    sent(cooldown.layer(service_fn(answer)).call(request(1)));
    sent(batch.layer(service_fn(answer)).call(request(1)));
    sent(fallback.layer(service_fn(answer)).call(request(1)));
}

/// A layer may live in a `static`, built where there is no runtime.
#[test]
fn a_layer_can_be_static() {
    static LAYER: LazyLock<AdaptiveCooldownLayer> = LazyLock::new(AdaptiveCooldownLayer::new);
    assert!(LAYER.handle().snapshot().closed_for.is_none());
}

/// Nothing is asked of the inner service but `Clone`: it may stay on its thread.
#[tokio::test(start_paused = true)]
async fn what_is_not_send_can_be_wrapped_too() {
    let local = Rc::new(Cell::new(0));
    let service = service_fn(move |_: Request<()>| {
        local.set(local.get() + 1);
        let local = Rc::clone(&local);
        async move { Ok::<_, BoxError>(Response::new(local.get().to_string())) }
    });
    let client = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(2).unwrap())
        .layer(FallbackLayer::new(service.clone()))
        .layer(AdaptiveCooldownLayer::new())
        .service(service);
    assert_eq!(client.oneshot(request(1)).await.unwrap().body(), "1");
}

async fn answer(_: Request<()>) -> Result<Response<String>, BoxError> {
    Ok(Response::new(String::new()))
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_runs_in_a_task() {
    let client = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(2).unwrap())
        .layer(FallbackLayer::new(service_fn(answer)))
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::new().max_wait(support::secs(9)).rollout(Rollout::on()))
        .service_fn(answer);
    let mut clone = client.clone();
    let task = tokio::spawn(async move { clone.ready().await?.call(request(1)).await });
    task.await.unwrap().unwrap();
    let task = tokio::spawn(async move { client.oneshot(request(1)).await });
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn so_does_a_type_erased_one() {
    let client = ServiceBuilder::new()
        .boxed_clone()
        .layer(AdaptiveCooldownLayer::new())
        .service(service_fn(answer).boxed_clone());
    let task = tokio::spawn(async move { client.oneshot(request(1)).await });
    task.await.unwrap().unwrap();
}

/// Every public type can be printed, closures and all, and says something.
#[tokio::test(start_paused = true)]
async fn everything_can_be_printed() {
    let cooldown = AdaptiveCooldownLayer::new()
        .name("gemini")
        .classify(|_: Result<&Response<String>, &BoxError>| Signal::new(Verdict::Accepted))
        .rollout(Rollout::percent(40).unwrap().by(|request: &Request<()>| request.uri().path().to_owned()));
    cooldown.handle().cool_for(support::secs(7));
    let mut service = cooldown.layer(support::Upstream::ok());
    let batch = MicroBatchLayer::new(2).unwrap().rollout(Rollout::on());
    let fallback = FallbackLayer::new(support::Upstream::ok());
    for (printed, part) in [
        (format!("{cooldown:?}"), "gemini"),
        (format!("{cooldown:?}"), "closed_for: Some(7s)"),
        (format!("{cooldown:?}"), "percent: 40"),
        (format!("{:?}", cooldown.handle()), "in_flight: 0"),
        (format!("{service:?}"), "Upstream"),
        (format!("{:?}", service.call(request(1))), "stage: \"waiting\""),
        (format!("{batch:?}"), "pause: 500ms"),
        (format!("{:?}", batch.layer(support::Upstream::ok())), "percent: 100"),
        (format!("{:?}", batch.layer(support::Upstream::ok()).call(request(1))), "stage"),
        (format!("{fallback:?}"), "\"429\""),
        (format!("{:?}", fallback.layer(support::Upstream::ok())), "Upstream"),
        (format!("{:?}", RetryPolicy::new()), "retries_left: 3"),
        (format!("{:?}", Statistics::new()), "Statistics"),
    ] {
        assert!(printed.contains(part), "no {part} in {printed}");
    }
}
