//! RetryPolicy in tower's RetryLayer: what goes again, when, and what does not.

mod support;

use http::{Request, Response};
use support::{Reply, Upstream, ms, request, secs, send, unpaced};
use tokio::time::{Instant, sleep};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    retry::{RetryLayer, budget::TpsBudget},
};
use tower_cooldown::{
    AdaptiveCooldownLayer, Rollout,
    policy::Ladder,
    retry::RetryPolicy,
    signal::{HttpClassifier, Signal, Verdict},
};

type Answer = Result<Response<String>, BoxError>;

/// The status of the last answer, and the times at which the upstream was called.
async fn run(policy: RetryPolicy, upstream: Upstream) -> (u16, Vec<u128>) {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(AdaptiveCooldownLayer::with_policy(Ladder::new()))
        .service(upstream.clone());
    let answer: Answer = service.oneshot(request(1)).await;
    (answer.unwrap().status().as_u16(), upstream.times())
}

#[tokio::test(start_paused = true)]
async fn it_goes_again_when_the_gate_lets_it() {
    let (status, times) = run(RetryPolicy::new(), Upstream::statuses([429, 429, 200])).await;
    // One 429: 1500 ms; two in a row: 3000 ms. The policy itself adds nothing.
    assert_eq!((status, times), (200, vec![0, 1500, 4500]));
}

