//! What is measured. All gates are set so that no call waits.

use crate::{
    timing::{Pair, Run},
    yardstick::{self, Yardstick},
};
use http::{Request, Response};
use std::{
    fmt::Debug,
    future::{Ready, ready},
    time::Duration,
};
use tower::{
    BoxError, Service, ServiceBuilder,
    limit::{ConcurrencyLimitLayer, RateLimitLayer},
    retry::{Policy, RetryLayer},
    service_fn,
    timeout::TimeoutLayer,
};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer,
    policy::{self, Known, Ladder, Learned, Quota},
    record::Statistics,
    retry::RetryPolicy,
};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor};
use tower_resilience_adaptive::{AdaptiveLimiterLayer, Aimd};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_ratelimiter::RateLimiterLayer;

/// A stack by its name in the output.
pub(crate) struct Stack {
    pub(crate) name: &'static str,
    /// Whether its clones share state, so that two threads mean something.
    pub(crate) shared: bool,
    pair: Box<dyn Fn(usize) -> Pair>,
}

impl Stack {
    /// The stack and the bare service below it, for one or two threads.
    pub(crate) fn pair(&self, threads: usize) -> Pair {
        (self.pair)(threads)
    }
}

/// A request without a body to a service that answers at once: `B` is the answer's body.
fn bare<B: Default>() -> impl Service<
    Request<()>,
    Response = Response<B>,
    Error = BoxError,
    Future = Ready<Result<Response<B>, BoxError>>,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|_: Request<()>| ready(Ok(Response::new(B::default()))))
}

/// A stack with nothing to share between its clones, or without clones.
fn alone<S, B>(name: &'static str, make: impl Fn() -> S + 'static) -> Stack
where
    S: Service<Request<()>, Response = Response<B>, Error: Debug> + 'static,
    B: Default + 'static,
{
    let pair = move |_| Pair { stack: Run::on_one_thread(&make), bare: Run::on_one_thread(bare::<B>) };
    Stack { name, shared: false, pair: Box::new(pair) }
}

/// A stack whose clones share its state.
fn shared<S, B>(name: &'static str, make: impl Fn() -> S + 'static) -> Stack
where
    S: Service<Request<()>, Response = Response<B>, Error: Debug> + Clone + Send + 'static,
    B: Default + 'static,
{
    let pair = move |threads| match threads {
        1 => Pair { stack: Run::on_one_thread(&make), bare: Run::on_one_thread(bare::<B>) },
        _ => Pair { stack: Run::on_two_threads(&make), bare: Run::on_two_threads(bare::<B>) },
    };
    Stack { name, shared: true, pair: Box::new(pair) }
}

pub(crate) fn all() -> Vec<Stack> {
    let mut all = vec![shared("bare", bare::<()>)];
    all.extend(yardsticks());
    all.extend(of_tower());
    all.extend(of_others());
    all.extend(of_this_crate());
    all
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MANY: usize = 1_000_000_000;

fn yardsticks() -> [Stack; 4] {
    fn yardstick<const HAS: u8>(name: &'static str) -> Stack {
        shared(name, || Yardstick::<_, HAS>::new(bare::<()>()))
    }
    [
        yardstick::<{ yardstick::FUTURE }>("yardstick/future"),
        yardstick::<{ yardstick::CLOCKS }>("yardstick/clocks"),
        yardstick::<{ yardstick::LOCK }>("yardstick/lock"),
        yardstick::<{ yardstick::REFERENCE }>("yardstick/reference"),
    ]
}

fn of_tower() -> [Stack; 5] {
    let limit = || RateLimitLayer::new(MANY as u64, SECOND);
    [
        alone("tower-rate-limit", move || ServiceBuilder::new().layer(limit()).service(bare::<()>())),
        shared("tower-concurrency-limit", || {
            ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1024)).service(bare::<()>())
        }),
        alone("tower-timeout", || ServiceBuilder::new().layer(TimeoutLayer::new(HOUR)).service(bare::<()>())),
        shared("tower-buffer-rate-limit", move || {
            ServiceBuilder::new().buffer::<Request<()>>(1024).layer(limit()).service(bare::<()>())
        }),
        alone("tower-retry", || ServiceBuilder::new().layer(RetryLayer::new(Never)).service(bare::<()>())),
    ]
}

/// Keeps a copy of each request, as a retry policy does, and never retries.
#[derive(Clone, Debug)]
struct Never;

