//! `AdaptiveCooldown` among the services of tower and in axum.
//!
//! The ids (E2, A3 ...) are those of the experiments on which the design rests: each of them is something that
//! goes wrong with a simpler gate.

mod support;

use axum::{Router, body::Body, error_handling::HandleErrorLayer};
use futures::{FutureExt, future::join_all};
use http::{Request, Response, StatusCode};
use std::{
    collections::hash_map::DefaultHasher,
    convert::Infallible,
    hash::BuildHasherDefault,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{
    Reply, Upstream, UpstreamOf, count_polls, every, is_ready, ms, request, secs, send, settle, unpaced,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, advance, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    limit::{GlobalConcurrencyLimitLayer, RateLimit, rate::Rate},
    load::{CompleteOnResponse, PendingRequests},
    load_shed::error::Overloaded,
    retry::{Policy as RetryPolicy, RetryLayer},
    steer::Steer,
    timeout::error::Elapsed,
    util::rng::{HasherRng, Rng},
};
use tower_cooldown::{
    AdaptiveCooldownLayer, Rejected, cooldown::Reject, policy::Ladder, signal::HttpClassifier,
};

/// Closes on refusals, and does not pace.
fn cooldown() -> AdaptiveCooldownLayer {
    AdaptiveCooldownLayer::with_policy(unpaced())
}

// ===== limits =====

/// E1
#[tokio::test(start_paused = true)]
async fn a_rate_limit_below_keeps_its_rate() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let handle = layer.handle();
    // `RateLimit` is not `Clone`; a buffer makes it so.
    let limited = RateLimit::new(upstream.clone(), Rate::new(1, secs(1)));
    let service = layer.layer(Buffer::new(limited, 8));

    join_all((0..3).map(|id| send(&service, id))).await;
    assert_eq!(upstream.times(), [0, 1000, 2000]);

    handle.cool_for(secs(10));
    join_all((3..5).map(|id| send(&service, id))).await;
    assert_eq!(upstream.times()[3..], [12_000, 13_000]);
}

/// E4, E5b
#[tokio::test(start_paused = true)]
async fn the_permit_of_a_limit_below_is_free_while_a_handle_waits() {
    let upstream = Upstream::ok();
    let permits = Arc::new(Semaphore::new(1));
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(upstream.clone());

    // The gate is closed from the start.
    handle.cool_for(secs(5));
    assert!(!is_ready(&mut service));
    assert_eq!(permits.available_permits(), 1);
    // The gate closes after the limit gave its permit.
    handle.reset();
    assert!(is_ready(&mut service));
    assert_eq!(permits.available_permits(), 0);
    handle.cool_for(secs(5));
    assert!(!is_ready(&mut service));
    assert_eq!(permits.available_permits(), 1);

    service.ready().await.unwrap().call(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [5000]);
    assert_eq!(permits.available_permits(), 1);
}

/// E4, E5c
#[tokio::test(start_paused = true)]
async fn the_permit_of_a_limit_below_is_free_while_a_call_waits() {
    let upstream = Upstream::ok();
    let permits = Arc::new(Semaphore::new(1));
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(upstream.clone());

    assert!(is_ready(&mut service));
    handle.cool_for(secs(5));
    let mut call = task::spawn(service.call(request(0)));
    assert_eq!(permits.available_permits(), 1);
    assert_pending!(call.poll());
    assert_eq!(permits.available_permits(), 1);

    call.await.unwrap();
    assert_eq!(upstream.times(), [5000]);
    assert_eq!(permits.available_permits(), 1);
}

/// E5a
#[tokio::test(start_paused = true)]
async fn a_readied_handle_that_is_dropped_takes_nothing_along() {
    let upstream = Upstream::ok();
    let permits = Arc::new(Semaphore::new(1));
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(10)));
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
        .service(upstream.clone());

    for _ in 0..5 {
        let mut readied = service.clone();
        assert!(is_ready(&mut readied));
    }
    assert_eq!(permits.available_permits(), 1);
    // Neither the permit nor the one departure in ten seconds is gone.
    service.oneshot(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [0]);
}

