//! The future of [`MicroBatch`](super::MicroBatch).

use super::member::Member;
use crate::{deferred::Deferred, signal::Classify};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tower::Service;

pin_project! {
    /// Waits for its group, sends the call, and makes room when it has finished.
    ///
    /// Dropping it leaves the group at once.
    pub struct ResponseFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        classify: C,
        member: Member,
        #[pin]
        call: Deferred<S, Req, S::Future>,
    }
}

impl<S: Service<Req>, Req, C> ResponseFuture<S, Req, C> {
    pub(super) const fn new(member: Member, call: Deferred<S, Req, S::Future>, classify: C) -> Self {
        Self { classify, member, call }
    }
}

impl<S, Req, C> Future for ResponseFuture<S, Req, C>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match ready!(this.call.poll(this.member, cx)) {
            Ok(result) => {
                this.member.answered(&this.classify.classify(result.as_ref()));
                Poll::Ready(result)
            }
            Err(rejected) => unreachable!("a group rejects nobody: {rejected}"),
        }
    }
}

impl<S, Req, C> fmt::Debug for ResponseFuture<S, Req, C>
where
    S: Service<Req> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("stage", &self.call.stage())
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}
