//! `tower::retry` with tower's own exponential backoff: from half a second to half a minute, with jitter. Each call
//! for itself, as often as it takes.

use super::{Answer, Call, Client, Random, Upstream, is_refused, retry_after};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tower::{
    BoxError, ServiceBuilder,
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    },
    util::BoxCloneService,
};

/// With `honours`, a told wait takes the place of the backoff.
pub(crate) fn tower_retry(upstream: impl Upstream, honours: bool, seed: u64) -> Client {
    let (first, longest) = (Duration::from_millis(500), Duration::from_secs(30));
    let maker = ExponentialBackoffMaker::new(first, longest, 0.99, Random::new(seed));
    let policy = Retry { honours, maker: maker.expect("bounds in order"), backoff: None };
    BoxCloneService::new(ServiceBuilder::new().layer(RetryLayer::new(policy)).service(upstream))
}

struct Retry {
    honours: bool,
    maker: ExponentialBackoffMaker<Random>,
    backoff: Option<ExponentialBackoff<Random>>,
}

impl Clone for Retry {
    /// Each call has a backoff of its own.
    fn clone(&self) -> Self {
        Self { honours: self.honours, maker: self.maker.clone(), backoff: None }
    }
}

impl Policy<Call, Answer, BoxError> for Retry {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Call, result: &mut Result<Answer, BoxError>) -> Option<Sleep> {
        let answer = result.as_ref().ok().filter(|answer| is_refused(answer))?;
        if let Some(told) = retry_after(answer).filter(|_| self.honours) {
            return Some(sleep(told));
        }
        let maker = &mut self.maker;
        Some(self.backoff.get_or_insert_with(|| maker.make_backoff()).next_backoff())
    }

    fn clone_request(&mut self, call: &Call) -> Option<Call> {
        Some(call.clone())
    }
}