/// E11
#[tokio::test(start_paused = true)]
async fn a_handle_that_waits_does_not_lock_itself_out_of_a_limit_below() {
    let upstream = Upstream::new(|_| Reply::status(200).after(ms(20)));
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(upstream.clone());

    // The handle is readied, and with that holds the only permit, when the gate closes.
    assert!(is_ready(&mut service));
    handle.cool_for(secs(5));
    let first = service.call(request(1));
    timeout(secs(60), first).await.expect("the handle keeps the permit that its call needs").unwrap();
    assert_eq!(upstream.times(), [5000]);

    // The same with a second call while the first one waits.
    assert!(is_ready(&mut service));
    handle.cool_for(secs(5));
    let first = tokio::spawn(service.call(request(2)));
    let second = async { service.ready().await.unwrap().call(request(3)).await };
    timeout(secs(60), second).await.expect("the second call waits for ever").unwrap();
    timeout(secs(60), first).await.expect("the first call waits for ever").unwrap().unwrap();
    assert_eq!(upstream.len(), 3);
    assert_eq!(upstream.peak(), 1);
}

/// E16
#[tokio::test(start_paused = true)]
async fn with_a_shared_limit_below_one_upstream_does_not_block_the_other() {
    let (throttled, healthy) = (Upstream::new(|_| Reply::throttled(10)), Upstream::ok());
    let shared = GlobalConcurrencyLimitLayer::new(1);
    let stack = |upstream: &Upstream| {
        ServiceBuilder::new().layer(cooldown()).layer(shared.clone()).service(upstream.clone())
    };
    let (a, b) = (stack(&throttled), stack(&healthy));

    a.clone().oneshot(request(0)).await.unwrap();
    // Ten callers wait for A, in `poll_ready`; one more in its call.
    let waiting: Vec<_> = (1..=10).map(|id| send(&a, id)).collect();
    settle().await;
    let (result, took) = send(&b, 0).await.unwrap();
    assert_eq!(result.unwrap().status(), 200);
    assert_eq!(took, Duration::ZERO);
    assert_eq!(throttled.len(), 1);
    for caller in waiting {
        caller.abort();
    }
}

// ===== services that choose =====

/// E2
#[tokio::test(start_paused = true)]
async fn load_shed_sheds_at_once_while_the_gate_is_closed() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = ServiceBuilder::new().load_shed().layer(layer).service(upstream.clone());

    handle.cool_for(secs(10));
    let start = Instant::now();
    for id in 0..5 {
        let error = service.ready().await.unwrap().call(request(id)).await.unwrap_err();
        assert!(error.is::<Overloaded>(), "{error}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(upstream.len(), 0);

    advance(secs(10)).await;
    service.ready().await.unwrap().call(request(5)).await.unwrap();
    assert_eq!(upstream.times(), [10_000]);
}

/// E3
#[tokio::test(start_paused = true)]
async fn balance_goes_round_an_endpoint_that_is_cooling() {
    let mut to_throttled = 0;
    for run in 0..15 {
        to_throttled += balance_once(run, cooldown()).await;
    }
    assert!(to_throttled > 0, "the endpoint was never throttled");
}

/// E3, with a bound on the wait that must not make a trap of the endpoint: it rejects at once, which looks like
/// the least load.
#[tokio::test(start_paused = true)]
async fn balance_goes_round_an_endpoint_that_is_cooling_for_longer_than_max_wait() {
    balance_once(0, cooldown().max_wait(secs(1)).stay_pending()).await;
}

/// Returns how many of the calls went to the endpoint that is cooling.
async fn balance_once<R>(run: usize, layer: AdaptiveCooldownLayer<HttpClassifier, R>) -> usize
where
    R: Reject<Response<String>, BoxError> + Clone + Send + 'static,
{
    let throttled = Upstream::new(|_| Reply::throttled(10).after(ms(20)));
    let healthy = Upstream::new(|_| Reply::status(200).after(ms(20)));
    let endpoints = [&throttled, &healthy].map(|upstream| {
        // Each endpoint has a gate of its own.
        let endpoint = layer.clone().name("endpoint").layer(upstream.clone());
        PendingRequests::new(endpoint, CompleteOnResponse::default())
    });
    // The choice of endpoints is by chance: another, but always the same, in each run.
    let mut rng = HasherRng::with_hasher(BuildHasherDefault::<DefaultHasher>::default());
    for _ in 0..run {
        rng.next_u64();
    }
    let mut balance = Balance::from_rng(ServiceList::new(endpoints), rng);

    let mut calls = Vec::new();
    for id in 0..200 {
        let start = Instant::now();
        let call = balance.ready().await.unwrap().call(request(id));
        calls.push(tokio::spawn(async move {
            call.await.unwrap();
            start.elapsed()
        }));
        sleep(ms(20)).await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), ms(20), "run {run}: a call was trapped");
    }
    assert!(throttled.len() <= 2, "run {run}: {} calls to the endpoint that is cooling", throttled.len());
    assert_eq!(throttled.len() + healthy.len(), 200);
    throttled.len()
}

