//! The future of [`AdaptiveCooldown`](super::AdaptiveCooldown).

use super::{Reject, gate::Attempt, layer::Options};
use crate::{
    record::Usage,
    signal::{Classify, Rejected},
};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};
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
        attempt: Option<Attempt>,
        #[pin]
        stage: Stage<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<S, Req, F> {
        /// Until the gate lets the call go.
        Waiting {
            call: Option<(S, Req)>,
            #[pin]
            timer: Option<Sleep>,
        },
        /// Until the inner service is ready.
        Readying { call: Option<(S, Req)> },
        /// Until the answer comes.
        Sent { #[pin] future: F },
        Rejected { rejected: Rejected },
    }
}

impl<S, Req, C, R> ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
    C: Clone,
    R: Clone,
{
    fn new<A>(stage: Stage<S, Req, S::Future>, attempt: Option<Attempt>, options: &Options<C, R, A>) -> Self {
        Self {
            classify: options.classify.clone(),
            reject: options.reject.clone(),
            track_usage: options.track_usage,
            attempt,
            stage,
        }
    }

    pub(super) fn sent<A>(future: S::Future, attempt: Attempt, options: &Options<C, R, A>) -> Self {
        Self::new(Stage::Sent { future }, Some(attempt), options)
    }

    pub(super) fn waiting<A>(inner: S, request: Req, attempt: Attempt, options: &Options<C, R, A>) -> Self {
        // The timer is made when it is first needed: `call` may run where there is no runtime.
        let stage = Stage::Waiting { call: Some((inner, request)), timer: None };
        Self::new(stage, Some(attempt), options)
    }

    pub(super) fn rejected<A>(rejected: Rejected, options: &Options<C, R, A>) -> Self {
        Self::new(Stage::Rejected { rejected }, None, options)
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
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProj::Waiting { call, timer } => {
                    let attempt = this.attempt.as_mut().expect(POLLED_AGAIN);
                    match ready!(attempt.poll_leave(timer, cx)) {
                        Ok(()) => Stage::Readying { call: call.take() },
                        Err(rejected) => Stage::Rejected { rejected },
                    }
                }
                StageProj::Readying { call } => {
                    let (inner, _) = call.as_mut().expect(POLLED_AGAIN);
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(finish(&*this.classify, this.attempt, false, Err(error)));
                    }
                    let attempt = this.attempt.as_mut().expect(POLLED_AGAIN);
                    let (mut inner, request) = call.take().expect(POLLED_AGAIN);
                    if attempt.confirm() {
                        Stage::Sent { future: inner.call(request) }
                    } else {
                        // The gate closed while the inner service got ready: give its readiness back.
                        Stage::Waiting { call: Some((inner.clone(), request)), timer: None }
                    }
                }
                StageProj::Sent { future } => {
                    let result = ready!(future.poll(cx));
                    return Poll::Ready(finish(&*this.classify, this.attempt, *this.track_usage, result));
                }
                StageProj::Rejected { rejected } => {
                    this.attempt.take();
                    return Poll::Ready(this.reject.reject(*rejected));
                }
            };
            this.stage.set(next);
        }
    }
}

const POLLED_AGAIN: &str = "a future must not be polled after it has completed";

/// Reads the result, tells the gate, and writes the record.
fn finish<C, Res, Err>(
    classify: &C,
    attempt: &mut Option<Attempt>,
    track_usage: bool,
    mut result: Result<Res, Err>,
) -> Result<Res, Err>
where
    C: Classify<Res, Err>,
{
    let now = Instant::now();
    let signal = classify.classify(result.as_ref());
    let Some(mut attempt) = attempt.take() else { return result };
    attempt.answered(&signal, now);
    if let (true, Ok(response)) = (track_usage, &mut result) {
        classify.attach_usage(response, Usage::new(attempt.statistics()));
    }
    result
}

impl<S, Req, C, R> fmt::Debug for ResponseFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Waiting { .. } => "Waiting",
            Stage::Readying { .. } => "Readying",
            Stage::Sent { .. } => "Sent",
            Stage::Rejected { .. } => "Rejected",
        };
        f.debug_struct("ResponseFuture")
            .field("stage", &format_args!("{stage}"))
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
