//! The future of [`Coalesce`](super::Coalesce).

use super::{BatchError, batch::Answer, group::SharedGroup};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Waits for the answer to one request of a batch.
///
/// The batch does not depend on it: one that is kept and never polled again, or dropped, holds up nobody. Dropped
/// before the batch has closed, its request is not sent.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<Req, T, E> {
    state: State<Req, T, E>,
}

enum State<Req, T, E> {
    Waiting { group: SharedGroup<Req, T, E>, caller: usize },
    Answered(Answer<T, E>),
    Over,
}

impl<Req, T, E> ResponseFuture<Req, T, E> {
    pub(super) const fn waiting(group: SharedGroup<Req, T, E>, caller: usize) -> Self {
        Self { state: State::Waiting { group, caller } }
    }

    pub(super) const fn answered(answer: Answer<T, E>) -> Self {
        Self { state: State::Answered(answer) }
    }

    pub(super) const fn failed(error: BatchError<E>) -> Self {
        Self::answered(Err(error))
    }
}

/// Nothing in it is pinned.
impl<Req, T, E> Unpin for ResponseFuture<Req, T, E> {}

impl<Req, T, E> Future for ResponseFuture<Req, T, E> {
    type Output = Answer<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Waiting { group, caller } = &self.state {
            let answer = ready!(group.poll(*caller, cx));
            self.state = State::Over;
            return Poll::Ready(answer);
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Answered(answer) => Poll::Ready(answer),
            State::Waiting { .. } | State::Over => {
                panic!("a future must not be polled after it has completed")
            }
        }
    }
}

impl<Req, T, E> fmt::Debug for ResponseFuture<Req, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Waiting { .. } => "waiting",
            State::Answered(_) => "answered",
            State::Over => "over",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish()
    }
}

impl<Req, T, E> Drop for ResponseFuture<Req, T, E> {
    fn drop(&mut self) {
        if let State::Waiting { group, caller } = &self.state {
            group.leave(*caller);
        }
    }
}