/// E3b: `Steer` waits until all of its services are ready, for each call.
#[tokio::test(start_paused = true)]
async fn steer_waits_for_a_closed_gate_unless_max_wait_bounds_it() {
    let to = |request: &Request<()>| usize::from(request.uri().path() == "/1");

    let (a, b) = (Upstream::ok(), Upstream::ok());
    let layer = cooldown();
    layer.handle().cool_for(secs(10));
    let services = [layer.layer(a.clone()), cooldown().layer(b.clone())];
    let mut steer = Steer::new(services, move |request: &_, _: &[_]| to(request));
    steer.ready().await.unwrap().call(request(1)).await.unwrap();
    assert_eq!(b.times(), [10_000]);

    let (a, b) = (Upstream::ok(), Upstream::ok());
    let layer = cooldown().max_wait(secs(1));
    layer.handle().cool_for(secs(10));
    let services = [layer.layer(a.clone()), cooldown().max_wait(secs(1)).layer(b.clone())];
    let mut steer = Steer::new(services, move |request: &_, _: &[_]| to(request));
    let start = Instant::now();
    steer.ready().await.unwrap().call(request(1)).await.unwrap();
    let error = steer.ready().await.unwrap().call(request(0)).await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Rejected::new(secs(10))));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!((a.len(), b.len()), (0, 1));
}

/// E3b
#[tokio::test(start_paused = true)]
async fn readiness_that_steer_kept_is_stale_and_the_call_waits() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let mut steer = Steer::new([layer.layer(upstream.clone())], |_: &_, _: &[_]| 0);
    steer.ready().await.unwrap();
    layer.handle().cool_for(secs(5));
    steer.ready().await.unwrap().call(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [5000]);
}

/// A clone of `Steer` believes that the clones of its services are ready.
#[tokio::test(start_paused = true)]
async fn a_clone_that_steer_did_not_ready_can_be_called() {
    let upstream = Upstream::ok();
    let mut steer = Steer::new([cooldown().layer(upstream.clone())], |_: &_, _: &[_]| 0);
    steer.ready().await.unwrap();
    // The upstream panics if it is called without being ready.
    steer.clone().oneshot(request(0)).await.unwrap();
    assert_eq!(upstream.times(), [0]);
}

// ===== wakers and clocks =====

/// E6
#[tokio::test(start_paused = true)]
async fn what_waits_is_not_polled_until_something_happens() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let handle = layer.handle();
    let mut readied = layer.layer(upstream.clone());
    assert!(is_ready(&mut readied));
    handle.cool_for(secs(3600));

    let (call, call_polls) = count_polls(readied.call(request(0)));
    let call = tokio::spawn(call);
    let (caller, caller_polls) = count_polls(layer.layer(upstream.clone()).oneshot(request(1)));
    let caller = tokio::spawn(caller);

    sleep(secs(3599)).await;
    assert_eq!((call_polls.load(SeqCst), caller_polls.load(SeqCst)), (1, 1));
    // A longer closing may wake them, but not more than once.
    handle.cool_for(secs(3600));
    sleep(secs(3599)).await;
    assert!(call_polls.load(SeqCst) <= 3, "{call_polls:?}");
    assert!(caller_polls.load(SeqCst) <= 3, "{caller_polls:?}");
    assert_eq!(upstream.len(), 0);

    call.await.unwrap().unwrap();
    caller.await.unwrap().unwrap();
    assert!(call_polls.load(SeqCst) <= 4, "{call_polls:?}");
    assert!(caller_polls.load(SeqCst) <= 4, "{caller_polls:?}");
    assert_eq!(upstream.times(), [7_199_000, 7_199_000]);
}

/// E7
#[tokio::test(start_paused = true)]
async fn the_gate_opens_when_the_virtual_clock_is_moved() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let mut service = layer.layer(upstream.clone());
    assert!(is_ready(&mut service));
    layer.handle().cool_for(secs(10));
    let mut call = task::spawn(service.call(request(0)));
    let mut ready = task::spawn(service.ready());
    assert_pending!(call.poll());
    assert_pending!(ready.poll());

    advance(ms(9_999)).await;
    assert_pending!(call.poll());
    assert_pending!(ready.poll());
    advance(ms(1)).await;
    assert!(call.is_woken());
    assert!(ready.is_woken());
    assert_ready_ok!(call.poll());
    assert_ready_ok!(ready.poll());
    assert_eq!(upstream.times(), [10_000]);
}

