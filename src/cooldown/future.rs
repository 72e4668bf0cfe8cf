//! The future of [`AdaptiveCooldown`](super::AdaptiveCooldown).

use super::{Reject, attempt::Attempt, layer::Options};
use crate::{
    deferred::Deferred,
    record::Arm,
    signal::{Bypassed, Classify, Rejected},
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
        #[pin]
        stage: Stage<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<S, Req, F> {
        Call {
            attempt: Attempt,
            #[pin]
            call: Deferred<S, Req, F>,
        },
        Rejected { rejected: Rejected },
    }
}

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    C: Clone,
    R: Clone,
{
    fn new<A, W>(stage: Stage<S, Req, S::Future>, options: &Options<C, R, A, W>) -> Self {
        Self {
            classify: options.classify.clone(),
            reject: options.reject.clone(),
            track_usage: options.track_usage,
            stage,
        }
    }

    pub(super) fn call<A, W>(
        attempt: Attempt,
        call: Deferred<S, Req, S::Future>,
        options: &Options<C, R, A, W>,
    ) -> Self {
        Self::new(Stage::Call { attempt, call }, options)
    }

    pub(super) fn rejected<A, W>(rejected: Rejected, options: &Options<C, R, A, W>) -> Self {
        Self::new(Stage::Rejected { rejected }, options)
    }
}

impl<S, Req, C, R> Future for ResponseFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Reject<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (attempt, call) = match this.stage.project() {
            StageProj::Call { attempt, call } => (attempt, call),
            StageProj::Rejected { rejected } => return Poll::Ready(this.reject.reject(*rejected)),
        };
        let mut result = match ready!(call.poll(attempt, cx)) {
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
        let mut future = f.debug_struct("ResponseFuture");
        match &self.stage {
            Stage::Call { attempt, call } => {
                future.field("stage", &call.stage()).field("attempt", attempt);
            }
            Stage::Rejected { rejected } => {
                future.field("stage", rejected);
            }
        }
        future.finish_non_exhaustive()
    }
}
