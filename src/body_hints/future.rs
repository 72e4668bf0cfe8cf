//! The future of [`BodyHintsService`](super::BodyHintsService).

use super::{PeekedBody, layer::Settings, read_body};
use crate::deferred::poll_until;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};
use tokio::time::{Instant, Sleep};

pin_project! {
    /// Waits for the answer, and reads its body if it is a refusal.
    ///
    /// Dropping it drops the call, or the answer together with what was read of it.
    pub struct ResponseFuture<F, B>
    where
        B: Body,
    {
        settings: Arc<Settings>,
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B>
    where
        B: Body,
    {
        // The inner future is dropped before the body is read: it may hold a permit.
        Calling { #[pin] future: F },
        Peeking {
            answer: Option<Response<PeekedBody<B>>>,
            text: Vec<u8>,
            until: Instant,
            #[pin]
            timer: Option<Sleep>,
        },
    }
}

const POLLED_AGAIN: &str = "a future must not be polled after it has completed";

impl<F, B: Body> ResponseFuture<F, B> {
    pub(super) const fn new(future: F, settings: Arc<Settings>) -> Self {
        Self { settings, state: State::Calling { future } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Unpin,
{
    type Output = Result<Response<PeekedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let answer = match this.state.as_mut().project() {
                StateProj::Calling { future } => ready!(future.poll(cx))?,
                StateProj::Peeking { answer, text, until, timer } => {
                    let body = answer.as_mut().expect(POLLED_AGAIN).body_mut();
                    let read = body.poll_peek(cx, text, this.settings.max_bytes);
                    if read.is_pending() && Instant::now() < *until {
                        ready!(poll_until(timer, *until, cx));
                    }
                    let answer = answer.take().expect(POLLED_AGAIN);
                    return Poll::Ready(Ok(with_hints(answer, text, this.settings)));
                }
            };
            let wanted = this.settings.wants(&answer);
            let answer = answer.map(PeekedBody::from);
            if !wanted {
                return Poll::Ready(Ok(answer));
            }
            let until = Instant::now() + this.settings.timeout;
            this.state.set(State::Peeking { answer: Some(answer), text: Vec::new(), until, timer: None });
        }
    }
}

fn with_hints<B>(mut answer: Response<B>, text: &[u8], settings: &Settings) -> Response<B> {
    let (status, max) = (answer.status(), settings.max_retry_after);
    if let Some(hints) = read_body(status, answer.headers(), text, SystemTime::now(), max) {
        tracing::debug!(status = status.as_u16(), ?hints, "limit told in a body");
        answer.extensions_mut().insert(hints);
    }
    answer
}

impl<F, B: Body> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.state {
            State::Calling { .. } => "calling",
            State::Peeking { .. } => "peeking",
        };
        f.debug_struct("ResponseFuture").field("stage", &stage).finish_non_exhaustive()
    }
}
