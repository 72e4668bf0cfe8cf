//! What a layer cannot do without, by itself: a future of its own, the clock before and after the call, a lock that is
//! shared, a reference to it that the future keeps. Each yardstick has what the one before it has, and one thing more.

use pin_project_lite::pin_project;
use std::{
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tower::Service;

pub(crate) const FUTURE: u8 = 0;
pub(crate) const CLOCKS: u8 = 1;
pub(crate) const LOCK: u8 = 2;
pub(crate) const REFERENCE: u8 = 3;

#[derive(Clone)]
pub(crate) struct Yardstick<S, const HAS: u8> {
    inner: S,
    calls: Arc<Mutex<u64>>,
}

impl<S, const HAS: u8> Yardstick<S, HAS> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, calls: Arc::default() }
    }
}

pin_project! {
    pub(crate) struct YardstickFuture<F> {
        came: Option<Instant>,
        _calls: Option<Arc<Mutex<u64>>>,
        #[pin]
        inner: F,
    }
}

impl<S: Service<Req>, Req, const HAS: u8> Service<Req> for Yardstick<S, HAS> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = YardstickFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let came = (HAS >= CLOCKS).then(Instant::now);
        let calls = (HAS >= REFERENCE).then(|| Arc::clone(&self.calls));
        if HAS >= LOCK {
            *self.calls.lock().expect("no panic") += 1;
        }
        YardstickFuture { came, _calls: calls, inner: self.inner.call(request) }
    }
}

impl<F: Future> Future for YardstickFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        if let Some(came) = this.came {
            black_box(Instant::now() - *came);
        }
        Poll::Ready(answer)
    }
}