/// E8
#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_when_the_gate_opens_early() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = layer.layer(upstream.clone());
    assert!(is_ready(&mut service));
    handle.cool_for(secs(600));
    let mut call = task::spawn(service.call(request(0)));
    let mut ready = task::spawn(service.ready());
    assert_pending!(call.poll());
    assert_pending!(ready.poll());
    assert!(!call.is_woken() && !ready.is_woken());

    advance(secs(3)).await;
    handle.reset();
    assert!(call.is_woken());
    assert!(ready.is_woken());
    assert_ready_ok!(call.poll());
    assert_ready_ok!(ready.poll());
    assert_eq!(upstream.times(), [3000]);
}

/// E8: the waker is that of the last poll, not of the first.
#[tokio::test(start_paused = true)]
async fn those_who_moved_to_another_task_are_woken_there() {
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = layer.layer(Upstream::ok());
    let mut other = service.clone();
    assert!(is_ready(&mut service));
    handle.cool_for(secs(600));
    let mut call = service.call(request(0)).boxed();
    let mut ready = async move { other.ready().await.map(drop) }.boxed();
    assert!((&mut call).now_or_never().is_none());
    assert!((&mut ready).now_or_never().is_none());
    let call = tokio::spawn(call);
    let ready = tokio::spawn(ready);
    settle().await;

    handle.reset();
    settle().await;
    assert!(call.is_finished());
    assert!(ready.is_finished());
}

// ===== time-outs and retries =====

/// E9
#[tokio::test(start_paused = true)]
async fn a_timeout_covers_the_wait_in_the_call_only_and_max_wait_the_rest() {
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = ServiceBuilder::new().timeout(secs(1)).layer(layer).service(Upstream::ok());

    // The wait in the call.
    assert!(is_ready(&mut service));
    handle.cool_for(secs(200));
    let start = Instant::now();
    let error = service.call(request(0)).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error}");
    assert_eq!(start.elapsed(), secs(1));
    // The one in `poll_ready`.
    timeout(secs(100), service.ready()).await.unwrap_err();

    let layer = cooldown().max_wait(secs(2));
    layer.handle().cool_for(secs(200));
    let mut service = ServiceBuilder::new().timeout(secs(1)).layer(layer).service(Upstream::ok());
    let start = Instant::now();
    let error = service.ready().await.unwrap().call(request(0)).await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Rejected::new(secs(200))));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Sends a throttled call again, after a back-off.
#[derive(Clone)]
struct Backoff(Duration);

impl RetryPolicy<Request<()>, Response<String>, BoxError> for Backoff {
    type Future = Pin<Box<tokio::time::Sleep>>;

    fn retry(
        &mut self,
        _: &mut Request<()>,
        result: &mut Result<Response<String>, BoxError>,
    ) -> Option<Self::Future> {
        let throttled = result.as_ref().is_ok_and(|res| res.status() == StatusCode::TOO_MANY_REQUESTS);
        throttled.then(|| Box::pin(sleep(self.0)))
    }

    fn clone_request(&mut self, request: &Request<()>) -> Option<Request<()>> {
        Some(request.clone())
    }
}

/// E10
#[tokio::test(start_paused = true)]
async fn backoff_and_cooldown_run_at_the_same_time() {
    for (backoff, second_call) in [(secs(4), 10_020), (secs(12), 12_020)] {
        let upstream = Upstream::new(|call| match call.nth {
            0 => Reply::throttled(10).after(ms(20)),
            _ => Reply::status(200).after(ms(20)),
        });
        let mut service = ServiceBuilder::new()
            .layer(RetryLayer::new(Backoff(backoff)))
            .layer(cooldown())
            .service(upstream.clone());
        let response = service.ready().await.unwrap().call(request(0)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(upstream.times(), [0, second_call]);
    }
}

// ===== many callers =====

/// E12
#[tokio::test(start_paused = true)]
async fn calls_that_were_given_up_in_a_buffer_are_not_sent() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    layer.handle().cool_for(secs(10));
    let buffer = Buffer::new(layer.layer(upstream.clone()), 3);

    let callers: Vec<_> = (0..10).map(|id| send(&buffer, id)).collect();
    sleep(secs(5)).await;
    for caller in callers {
        caller.abort();
    }
    sleep(secs(20)).await;
    assert!(upstream.ids().is_empty());

    buffer.oneshot(request(10)).await.unwrap();
    assert_eq!(upstream.ids(), [10]);
}

