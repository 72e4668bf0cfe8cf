//! Counters that the server tells, counted down by the gate: through the real layer, on a virtual clock.

use crate::support::{closed_loop, ms, secs};
use http::Request;
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    policy::{Known, Ladder, Learned, Policy, Quota},
    testing::{Counts, HintStyle, Limit, Upstream},
};

const MINUTE: Duration = secs(60);

/// A policy that never waits by itself.
fn unpaced() -> Known {
    Known::new(Quota::new(1_000_000, ms(1)).unwrap())
}

/// For ten windows after the first.
async fn after_the_first_window(
    upstream: &Upstream,
    policy: impl Policy + 'static,
    window: Duration,
) -> Counts {
    closed_loop(upstream, policy, window, window * 11).await
}

fn upstreams() -> Vec<(&'static str, Upstream, f64, Duration)> {
    let fixed = |limit, window| Limit::fixed_window(limit, window).unwrap();
    [
        ("OpenAI", Limit::token_bucket(500, MINUTE, 500).unwrap(), HintStyle::OpenAi, 500.0, MINUTE),
        ("Anthropic", Limit::token_bucket(50, MINUTE, 50).unwrap(), HintStyle::Anthropic, 50.0, MINUTE),
        ("fixed window", fixed(300, MINUTE), HintStyle::RateLimit, 300.0, MINUTE),
        ("three fields", fixed(15, MINUTE), HintStyle::RateLimitHeaders, 15.0, MINUTE),
        ("GitHub", fixed(500, secs(360)), HintStyle::GitHub, 500.0, secs(360)),
    ]
    .into_iter()
    .map(|(name, limit, hints, calls, window)| {
        let upstream = Upstream::new([limit]).hints(hints).seed(5);
        (name, upstream.latency(ms(800), ms(200)).unwrap(), calls, window)
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn nearly_the_whole_quota_is_used_and_hardly_a_call_refused() {
    for (name, upstream, calls, window) in upstreams() {
        let counts = after_the_first_window(&upstream, Learned::new(), window).await;
        let used = counts.granted as f64 / (calls * 10.0);
        let refused = counts.refused_share();
        println!("{name}: {:.2} % used, {:.3} % refused", 100.0 * used, 100.0 * refused);
        assert!(used >= 0.99, "{name}: {used}");
        assert!(refused <= 0.002, "{name}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn so_it_is_under_a_policy_that_knows_nothing_of_counters() {
    for (name, upstream, calls, window) in upstreams() {
        let counts = after_the_first_window(&upstream, unpaced(), window).await;
        let used = counts.granted as f64 / (calls * 10.0);
        assert!(used >= 0.98 && counts.refused_share() <= 0.005, "{name}: {used} {counts:?}");
    }
}

/// A 200 that used up the last one holds back the next call, under every policy, without a 429.
#[tokio::test(start_paused = true)]
async fn a_success_that_used_up_the_last_one_holds_the_next_call_back() {
    async fn waits(policy: impl Policy + 'static) -> Duration {
        let upstream = service_fn(|_: Request<()>| async {
            let response = http::Response::builder()
                .header("x-ratelimit-limit", "100")
                .header("x-ratelimit-remaining", "0")
                .header("x-ratelimit-reset", "30");
            Ok::<_, BoxError>(response.body(()).unwrap())
        });
        let mut client = AdaptiveCooldownLayer::with_policy(policy).layer(upstream);
        client.ready().await.unwrap().call(Request::new(())).await.unwrap();
        let start = Instant::now();
        client.ready().await.unwrap().call(Request::new(())).await.unwrap();
        start.elapsed()
    }
    for waited in [waits(unpaced()).await, waits(Ladder::new()).await, waits(Learned::new()).await] {
        assert!((secs(29)..secs(32)).contains(&waited), "{waited:?}");
    }
}
