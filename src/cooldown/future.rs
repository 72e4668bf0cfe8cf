//! The future of [`AdaptiveCooldown`](super::AdaptiveCooldown).

use super::{Reject, attempt::Attempt, layer::Options};
use crate::{
    deferred::Deferred,
    record::Arm,
    signal::{Bypassed, Classify},
};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tower::Service;

pin_project! {
    /// Waits for its departure, sends the call, and records what came of it.
    ///
    /// Dropping it while it waits gives its place to those behind it; dropping it later counts the call as
    /// cancelled.
    pub struct ResponseFuture<S, Req, C, R>
    where
        S: Service<Req>,
    {
        classify: C,
        reject: R,
        track_usage: bool,
        attempt: Attempt,
        #[pin]
        call: Deferred<S, Req, S::Future>,
    }
}

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    C: Clone,
    R: Clone,
{
    #[inline(always)]
    pub(super) fn new<A, W, D>(
        attempt: Attempt,
        call: Deferred<S, Req, S::Future>,
        options: &Options<C, R, A, W, D>,
    ) -> Self {
        Self {
            classify: options.classify.clone(),
            reject: options.reject.clone(),
            track_usage: options.track_usage,
            attempt,
            call,
        }
    }
}

impl<S, Req, C, R> Future for ResponseFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Reject<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let attempt = this.attempt;
        if let Some(rejected) = attempt.take_rejected() {
            return Poll::Ready(this.reject.reject(rejected));
        }
        let mut result = match ready!(this.call.poll(attempt, cx)) {
            Ok(result) => result,
            Err(rejected) => return Poll::Ready(this.reject.reject(rejected)),
        };
        let now = Instant::now();
        let signal = this.classify.classify(result.as_ref());
        if let Ok(response) = &mut result {
            if *this.track_usage {
                this.classify.attach(response, attempt.usage());
            }
            if attempt.arm() == Arm::Control {
                this.classify.attach(response, Bypassed);
            }
        }
        attempt.answered(&signal, now);
        Poll::Ready(result)
    }
}

impl<S, Req, C, R> fmt::Debug for ResponseFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("stage", &self.call.stage())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