/// E13
#[tokio::test(start_paused = true)]
async fn a_hundred_handles_do_not_leave_at_once_when_the_gate_opens() {
    let upstream = Upstream::ok();
    let layer = AdaptiveCooldownLayer::with_policy(every(ms(100)));
    layer.handle().cool_for(secs(10));
    let service = layer.layer(upstream.clone());
    join_all((0..100).map(|id| send(&service, id))).await;

    assert_eq!(upstream.times(), (0..100).map(|k| 10_000 + k * 100).collect::<Vec<_>>());
    assert_eq!(upstream.ids(), (0..100).collect::<Vec<_>>());
}

/// E13
#[tokio::test(start_paused = true)]
async fn a_hundred_calls_do_not_leave_at_once_when_the_gate_opens() {
    let upstream = Upstream::ok();
    let layer = AdaptiveCooldownLayer::with_policy(every(ms(100)));
    let mut readied: Vec<_> = (0..100).map(|_| layer.layer(upstream.clone())).collect();
    assert!(readied.iter_mut().all(is_ready));
    layer.handle().cool_for(secs(10));
    let calls: Vec<_> = readied.iter_mut().zip(0..).map(|(service, id)| service.call(request(id))).collect();
    join_all(calls).await;

    assert_eq!(upstream.times(), (0..100).map(|k| 10_000 + k * 100).collect::<Vec<_>>());
    assert_eq!(upstream.ids(), (0..100).collect::<Vec<_>>());
}

/// E13
#[tokio::test(start_paused = true)]
async fn with_the_default_policy_a_hundred_callers_leave_in_pairs() {
    let upstream = Upstream::ok();
    let layer = AdaptiveCooldownLayer::with_policy(Ladder::new());
    layer.handle().cool_for(secs(10));
    let service = layer.layer(upstream.clone());
    join_all((0..100).map(|id| send(&service, id))).await;

    assert_eq!(upstream.times(), (0..100).map(|k| 10_000 + k / 2 * 1000).collect::<Vec<_>>());
    assert_eq!(upstream.ids(), (0..100).collect::<Vec<_>>());
}

// ===== no runtime, no sense =====

/// E14
#[test]
fn layer_and_call_need_no_runtime() {
    let upstream = Upstream::ok();
    let layer = cooldown();
    let handle = layer.handle();
    let mut service = layer.layer(upstream.clone());
    let mut other = service.clone();
    assert!(is_ready(&mut service));
    assert!(is_ready(&mut other));

    let sent = other.call(request(0));
    handle.cool_for(secs(5));
    let waiting = service.call(request(1));
    drop(other.call(request(2)));
    assert_eq!(handle.snapshot().waiting, 1);

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        sent.await.unwrap();
        waiting.await.unwrap();
    });
    assert_eq!(upstream.ids(), [0, 1]);
    assert_eq!(handle.statistics().snapshot().attempts.accepted, 2);
}

/// E15
#[tokio::test(start_paused = true)]
async fn absurd_numbers_from_the_server_do_no_harm() {
    let absurd = [
        "0",
        "-1",
        "1e400",
        "inf",
        "18446744073709551615",
        "99999999999999999999999999",
        "0.000000000000000001",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "",
    ];
    for value in absurd {
        let upstream = Upstream::new(move |call| match call.nth {
            0 => Reply::status(429).retry_after(value),
            _ => Reply::status(200),
        });
        let service = cooldown().layer(upstream.clone());
        let start = Instant::now();
        service.clone().oneshot(request(0)).await.unwrap();
        service.oneshot(request(1)).await.unwrap();
        // Between the first step and the cap.
        assert!(start.elapsed() >= ms(1500), "{value}: {:?}", start.elapsed());
        assert!(start.elapsed() <= secs(600), "{value}: {:?}", start.elapsed());
    }
}

