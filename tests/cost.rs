//! Requests and tokens are two quotas: estimates, settlements, and a bound on calls in flight, through the layer.

mod support;

use http::{Request, Response};
use support::{Reply, Upstream, ms, request, secs, send, settle, unpaced};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, Cost, WaitReason,
    policy::{Answer, Closing, Departure, Known, Policy, Quota},
    record::Usage,
    signal::{HttpClassifier, Signal, Verdict},
};

/// As many requests as one likes, and 1000 tokens in ten seconds.
fn thousand_tokens() -> Known {
    unpaced().tokens(Quota::new(1000, secs(10)).unwrap().margin(secs(0)))
}

/// Each request costs as many tokens as its path says.
fn tokens_in_path(request: &Request<()>) -> Cost {
    Cost::one().input(request.uri().path()[1..].parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_tokens() {
    let upstream = Upstream::ok();
    let service =
        AdaptiveCooldownLayer::with_policy(thousand_tokens()).cost(tokens_in_path).layer(upstream.clone());
    let calls = [send(&service, 600), send(&service, 400), send(&service, 1), send(&service, 0)];
    for call in calls {
        call.await.unwrap().0.unwrap();
    }
    // In the order in which they came: the last one is free, but does not overtake.
    assert_eq!(upstream.ids(), [600, 400, 1, 0]);
    assert_eq!(upstream.times(), [0, 0, 10_000, 10_000]);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_reports_settles_the_estimate() {
    let layer = AdaptiveCooldownLayer::with_policy(thousand_tokens()).cost(tokens_in_path).track_usage();
    let service = layer.layer(Upstream::ok());
    let response = service.clone().oneshot(request(1000)).await.unwrap();
    let next = send(&service, 700);
    settle().await;
    assert_eq!(layer.handle().snapshot().waiting, 1);
    response.extensions().get::<Usage>().unwrap().report(250, 50);
    let (result, waited) = next.await.unwrap();
    result.unwrap();
    assert_eq!(waited, ms(0), "it leaves as soon as the tokens are known to be there");
    assert_eq!(layer.handle().statistics().snapshot().tokens.total(), 300);
}

#[tokio::test(start_paused = true)]
async fn what_the_response_says_settles_the_estimate() {
    let classifier = HttpClassifier::new().with(|result: Result<&Response<String>, &BoxError>| {
        let used = result.ok()?.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
        Some(Signal::new(Verdict::Accepted).used(Cost::one().input(used)))
    });
    let layer =
        AdaptiveCooldownLayer::with_policy(thousand_tokens()).cost(tokens_in_path).classify(classifier);
    // The strict upstream has one header to give; it serves as the server's count of tokens.
    let service = layer.layer(Upstream::new(|_| Reply::status(200).retry_after("100")));
    for tokens in [1000, 900, 800] {
        let (result, waited) = send(&service, tokens).await.unwrap();
        result.unwrap();
        assert_eq!(waited, ms(0), "{tokens}");
    }
    let (_, waited) = send(&service, 701).await.unwrap();
    assert_eq!(waited, secs(10), "300 are used");
    assert_eq!(layer.handle().statistics().snapshot().tokens.total(), 400);
}

/// Two calls in flight at a time, and no other bound.
#[derive(Debug)]
struct TwoAtATime(Box<dyn Policy>);

impl TwoAtATime {
    fn layer() -> AdaptiveCooldownLayer {
        AdaptiveCooldownLayer::with_policy(Self(Box::new(unpaced())))
    }
}

impl Clone for TwoAtATime {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl Policy for TwoAtATime {
    fn departure(&self, arrived: Instant, cost: Cost) -> Departure {
        self.0.departure(arrived, cost)
    }

    fn depart(&mut self, at: Instant, cost: Cost) {
        self.0.depart(at, cost);
    }

    fn max_in_flight(&self) -> Option<usize> {
        Some(2)
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        self.0.answered(answer)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_on_calls_in_flight_holds() {
    let upstream = Upstream::new(|_| Reply::status(200).after(secs(1)));
    let layer = TwoAtATime::layer();
    let service = layer.layer(upstream.clone());
    let calls: Vec<_> = (0..5).map(|id| send(&service, id)).collect();
    for call in calls {
        call.await.unwrap().0.unwrap();
    }
    assert_eq!(upstream.peak(), 2);
    assert_eq!(upstream.ids(), [0, 1, 2, 3, 4]);
    assert_eq!(upstream.times(), [0, 0, 1000, 1000, 2000]);
    let snapshot = layer.handle().statistics().snapshot();
    assert_eq!(snapshot.attempts.service.max, secs(1), "waiting is no service time");
    assert_eq!(
        snapshot.waits.iter().find(|wait| wait.reason == WaitReason::Preflight).unwrap().times.count,
        3
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_go_away_in_flight_make_room() {
    let upstream = Upstream::new(|_| Reply::status(200).after(secs(100)));
    let service = TwoAtATime::layer().layer(upstream.clone());
    let calls: Vec<_> = (0..3).map(|id| send(&service, id)).collect();
    settle().await;
    assert_eq!(upstream.len(), 2);
    calls[0].abort();
    settle().await;
    assert_eq!(upstream.ids(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_an_answer_is_rejected() {
    let upstream = Upstream::new(|_| Reply::status(200).after(secs(100)));
    let layer = TwoAtATime::layer().max_wait(secs(5));
    let service = layer.layer(upstream.clone());
    let _in_flight = [send(&service, 0), send(&service, 1)];
    let (result, waited) = send(&service, 2).await.unwrap();
    assert!(result.is_err());
    assert_eq!(waited, secs(5));
    let snapshot = layer.handle().statistics().snapshot();
    assert_eq!((snapshot.attempts.rejected, layer.handle().snapshot().waiting), (1, 0));
}
