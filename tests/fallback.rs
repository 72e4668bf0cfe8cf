//! FallbackLayer: when the second service takes over, what is kept, and what is counted.

mod support;

use http::{Request, Response};
use std::{convert::Infallible, io, panic::AssertUnwindSafe};
use support::{Reply, Upstream, UpstreamOf, ms, request, secs, settle};
use tokio::time::advance;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, retry::RetryLayer,
    service_fn,
};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer,
    cooldown::TooManyRequests,
    fallback::FallbackError,
    record::{CallOutcome, FallbackReason, Snapshot, Statistics},
    retry::RetryPolicy,
    signal::{HttpClassifier, Rejected, Signal, Verdict},
};

async fn call<S>(service: &S) -> Result<Response<String>, S::Error>
where
    S: Service<Request<()>, Response = Response<String>> + Clone,
{
    service.clone().oneshot(request(1)).await
}

fn counts(snapshot: &Snapshot, reason: FallbackReason) -> (u64, u64, u64) {
    let counts = snapshot.calls.fallbacks.iter().find(|counts| counts.reason == reason).unwrap();
    (counts.served, counts.fallback_failed, counts.not_tried)
}

#[tokio::test(start_paused = true)]
async fn the_second_serves_what_the_first_cannot_and_the_reason_is_kept() {
    for (status, reason) in [
        (429, FallbackReason::TooManyRequests),
        (500, FallbackReason::InternalServerError),
        (503, FallbackReason::ServiceUnavailable),
        (529, FallbackReason::ServiceUnavailable),
        (502, FallbackReason::OtherServerError),
    ] {
        let (statistics, second) = (Statistics::new(), Upstream::ok());
        let service =
            FallbackLayer::new(second.clone()).statistics(&statistics).layer(Upstream::statuses([status]));
        assert_eq!(call(&service).await.unwrap().status(), 200);
        assert_eq!(second.ids(), [1], "the same request");
        let snapshot = statistics.snapshot();
        assert_eq!(counts(&snapshot, reason), (1, 0, 0), "{status}");
        assert_eq!(snapshot.calls.finished(), 1);
        assert_eq!(snapshot.fallback_rate(), Some(1.0));
        assert_eq!(snapshot.success_rate(), Some(0.0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_transport_falls_back() {
    let statistics = Statistics::new();
    let first = Upstream::new(|_| Reply::error("connection refused"));
    let service = FallbackLayer::new(Upstream::ok()).statistics(&statistics).layer(first);
    assert_eq!(call(&service).await.unwrap().status(), 200);
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::Transport), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_success_stays_with_the_first() {
    let second = Upstream::ok();
    let layer = FallbackLayer::new(second.clone());
    let (statistics, service) = (layer.get_statistics(), layer.layer(Upstream::ok()));
    call(&service).await.unwrap();
    assert_eq!(second.len(), 0);
    assert_eq!(statistics.snapshot().success_rate(), Some(1.0));
    assert_eq!(statistics.snapshot().fallback_rate(), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn the_callers_fault_stays_with_the_first_unless_asked() {
    let (statistics, second) = (Statistics::new(), Upstream::ok());
    let first = Upstream::statuses([404]);
    let layer = FallbackLayer::new(second.clone()).statistics(&statistics);
    assert_eq!(call(&layer.layer(first.clone())).await.unwrap().status(), 404);
    assert_eq!((second.len(), statistics.snapshot().calls.refused), (0, 1));

    let layer = layer.also(FallbackReason::ClientError);
    assert_eq!(call(&layer.layer(first)).await.unwrap().status(), 200);
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::ClientError), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_is_excepted_stays_with_the_first() {
    let statistics = Statistics::new();
    let service = FallbackLayer::new(Upstream::ok())
        .except(FallbackReason::TooManyRequests)
        .statistics(&statistics)
        .layer(Upstream::statuses([429]));
    assert_eq!(call(&service).await.unwrap().status(), 429);
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::TooManyRequests), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn both_errors_are_kept_if_both_fail() {
    let statistics = Statistics::new();
    let first =
        UpstreamOf::<(), io::Error>::new(|_| Reply::error(io::Error::from(io::ErrorKind::ConnectionRefused)));
    let second = Upstream::new(|_| Reply::error("no such model"));
    let service = FallbackLayer::new(second).statistics(&statistics).layer(first);
    let error = call(&service).await.unwrap_err();
    assert_eq!(error.primary().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.fallback().unwrap().to_string(), "no such model");
    assert_eq!(
        error.to_string(),
        "the primary could not serve the call (transport: connection refused), \
         and the fallback failed: no such model"
    );
    // It goes into a box, whatever its parts are.
    let _: BoxError = error.into();
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::Transport), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_failed_keeps_its_reason_if_the_fallback_errs() {
    let second = Upstream::new(|_| Reply::error("down"));
    let service = FallbackLayer::new(second).layer(Upstream::statuses([503]));
    match call(&service).await.unwrap_err() {
        FallbackError::Both { reason, primary: None, .. } => {
            assert_eq!(reason, FallbackReason::ServiceUnavailable);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_fallbacks_answer_is_passed_on_whatever_it_is() {
    let statistics = Statistics::new();
    let service = FallbackLayer::new(Upstream::statuses([500]))
        .statistics(&statistics)
        .layer(Upstream::statuses([429]));
    assert_eq!(call(&service).await.unwrap().status(), 500);
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::TooManyRequests), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_stays_with_the_first() {
    let second = Upstream::ok();
    let service = FallbackLayer::new(second.clone())
        .copy_with(|_: &Request<()>| None)
        .layer(Upstream::new(|_| Reply::error("reset")));
    match call(&service).await.unwrap_err() {
        FallbackError::Primary(error) => assert_eq!(error.to_string(), "reset"),
        other => panic!("{other:?}"),
    }
    assert_eq!(second.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_gate_rejects_is_served_by_the_second() {
    let statistics = Statistics::new();
    let first = Upstream::ok();
    let cooldown = AdaptiveCooldownLayer::new().max_wait(secs(5));
    cooldown.handle().cool_for(secs(60));
    let layer = FallbackLayer::new(Upstream::ok()).statistics(&statistics);
    // As an error
    let service = ServiceBuilder::new().layer(layer.clone()).layer(cooldown.clone()).service(first.clone());
    assert_eq!(call(&service).await.unwrap().status(), 200);
    // and as a response.
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(cooldown.reject_with(TooManyRequests))
        .service(first.clone());
    assert_eq!(call(&service).await.unwrap().status(), 200);
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::Rejected), (2, 0, 0));
    assert_eq!(first.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_takes_over_when_the_retries_are_spent() {
    let statistics = Statistics::new();
    let first = Upstream::statuses([429]);
    let service = ServiceBuilder::new()
        .layer(FallbackLayer::new(Upstream::ok()).statistics(&statistics))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(2)))
        .layer(AdaptiveCooldownLayer::new().statistics(&statistics))
        .service(first.clone());
    assert_eq!(call(&service).await.unwrap().status(), 200);
    assert_eq!(first.len(), 3);
    let snapshot = statistics.snapshot();
    assert_eq!(counts(&snapshot, FallbackReason::TooManyRequests), (1, 0, 0));
    assert_eq!((snapshot.calls.finished(), snapshot.attempts.throttled), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_ones_own_has_the_last_word() {
    let classify = |result: Result<&Response<String>, &BoxError>| match result {
        Ok(response) if response.headers().contains_key("retry-after") => Signal::new(Verdict::Exhausted),
        other => tower_cooldown::signal::Classify::classify(&HttpClassifier::new(), other),
    };
    let statistics = Statistics::new();
    let service = FallbackLayer::new(Upstream::ok())
        .classify(classify)
        .statistics(&statistics)
        .layer(Upstream::new(|_| Reply::status(200).retry_after("9")));
    call(&service).await.unwrap();
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::TooManyRequests), (1, 0, 0));

    let odd = |_: Result<&Response<String>, &BoxError>| Signal::new(Verdict::Failed);
    let service =
        FallbackLayer::new(Upstream::ok()).classify(odd).statistics(&statistics).layer(Upstream::ok());
    call(&service).await.unwrap();
    assert_eq!(counts(&statistics.snapshot(), FallbackReason::Unknown), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_second_is_readied_before_it_is_called() {
    // Both upstreams are strict: they panic if they are called unready.
    let second = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).service(Upstream::ok());
    let service = FallbackLayer::new(second).layer(Upstream::statuses([500]));
    for _ in 0..3 {
        assert_eq!(call(&service).await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_counted_as_cancelled_on_either_side() {
    let statistics = Statistics::new();
    let slow = || Upstream::new(|_| Reply::status(200).after(secs(60)));
    let (first, second) = (slow(), slow());
    let layer = FallbackLayer::new(second.clone()).statistics(&statistics);
    let in_first = support::send(&layer.layer(first.clone()), 1);
    let in_second = support::send(&layer.layer(Upstream::statuses([500])), 2);
    settle().await;
    advance(ms(100)).await;
    in_first.abort();
    in_second.abort();
    settle().await;
    let snapshot = statistics.snapshot();
    assert_eq!((snapshot.calls.cancelled, snapshot.calls.finished()), (2, 0));
    assert_eq!((first.in_flight(), second.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_below_is_counted_as_cancelled() {
    let statistics = Statistics::new();
    let first = Upstream::new(|_| panic!("told to panic"));
    let service = FallbackLayer::new(Upstream::ok()).statistics(&statistics).layer(first);
    let result = futures::FutureExt::catch_unwind(AssertUnwindSafe(call(&service))).await;
    assert!(result.is_err());
    // The first service panicked before there was a future: no call had begun.
    assert_eq!(statistics.snapshot().calls.total(), 0);

    let first = service_fn(|_: Request<()>| async {
        tokio::task::yield_now().await;
        if true {
            panic!("told to panic");
        }
        Ok::<_, BoxError>(Response::new(String::new()))
    });
    let service = FallbackLayer::new(Upstream::ok()).statistics(&statistics).layer(first);
    assert!(futures::FutureExt::catch_unwind(AssertUnwindSafe(call(&service))).await.is_err());
    assert_eq!(statistics.snapshot().calls.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn fifty_calls_are_fifty_outcomes() {
    // Every status in turn, and a fallback that fails now and then: each call ends exactly once.
    let statistics = Statistics::new();
    let first = Upstream::new(|call| match call.nth % 6 {
        0 => Reply::status(200),
        1 => Reply::status(429),
        2 => Reply::status(500),
        3 => Reply::status(404),
        4 => Reply::error("reset"),
        _ => Reply::status(504),
    });
    let second =
        Upstream::new(|call| if call.nth % 5 == 4 { Reply::error("down") } else { Reply::status(200) });
    let service = FallbackLayer::new(second).statistics(&statistics).layer(first);
    let mut answered = 0;
    for _ in 0..50 {
        answered += u64::from(call(&service).await.is_ok());
    }
    let calls = statistics.snapshot().calls;
    assert_eq!(calls.finished(), 50);
    assert_eq!(calls.primary, 9);
    assert_eq!(calls.refused, 8);
    let failed: u64 = calls.fallbacks.iter().map(|counts| counts.fallback_failed).sum();
    assert_eq!(answered, 50 - failed);
}

#[tokio::test]
async fn outcomes_can_be_recorded_by_hand() {
    let statistics = Statistics::new();
    statistics.record_call(CallOutcome::Primary, ms(10));
    statistics.record_call(CallOutcome::Fallback(FallbackReason::Unknown), ms(30));
    assert_eq!(statistics.snapshot().calls.response.mean(), Some(ms(20)));
}

/// axum's world: services that cannot fail. The fallback's error cannot be made there either.
#[tokio::test(start_paused = true)]
async fn infallible_services_stay_infallible() {
    let service = FallbackLayer::new(UpstreamOf::<(), Infallible>::ok())
        .layer(UpstreamOf::<(), Infallible>::statuses([500]));
    let result: Result<_, FallbackError<Infallible, Infallible>> = call(&service).await;
    assert_eq!(result.unwrap().status(), 200);
    assert!(Rejected::new(ms(1)).to_string().contains("not sent"));
}
