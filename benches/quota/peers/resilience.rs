//! `tower-resilience`'s adaptive limiter, with tower's retry outside of it. The limiter judges by `Ok` and `Err`, so a
//! 429 is turned into an error below it.

use super::{Answer, Call, Client, Random, Upstream, is_refused};
use std::{fmt, time::Duration};
use tokio::time::Sleep;
use tower::{
    BoxError, ServiceBuilder, ServiceExt,
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    },
    util::BoxCloneService,
};
use tower_resilience_adaptive::{AdaptiveLimiterLayer, Aimd};

pub(crate) fn resilience_adaptive(upstream: impl Upstream, seed: u64) -> Client {
    let limit =
        Aimd::builder().latency_threshold(Duration::from_secs(2)).build().expect("the defaults are in order");
    let maker = ExponentialBackoffMaker::new(
        Duration::from_millis(500),
        Duration::from_secs(30),
        0.99,
        Random::new(seed),
    );
    let policy = Retry { maker: maker.expect("bounds in order"), backoff: None };
    let upstream = upstream.map_result(|result: Result<Answer, BoxError>| match result {
        Ok(answer) if is_refused(&answer) => Err(Refused.into()),
        result => result,
    });
    BoxCloneService::new(
        ServiceBuilder::new()
            .layer(RetryLayer::new(policy))
            .map_err(BoxError::from)
            .layer(AdaptiveLimiterLayer::new(limit))
            .service(upstream),
    )
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("429")
    }
}

impl std::error::Error for Refused {}

struct Retry {
    maker: ExponentialBackoffMaker<Random>,
    backoff: Option<ExponentialBackoff<Random>>,
}

impl Clone for Retry {
    fn clone(&self) -> Self {
        Self { maker: self.maker.clone(), backoff: None }
    }
}

/// All errors are refusals here: the race has no others.
impl Policy<Call, Answer, BoxError> for Retry {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Call, result: &mut Result<Answer, BoxError>) -> Option<Sleep> {
        result.as_ref().err()?;
        let maker = &mut self.maker;
        Some(self.backoff.get_or_insert_with(|| maker.make_backoff()).next_backoff())
    }

    fn clone_request(&mut self, call: &Call) -> Option<Call> {
        Some(call.clone())
    }
}
