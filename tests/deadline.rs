//! Calls with a deadline of their own.

mod support;

use http::{Request, Response};
use std::{convert::Infallible, time::Duration};
use support::{every, is_ready, ms, request, secs, settle};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle, Rejected,
    cooldown::{GrpcStatus, GrpcTimeout},
    record::Snapshot,
};

type Answer = Response<()>;

fn upstream() -> impl Service<Request<()>, Response = Answer, Error = Infallible, Future: Send> + Clone {
    service_fn(|_| async { Ok(Response::new(())) })
}

fn within(timeout: &'static str) -> Request<()> {
    Request::builder().header("grpc-timeout", timeout).body(()).unwrap()
}

fn status(answer: &Answer) -> &str {
    answer.headers().get("grpc-status").map_or("0", |status| status.to_str().unwrap())
}

fn layer() -> AdaptiveCooldownLayer<
    tower_cooldown::signal::HttpClassifier,
    GrpcStatus,
    tower_cooldown::rollout::Everyone,
    tower_cooldown::cost::OneRequest,
    GrpcTimeout,
> {
    AdaptiveCooldownLayer::with_policy(every(secs(1))).deadline(GrpcTimeout).reject_with(GrpcStatus)
}

fn snapshot(handle: &Handle) -> Snapshot {
    handle.statistics().snapshot()
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_too_soon_fails_at_once_and_takes_no_place() {
    let layer = layer();
    let (service, start) = (layer.layer(upstream()), Instant::now());
    let call = |request| service.clone().oneshot(request);
    assert_eq!(status(&call(within("1S")).await.unwrap()), "0");
    let refused = call(within("999m")).await.unwrap();
    assert_eq!((status(&refused), start.elapsed()), ("4", ms(0)));
    assert!(refused.extensions().get::<Rejected>().unwrap().past_deadline);
    // One that has the time takes the place, exactly at its deadline.
    assert_eq!(status(&call(within("1S")).await.unwrap()), "0");
    assert_eq!(start.elapsed(), secs(1));
    assert_eq!(snapshot(&layer.handle()).attempts.rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_does_not_keep_it_in_poll_ready() {
    let layer = layer();
    layer.handle().cool_for(secs(5));
    let (mut service, start) = (layer.layer(upstream()), Instant::now());
    assert!(is_ready(&mut service));
    assert_eq!(status(&service.call(within("4S")).await.unwrap()), "4");
    assert_eq!(start.elapsed(), ms(0));
    assert_eq!(status(&service.ready().await.unwrap().call(within("6S")).await.unwrap()), "0");
    assert_eq!(start.elapsed(), secs(5));
    // A call without a deadline waits as long as it takes, and a field that is not gRPC's says nothing.
    layer.handle().cool_for(secs(500));
    assert_eq!(status(&service.clone().oneshot(request(1)).await.unwrap()), "0");
    layer.handle().cool_for(secs(500));
    assert_eq!(status(&service.clone().oneshot(within("soon")).await.unwrap()), "0");
    assert_eq!(start.elapsed(), secs(1005));
}

#[tokio::test(start_paused = true)]
async fn below_balance_it_may_stay_pending() {
    let layer = layer().stay_pending();
    layer.handle().cool_for(secs(5));
    assert!(!is_ready(&mut layer.layer(upstream())));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_told_as_soon_as_its_wait_becomes_too_long() {
    let layer = layer();
    let service = layer.layer(upstream());
    service.clone().oneshot(within("1S")).await.unwrap();
    let mut soon = task::spawn(service.clone().oneshot(within("2S")));
    let mut late = task::spawn(service.clone().oneshot(within("20S")));
    assert_pending!(soon.poll());
    assert_pending!(late.poll());
    layer.handle().cool_for(secs(10));
    settle().await;
    assert!(soon.is_woken());
    assert_eq!(status(&assert_ready_ok!(soon.poll())), "4");
    assert_pending!(late.poll());
}

#[tokio::test(start_paused = true)]
async fn the_sooner_of_deadline_and_max_wait_counts() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1)))
        .max_wait(secs(3))
        .deadline(GrpcTimeout)
        .reject_with(GrpcStatus);
    layer.handle().cool_for(secs(4));
    let service = layer.layer(upstream());
    let refused = service.clone().oneshot(within("1M")).await.unwrap();
    assert_eq!(
        (status(&refused), refused.headers()["grpc-retry-pushback-ms"].to_str().unwrap()),
        ("8", "4000")
    );
    assert_eq!(status(&service.clone().oneshot(within("2S")).await.unwrap()), "4");
}

/// Any request and any error: a closure reads the one, and `From<Rejected>` makes the other.
#[tokio::test(start_paused = true)]
async fn a_closure_reads_a_deadline_from_anything() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(60)))
        .deadline(|left: &Duration| Some(*left))
        .classify(|_: Result<&(), &BoxError>| {
            tower_cooldown::signal::Signal::new(tower_cooldown::signal::Verdict::Accepted)
        });
    let service = layer.layer(service_fn(|_: Duration| async { Ok::<_, BoxError>(()) }));
    service.clone().oneshot(Duration::ZERO).await.unwrap();
    let error = service.clone().oneshot(secs(59)).await.unwrap_err();
    let rejected = error.downcast_ref::<Rejected>().unwrap();
    assert_eq!((rejected.past_deadline, rejected.retry_after), (true, secs(60)));
    service.oneshot(Duration::MAX).await.unwrap();
}
