//! Calls that may have to wait before they are sent: what the layers that delay have in common.
//!
//! The rule behind both types: nothing of the inner service is held while a call waits. A readied service may
//! hold a permit or a place in a queue, so it is replaced by a clone, and another clone is readied when the
//! time has come. Waiting on the readied service would starve others; leaving it idle would deadlock a
//! `ConcurrencyLimit(1)`.

use crate::signal::Rejected;
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

/// An inner service, and what is known of its readiness.
#[derive(Debug)]
pub(crate) struct Inner<S> {
    pub(crate) service: S,
    state: Readiness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Fresh,
    /// It may stand in a queue.
    Polled,
    /// It may hold a permit.
    Ready,
}

impl<S> Inner<S> {
    pub(crate) const fn new(service: S) -> Self {
        Self { service, state: Readiness::Fresh }
    }

    pub(crate) fn poll_ready<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        self.state = Readiness::Polled;
        ready!(self.service.poll_ready(cx))?;
        self.state = Readiness::Ready;
        Poll::Ready(Ok(()))
    }

    /// Gives back what the service has reserved.
    pub(crate) fn disarm(&mut self)
    where
        S: Clone,
    {
        if self.state != Readiness::Fresh {
            self.service = self.service.clone();
            self.state = Readiness::Fresh;
        }
    }

    /// Sends the request at once, if it may leave and the service is ready; else prepares it to be sent later.
    ///
    /// That the service is not ready although it is called happens to the clones that `Steer` makes.
    pub(crate) fn call<Req>(&mut self, request: Req, permit: &mut impl Permit) -> Deferred<S, Req, S::Future>
    where
        S: Service<Req> + Clone,
    {
        if self.state == Readiness::Ready && permit.may_send() {
            self.state = Readiness::Polled;
            return Deferred::Sent { future: self.service.call(request) };
        }
        self.disarm();
        // The timer is made when it is first needed: `call` may run where there is no runtime.
        Deferred::Waiting { call: Some((self.service.clone(), request)), timer: None }
    }
}

impl<S: Clone> Clone for Inner<S> {
    /// Readiness is not cloned.
    fn clone(&self) -> Self {
        Self::new(self.service.clone())
    }
}

/// What a deferred call needs to know from its gate. Its `Drop` gives back what the call holds there.
pub(crate) trait Permit {
    /// Whether the call may be sent at once. If so, it is.
    fn may_send(&mut self) -> bool;

    /// Waits until the call may leave. A timer is provided; it is made on first use.
    fn poll_leave(
        &mut self,
        timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>>;

    /// The inner service is ready and the call is about to be sent. If not after all, it waits again.
    fn confirm(&mut self) -> Result<bool, Rejected>;
}

/// Waits until then, with a timer that is made on first use and set anew where the time has changed.
pub(crate) fn poll_until(
    mut timer: Pin<&mut Option<Sleep>>,
    until: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match timer.as_mut().as_pin_mut() {
        Some(timer) if timer.deadline() == until => {}
        Some(timer) => timer.reset(until),
        None => timer.set(Some(sleep_until(until))),
    }
    timer.as_pin_mut().map_or(Poll::Ready(()), |timer| timer.poll(cx))
}

pin_project! {
    /// A call on its way: waiting, then readying a clone of the inner service, then sent.
    #[project = DeferredProj]
    pub(crate) enum Deferred<S, Req, F> {
        Waiting {
            call: Option<(S, Req)>,
            #[pin]
            timer: Option<Sleep>,
        },
        Readying { call: Option<(S, Req)> },
        Sent { #[pin] future: F },
    }
}

const POLLED_AGAIN: &str = "a future must not be polled after it has completed";

impl<S, Req> Deferred<S, Req, S::Future>
where
    S: Service<Req> + Clone,
{
    /// The inner service's result, or the reason why the call was not sent.
    #[allow(clippy::type_complexity, reason = "the inner service's own result, inside")]
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        permit: &mut impl Permit,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<S::Response, S::Error>, Rejected>> {
        loop {
            let next = match self.as_mut().project() {
                DeferredProj::Waiting { call, timer } => {
                    ready!(permit.poll_leave(timer, cx))?;
                    Self::Readying { call: call.take() }
                }
                DeferredProj::Readying { call } => {
                    let (service, _) = call.as_mut().expect(POLLED_AGAIN);
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Ok(Err(error)));
                    }
                    let (mut service, request) = call.take().expect(POLLED_AGAIN);
                    if permit.confirm()? {
                        Self::Sent { future: service.call(request) }
                    } else {
                        Self::Waiting { call: Some((service.clone(), request)), timer: None }
                    }
                }
                DeferredProj::Sent { future } => return future.poll(cx).map(Ok),
            };
            self.set(next);
        }
    }

    pub(crate) const fn stage(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Readying { .. } => "readying",
            Self::Sent { .. } => "sent",
        }
    }
}