#[tokio::test(start_paused = true)]
async fn the_server_says_when() {
    let upstream =
        Upstream::new(|call| if call.nth == 0 { Reply::throttled(20) } else { Reply::status(200) });
    assert_eq!(run(RetryPolicy::new(), upstream).await, (200, vec![0, 20_000]));
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_upstream_is_asked_again() {
    let (status, times) = run(RetryPolicy::new(), Upstream::statuses([503, 200])).await;
    // The gate closes for 500 ms; the preflight waits 1500 ms after a 503.
    assert_eq!((status, times), (200, vec![0, 1500]));
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_max_retries() {
    for retries in 0..4 {
        let policy = RetryPolicy::new().max_retries(retries);
        let (status, times) = run(policy, Upstream::statuses([429])).await;
        assert_eq!((status, times.len()), (429, retries as usize + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn other_answers_are_not_retried() {
    for status in [200, 302, 400, 404, 500, 502] {
        assert_eq!(run(RetryPolicy::new(), Upstream::statuses([status])).await, (status, vec![0]));
    }
    let upstream = Upstream::new(|_| Reply::error("reset"));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::new())
        .service(upstream.clone());
    service.oneshot(request(1)).await.unwrap_err();
    assert_eq!(upstream.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_is_not_retried() {
    let spent = |_: Result<&Response<String>, &BoxError>| Signal::new(Verdict::Exhausted);
    let upstream = Upstream::statuses([429]);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().classify(spent)))
        .layer(AdaptiveCooldownLayer::new().classify(spent))
        .service(upstream.clone());
    assert_eq!(service.oneshot(request(1)).await.unwrap().status(), 429);
    assert_eq!(upstream.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_copied_is_sent_once() {
    let upstream = Upstream::statuses([429]);
    // Only requests with an even number can be copied.
    let policy = RetryPolicy::new().max_retries(1).copy_with(|request: &Request<()>| {
        let id: u64 = request.uri().path()[1..].parse().unwrap();
        (id % 2 == 0).then(|| request.clone())
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()))
        .service(upstream.clone());
    service.clone().oneshot(request(1)).await.unwrap();
    assert_eq!(upstream.ids(), [1]);
    service.oneshot(request(2)).await.unwrap();
    assert_eq!(upstream.ids(), [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_stops_the_retries() {
    // No reserve, and half a retry for each success: two successes pay for one.
    let policy = RetryPolicy::new().budget(TpsBudget::new(secs(60), 0, 0.5));
    let upstream = Upstream::new(|call| Reply::status(if call.id == 0 { 200 } else { 429 }));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()))
        .service(upstream.clone());
    service.clone().oneshot(request(1)).await.unwrap();
    assert_eq!(upstream.ids(), [1], "nothing was paid in yet");
    for _ in 0..2 {
        service.clone().oneshot(request(0)).await.unwrap();
    }
    service.clone().oneshot(request(2)).await.unwrap();
    assert_eq!(upstream.ids(), [1, 0, 0, 2, 2], "one retry was paid for");

    let unlimited = RetryPolicy::new().max_retries(50).without_budget();
    let (_, times) = run(unlimited, Upstream::statuses([429])).await;
    assert_eq!(times.len(), 51);
}

#[tokio::test(start_paused = true)]
async fn it_can_decline_to_retry_into_a_closed_gate() {
    let upstream = Upstream::new(|call| Reply::throttled(if call.nth == 0 { 10 } else { 60 }));
    let cooldown = AdaptiveCooldownLayer::new();
    let policy = RetryPolicy::new().decline_if_closed_for(cooldown.handle(), secs(30));
    let service =
        ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(cooldown).service(upstream.clone());
    let start = Instant::now();
    let answer: Answer = service.oneshot(request(1)).await;
    // 10 s are waited for, 60 s are not: the answer comes back at once.
    assert_eq!(answer.unwrap().status(), 429);
    assert_eq!((upstream.len(), start.elapsed()), (2, secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_is_not_retried() {
    let upstream = Upstream::ok();
    let cooldown = AdaptiveCooldownLayer::new().max_wait(secs(5));
    cooldown.handle().cool_for(secs(60));
    let handle = cooldown.handle();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(cooldown)
        .service(upstream.clone());
    let answer: Answer = service.oneshot(request(1)).await;
    assert!(answer.unwrap_err().is::<tower_cooldown::Rejected>());
    assert_eq!(handle.statistics().snapshot().attempts.rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_outside_the_rollout_is_not_retried() {
    // There is no gate before it: a retry would leave at once. Nor is one whose status a rule calls throttled.
    for status in [429, 403] {
        let rule = HttpClassifier::new().with(|result: Result<&Response<String>, &BoxError>| {
            result.ok().filter(|response| response.status() == 403).map(|_| Signal::new(Verdict::Throttled))
        });
        let upstream = Upstream::statuses([status]);
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::new().classify(rule)))
            .layer(AdaptiveCooldownLayer::new().classify(rule).rollout(Rollout::off()))
            .service(upstream.clone());
        let answer: Answer = service.oneshot(request(1)).await;
        assert_eq!(answer.unwrap().status(), status);
        assert_eq!(upstream.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_its_turn_and_holds_nothing_while_it_waits() {
    // 429 to the first of two; the retry and a newcomer both wait for the gate, in that order.
    let upstream =
        Upstream::new(
            |call| {
                if call.nth == 0 { Reply::throttled(10).after(ms(10)) } else { Reply::status(200) }
            },
        );
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()))
        .concurrency_limit(1)
        .service(upstream.clone());
    let first = send(&service, 1);
    sleep(secs(5)).await;
    let second = send(&service, 2);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.0.unwrap().status(), first.1), (http::StatusCode::OK, ms(10_010)));
    assert_eq!(second.0.unwrap().status(), 200);
    assert_eq!(upstream.ids(), [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn clones_of_the_service_share_the_budget() {
    let policy = RetryPolicy::new().budget(TpsBudget::new(secs(60), 0, 0.0));
    let upstream = Upstream::statuses([429]);
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(AdaptiveCooldownLayer::with_policy(unpaced()))
        .service(upstream.clone());
    let mut clone = service.clone();
    service.ready().await.unwrap().call(request(1)).await.unwrap();
    clone.ready().await.unwrap().call(request(2)).await.unwrap();
    assert_eq!(upstream.ids(), [1, 2]);
}
