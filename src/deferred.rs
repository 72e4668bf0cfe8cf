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

    #[inline]
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

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.state == Readiness::Ready
    }

    /// Sends the request at once. The service [is ready](Self::is_ready).
    #[inline(always)]
    pub(crate) fn send<Req>(&mut self, request: Req) -> Deferred<S, Req, S::Future>
    where
        S: Service<Req>,
    {
        self.state = Readiness::Polled;
        Deferred::Sent { future: self.service.call(request) }
    }

    /// Sends the request at once, if it may leave and the service is ready; else prepares it to be sent later.
    ///
    /// That the service is not ready although it is called happens to the clones that `Steer` makes.
    #[inline]
    pub(crate) fn call<Req>(&mut self, request: Req, permit: &mut impl Permit) -> Deferred<S, Req, S::Future>
    where
        S: Service<Req> + Clone,
    {
        if self.is_ready() && permit.may_send() { self.send(request) } else { self.park(request) }
    }

    #[cold]
    fn park<Req, F>(&mut self, request: Req) -> Deferred<S, Req, F>
    where
        S: Clone,
    {
        self.disarm();
        let service = self.service.clone();
        let parked = Parked { service, request: Some(request), readying: false, timer: None };
        Deferred::Parked { parked: Some(Box::pin(parked)) }
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
    /// A call on its way: parked, if it could not be sent at once, then sent.
    #[project = DeferredProj]
    pub(crate) enum Deferred<S, Req, F> {
        /// In a box of its own: the calls that are sent at once, most of them, do not carry its size about.
        Parked { parked: Option<Pin<Box<Parked<S, Req>>>> },
        Sent { #[pin] future: F },
    }
}

pin_project! {
    /// Waits for its departure, then for its clone of the inner service.
    pub(crate) struct Parked<S, Req> {
        service: S,
        request: Option<Req>,
        readying: bool,
        // Made when it is first needed: `call` may run where there is no runtime.
        #[pin]
        timer: Option<Sleep>,
    }
}

const POLLED_AGAIN: &str = "a future must not be polled after it has completed";

impl<S, Req> Parked<S, Req>
where
    S: Service<Req> + Clone,
{
    /// The call, sent; or the error that the inner service gave in place of its readiness.
    #[allow(clippy::type_complexity, reason = "a future or the inner service's own error, inside")]
    fn poll_send(
        self: Pin<&mut Self>,
        permit: &mut impl Permit,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<S::Future, S::Error>, Rejected>> {
        let mut this = self.project();
        loop {
            if !*this.readying {
                ready!(permit.poll_leave(this.timer.as_mut(), cx))?;
                this.timer.set(None);
                *this.readying = true;
            }
            if let Err(error) = ready!(this.service.poll_ready(cx)) {
                return Poll::Ready(Ok(Err(error)));
            }
            if permit.confirm()? {
                let request = this.request.take().expect(POLLED_AGAIN);
                return Poll::Ready(Ok(Ok(this.service.call(request))));
            }
            *this.service = this.service.clone();
            *this.readying = false;
        }
    }
}

impl<S, Req> Deferred<S, Req, S::Future>
where
    S: Service<Req> + Clone,
{
    /// The inner service's result, or the reason why the call was not sent.
    #[allow(clippy::type_complexity, reason = "the inner service's own result, inside")]
    #[inline]
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        permit: &mut impl Permit,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<S::Response, S::Error>, Rejected>> {
        if let DeferredProj::Parked { parked } = self.as_mut().project() {
            let sent = ready!(parked.as_mut().expect(POLLED_AGAIN).as_mut().poll_send(permit, cx));
            // A call that failed gives back at once what its clone of the service holds.
            let parked = parked.take();
            match sent? {
                Ok(future) => self.set(Self::Sent { future }),
                Err(error) => return Poll::Ready(Ok(Err(error))),
            }
            drop(parked);
        }
        match self.project() {
            DeferredProj::Sent { future } => future.poll(cx).map(Ok),
            DeferredProj::Parked { .. } => unreachable!("it was sent"),
        }
    }

    /// A call that is not sent. It must not be polled.
    pub(crate) const fn never() -> Self {
        Self::Parked { parked: None }
    }

    pub(crate) fn stage(&self) -> &'static str {
        match self {
            Self::Parked { parked: Some(parked) } if parked.readying => "readying",
            Self::Parked { .. } => "waiting",
            Self::Sent { .. } => "sent",
        }
    }
}