/// E15
#[tokio::test(start_paused = true)]
async fn absurd_numbers_from_the_user_do_no_harm() {
    let upstream = Upstream::statuses([429, 200]);
    let forever = Ladder::new().steps([Duration::MAX; 4]).after_refusal(Duration::MAX, Duration::MAX);
    let layer = AdaptiveCooldownLayer::with_policy(forever).max_wait(Duration::MAX);
    let handle = layer.handle();
    let mut service = layer.layer(upstream.clone());
    assert!(is_ready(&mut service));
    handle.cool_for(Duration::MAX);
    let call = tokio::spawn(service.call(request(0)));
    timeout(secs(86_400), service.ready()).await.unwrap_err();
    assert!(!call.is_finished());
    handle.reset();
    call.await.unwrap().unwrap();

    // That was a 429, and the policy closes for ever.
    timeout(secs(86_400), service.ready()).await.unwrap_err();
    handle.reset();
    service.ready().await.unwrap().call(request(1)).await.unwrap();
    assert_eq!(upstream.ids(), [0, 1]);
}

// ===== axum =====

/// What axum wants of a service behind a route.
type Route = UpstreamOf<Body, Infallible>;

async fn get(router: &Router, path: &str) -> (StatusCode, Duration) {
    let start = Instant::now();
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    (response.status(), start.elapsed())
}

/// Counts how often `Layer::layer` is called.
#[derive(Clone)]
struct CountLayers<L>(L, Arc<AtomicUsize>);

impl<L: Layer<S>, S> Layer<S> for CountLayers<L> {
    type Service = L::Service;

    fn layer(&self, inner: S) -> Self::Service {
        self.1.fetch_add(1, SeqCst);
        self.0.layer(inner)
    }
}

/// A1, A1b, A2, A4: axum calls `Layer::layer` for each route, and for each request where the router is not
/// resolved. There is one gate all the same.
#[tokio::test(start_paused = true)]
async fn in_axum_all_routes_and_requests_share_one_gate() {
    for resolved in [false, true] {
        let throttled = Route::new(|_| Reply::throttled(10));
        let healthy = Route::ok();
        let layers = Arc::new(AtomicUsize::new(0));
        let layer = cooldown();
        let handle = layer.handle();
        let mut router = Router::new()
            .route_service("/throttled", throttled.clone())
            .route_service("/healthy", healthy.clone())
            .layer(CountLayers(layer, Arc::clone(&layers)));
        if resolved {
            router = router.with_state(());
        }

        assert_eq!(get(&router, "/healthy").await, (StatusCode::OK, Duration::ZERO));
        assert_eq!(get(&router, "/throttled").await, (StatusCode::TOO_MANY_REQUESTS, Duration::ZERO));
        assert_eq!(get(&router, "/healthy").await, (StatusCode::OK, secs(10)), "resolved: {resolved}");
        assert_eq!(healthy.times(), [0, 10_000]);
        let attempts = handle.statistics().snapshot().attempts;
        assert_eq!((attempts.accepted, attempts.throttled), (2, 1));
        assert!(layers.load(SeqCst) >= 2);
    }
}

/// A2: the departures are shared, too, by requests at once on different routes.
#[tokio::test(start_paused = true)]
async fn in_axum_all_routes_share_one_pace() {
    for resolved in [false, true] {
        let upstream = Route::ok();
        let mut router = Router::new()
            .route_service("/a", upstream.clone())
            .route_service("/b", upstream.clone())
            .layer(AdaptiveCooldownLayer::with_policy(every(secs(1))));
        if resolved {
            router = router.with_state(());
        }
        join_all(["/a", "/b", "/a", "/b"].map(|path| get(&router, path))).await;
        assert_eq!(upstream.times(), [0, 1000, 2000, 3000], "resolved: {resolved}");
    }
}

/// A3
#[tokio::test(start_paused = true)]
async fn in_axum_load_shed_answers_at_once_and_without_it_the_request_waits() {
    let upstream = Route::ok();
    let layer = cooldown();
    layer.handle().cool_for(secs(10));
    let route = Router::new().route_service("/", upstream.clone());
    let shedding = route.clone().layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(|_: BoxError| async { StatusCode::SERVICE_UNAVAILABLE }))
            .load_shed()
            .layer(layer.clone()),
    );
    let waiting = route.layer(layer);

    assert_eq!(get(&shedding, "/").await, (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO));
    assert_eq!(upstream.len(), 0);
    assert_eq!(get(&waiting, "/").await, (StatusCode::OK, secs(10)));
    assert_eq!(get(&shedding, "/").await, (StatusCode::OK, Duration::ZERO));
    assert_eq!(upstream.len(), 2);
}