impl<Res, Err> Policy<Request<()>, Res, Err> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<()>, _: &mut Result<Res, Err>) -> Option<Ready<()>> {
        None
    }

    fn clone_request(&mut self, request: &Request<()>) -> Option<Request<()>> {
        Some(request.clone())
    }
}

fn of_others() -> [Stack; 5] {
    [
        shared("resilience-rate-limiter", || {
            let layer = RateLimiterLayer::builder().limit_for_period(MANY).refresh_period(SECOND).build();
            ServiceBuilder::new().layer(layer.expect("a limit")).service(bare::<()>())
        }),
        shared("resilience-adaptive", || {
            let limit = Aimd::builder().initial_limit(1024).max_limit(1024).latency_threshold(HOUR).build();
            ServiceBuilder::new()
                .layer(AdaptiveLimiterLayer::new(limit.expect("a limit")))
                .service(bare::<()>())
        }),
        shared("resilience-circuit-breaker", || {
            let layer = CircuitBreakerLayer::builder().build().expect("a circuit breaker");
            ServiceBuilder::new().layer(layer).service(bare::<()>())
        }),
        alone("resilience-fallback", || {
            let layer = tower_resilience_fallback::FallbackLayer::<Request<()>, Response<()>, BoxError>::tower_service(
                bare::<()>(),
            );
            ServiceBuilder::new().layer(layer).service(bare::<()>())
        }),
        shared("tower-governor", || {
            let mut config = GovernorConfigBuilder::default().key_extractor(GlobalKeyExtractor);
            let config = config.period(Duration::from_nanos(1)).burst_size(MANY as u32).finish();
            ServiceBuilder::new()
                .layer(GovernorLayer::new(config.expect("a quota")))
                .service(bare::<axum::body::Body>())
        }),
    ]
}

fn of_this_crate() -> Vec<Stack> {
    vec![
        cooldown("adaptive-cooldown", learned),
        cooldown("adaptive-cooldown/ladder", ladder),
        cooldown("adaptive-cooldown/known", known),
        cooldown("adaptive-cooldown/known-burst", known_burst),
        shared("micro-batch", || ServiceBuilder::new().layer(micro_batch()).service(bare::<()>())),
        shared("fallback", || {
            ServiceBuilder::new().layer(FallbackLayer::new(bare::<()>())).service(bare::<()>())
        }),
        shared("tower-retry/retry-policy", || {
            ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::new())).service(bare::<()>())
        }),
        full("full-stack", learned),
        full("full-stack/ladder", ladder),
        full("full-stack/known", known),
    ]
}

fn cooldown<P: policy::Policy + 'static>(name: &'static str, policy: fn() -> P) -> Stack {
    shared(name, move || {
        ServiceBuilder::new().layer(AdaptiveCooldownLayer::with_policy(policy())).service(bare::<()>())
    })
}

/// As in the crate's documentation, with one book for all layers.
fn full<P: policy::Policy + 'static>(name: &'static str, policy: fn() -> P) -> Stack {
    shared(name, move || {
        let statistics = Statistics::new();
        ServiceBuilder::new()
            .layer(micro_batch().statistics(&statistics))
            .layer(FallbackLayer::new(bare::<()>()).statistics(&statistics))
            .layer(RetryLayer::new(RetryPolicy::new()))
            .layer(AdaptiveCooldownLayer::with_policy(policy()).statistics(&statistics))
            .service(bare::<()>())
    })
}

/// One group that is never full.
fn micro_batch() -> MicroBatchLayer {
    MicroBatchLayer::new(usize::MAX).expect("more than none")
}

/// The pace does all its work, and comes to a wait of zero.
fn ladder() -> Ladder {
    Ladder::new().pace(2, Duration::ZERO, Duration::ZERO).expect("a pace")
}

/// The default policy. It paces and climbs as always, but what is stored is enough for all calls.
fn learned() -> Learned {
    let quota = Quota::new(1_000_000, Duration::from_secs(1)).and_then(|quota| quota.burst(u32::MAX));
    Learned::new().seed(quota.expect("a quota"))
}

/// Keeps 1000 departures, as a quota of 1000 does, and is free again at once.
fn known() -> Known {
    Known::new(Quota::new(1000, Duration::from_nanos(1)).expect("a quota"))
}

fn known_burst() -> Known {
    Known::new(Quota::new(MANY as u32, SECOND).and_then(|quota| quota.burst(MANY as u32)).expect("a quota"))
}
