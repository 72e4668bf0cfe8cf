//! The future of [`Fallback`](super::Fallback).

use super::{FallbackError, layer::Options};
use crate::{
    record::{CallOutcome, FallbackReason, Statistics},
    request::CopyRequest,
    signal::{Classify, Signal, Verdict},
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
    /// Waits for the first service, and for the second where that is needed.
    pub struct ResponseFuture<S, F, Req, C, K>
    where
        S: Service<Req>,
        F: Service<Req>,
    {
        classify: C,
        copy: K,
        reasons: [bool; FallbackReason::ALL.len()],
        book: Book,
        second: Option<F>,
        // For the second service; `None` if the request could not be copied, or was sent there.
        request: Option<Req>,
        // Why the first service did not serve the call, and its error.
        failure: Option<(FallbackReason, Option<S::Error>)>,
        #[pin]
        stage: Stage<S::Future, F::Future>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<F1, F2> {
        First { #[pin] future: F1 },
        Readying,
        Second { #[pin] future: F2 },
    }
}

impl<S, F, Req, C, K> ResponseFuture<S, F, Req, C, K>
where
    S: Service<Req>,
    F: Service<Req>,
{
    #[inline(always)]
    pub(super) fn new(
        (started, future): (Instant, S::Future),
        second: F,
        request: Option<Req>,
        options: Options<C, K>,
    ) -> Self {
        let Options { classify, copy, reasons, statistics } = options;
        let book = Book { statistics, started, open: true };
        let stage = Stage::First { future };
        Self { classify, copy, reasons, book, second: Some(second), request, failure: None, stage }
    }
}

impl<S, F, Req, C, K> Future for ResponseFuture<S, F, Req, C, K>
where
    S: Service<Req>,
    F: Service<Req, Response = S::Response>,
    C: Classify<S::Response, S::Error>,
    K: CopyRequest<Req>,
{
    type Output = Result<S::Response, FallbackError<S::Error, F::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProj::First { future } => {
                    let result = ready!(future.poll(cx));
                    let signal = this.classify.classify(result.as_ref());
                    let Some(reason) = reason_of(&signal, result.is_err()) else {
                        this.book.close(CallOutcome::Primary);
                        return Poll::Ready(result.map_err(FallbackError::Primary));
                    };
                    let can_send = this.request.as_ref().is_some_and(|request| this.copy.can_send(request));
                    if !this.reasons[reason as usize] || !can_send {
                        this.book.close(match reason {
                            FallbackReason::ClientError => CallOutcome::Refused,
                            reason => CallOutcome::Failed(reason),
                        });
                        return Poll::Ready(result.map_err(FallbackError::Primary));
                    }
                    tracing::info!(reason = reason.as_str(), "falling back");
                    *this.failure = Some((reason, result.err()));
                    this.stage.set(Stage::Readying);
                }
                StageProj::Readying => {
                    let second = this.second.as_mut().expect(POLLED_AGAIN);
                    if let Err(error) = ready!(second.poll_ready(cx)) {
                        return Poll::Ready(Err(both_failed(this.book, this.failure, error)));
                    }
                    let mut second = this.second.take().expect(POLLED_AGAIN);
                    let request = this.request.take().expect(POLLED_AGAIN);
                    this.stage.set(Stage::Second { future: second.call(request) });
                }
                StageProj::Second { future } => {
                    return Poll::Ready(match ready!(future.poll(cx)) {
                        Ok(response) => {
                            let (reason, _) = this.failure.take().expect(POLLED_AGAIN);
                            let signal = this.classify.classify(Ok(&response));
                            this.book.close(match signal.verdict {
                                Verdict::Accepted => CallOutcome::Fallback(reason),
                                _ => CallOutcome::FallbackFailed(reason),
                            });
                            Ok(response)
                        }
                        Err(error) => Err(both_failed(this.book, this.failure, error)),
                    });
                }
            }
        }
    }
}

const POLLED_AGAIN: &str = "a future must not be polled after it has completed";

fn both_failed<E1, E2>(
    book: &mut Book,
    failure: &mut Option<(FallbackReason, Option<E1>)>,
    fallback: E2,
) -> FallbackError<E1, E2> {
    let (reason, primary) = failure.take().expect(POLLED_AGAIN);
    tracing::warn!(reason = reason.as_str(), "the fallback failed, too");
    book.close(CallOutcome::FallbackFailed(reason));
    FallbackError::Both { reason, primary, fallback }
}

/// Why the first service did not serve the call; `None` if it did.
fn reason_of(signal: &Signal, is_error: bool) -> Option<FallbackReason> {
    Some(match signal.verdict {
        Verdict::Accepted => return None,
        Verdict::Throttled | Verdict::Exhausted => FallbackReason::TooManyRequests,
        Verdict::Overloaded => FallbackReason::ServiceUnavailable,
        Verdict::Rejected => FallbackReason::Rejected,
        Verdict::Refused => FallbackReason::ClientError,
        Verdict::Failed if is_error => FallbackReason::Transport,
        Verdict::Failed => match signal.status.map(|status| status.as_u16()) {
            Some(500) => FallbackReason::InternalServerError,
            Some(501..) => FallbackReason::OtherServerError,
            _ => FallbackReason::Unknown,
        },
    })
}

/// Counts the call once, as cancelled if nothing else came of it.
#[derive(Debug)]
struct Book {
    statistics: Statistics,
    started: Instant,
    open: bool,
}

impl Book {
    fn close(&mut self, outcome: CallOutcome) {
        if std::mem::replace(&mut self.open, false) {
            let now = Instant::now();
            self.statistics.record_call_at(outcome, now.saturating_duration_since(self.started), now);
        }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        self.close(CallOutcome::Cancelled);
    }
}

impl<S, F, Req, C, K> fmt::Debug for ResponseFuture<S, F, Req, C, K>
where
    S: Service<Req>,
    F: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::First { .. } => "first",
            Stage::Readying => "readying the second",
            Stage::Second { .. } => "second",
        };
        f.debug_struct("ResponseFuture").field("stage", &stage).finish_non_exhaustive()
    }
}
