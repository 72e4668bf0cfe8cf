use super::{
    NeverReject, NoDeadline, Reject, ResponseFuture, TimeLeft,
    anchor::{Anchored, GateRef},
    attempt::{Attempt, Sending},
    booking::Leave,
    gate::Gate,
    layer::Options,
    ready::{Sight, Watch},
};
use crate::{
    CloneService, Cost, WaitReason,
    arrival::came,
    cost::{CostOf, OneRequest},
    deferred::{Deferred, Inner},
    policy::later,
    rollout::{Admit, Everyone},
    signal::{Classify, HttpClassifier},
};
use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tower::Service;

/// The service that [`AdaptiveCooldownLayer`](super::AdaptiveCooldownLayer) makes. See the
/// [module docs](super).
pub struct AdaptiveCooldown<
    S,
    C = HttpClassifier,
    R = NeverReject,
    A = Everyone,
    W = OneRequest,
    D = NoDeadline,
> {
    inner: Inner<S>,
    gate: Anchored,
    options: Options<C, R, A, W, D>,
    watch: Watch,
}

impl<S, C, R, A, W, D> AdaptiveCooldown<S, C, R, A, W, D> {
    pub(super) fn new(inner: S, gate: Arc<Gate>, options: Options<C, R, A, W, D>) -> Self {
        Self { inner: Inner::new(inner), gate: Anchored::new(gate), options, watch: Watch::default() }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner.service
    }

    /// The inner service. Calling it goes past the gate.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner.service
    }

    /// The inner service. The gate lives on in the layer, the handles, and other services.
    pub fn into_inner(self) -> S {
        self.inner.service
    }
}

impl<S, Req, C, R, A, W, D> Service<Req> for AdaptiveCooldown<S, C, R, A, W, D>
where
    S: Service<Req> + CloneService,
    C: Classify<S::Response, S::Error> + Clone,
    R: Reject<S::Response, S::Error> + Clone,
    A: Admit<Req>,
    W: CostOf<Req>,
    D: TimeLeft<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // The own gate first: nothing of the inner service is held while the gate is closed.
        if self.watch.concerns(self.gate.gate()) && self.options.admit.admits_all() {
            match self.watch.poll(self.gate.gate(), cx) {
                Poll::Ready(Sight::Open) => {}
                Poll::Ready(Sight::Hopeless) => {
                    self.inner.disarm();
                    self.watch.deliver();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    self.inner.disarm();
                    return Poll::Pending;
                }
            }
        }
        ready!(self.inner.poll_ready(cx))?;
        self.watch.deliver();
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let now = came();
        let arrival = self.watch.take_arrival(now);
        let gate = self.gate.reference();
        match self.options.book(&request, &self.inner, &gate, arrival.0, now) {
            Ok(leave) => {
                gate.attend();
                let sending = Sending::new(&gate, arrival, leave);
                let call = self.inner.send(request);
                mem::forget(sending);
                ResponseFuture::new(Attempt::sent(gate, arrival, leave), call, &self.options)
            }
            Err(cost) => self.options.call_later(&mut self.inner, gate, (request, cost), arrival, now),
        }
    }
}

impl<C, R, A, W, D> Options<C, R, A, W, D> {
    /// Books a request that may leave at once and be sent. If it may not, what it costs; `None` outside the rollout.
    ///
    /// (The request is not handed on here: each time it is, it is copied.)
    #[inline(always)]
    pub(super) fn book<S, Req>(
        &self,
        request: &Req,
        inner: &Inner<S>,
        gate: &GateRef,
        arrived: Instant,
        now: Instant,
    ) -> Result<Leave, Option<Cost>>
    where
        A: Admit<Req>,
        W: CostOf<Req>,
    {
        let cost = self.admit.admits_request(request).then(|| self.cost.cost_of(request));
        cost.filter(|_| inner.is_ready()).and_then(|cost| gate.book_open((arrived, cost), now)).ok_or(cost)
    }

    /// For calls that do not leave at once, and those outside the rollout.
    #[inline(never)]
    pub(super) fn call_later<S, Req>(
        &self,
        inner: &mut Inner<S>,
        gate: GateRef,
        (request, cost): (Req, Option<Cost>),
        arrival: (Instant, WaitReason),
        now: Instant,
    ) -> ResponseFuture<S, Req, C, R>
    where
        S: Service<Req> + Clone,
        C: Clone,
        R: Clone,
        D: TimeLeft<Req>,
    {
        let mut attempt = match cost {
            Some(cost) => {
                let deadline = self.deadline.time_left(&request).map(|left| later(now, left));
                Attempt::book(gate, arrival, (cost, deadline), now)
            }
            None => Attempt::control(gate, now),
        };
        let call = if attempt.is_rejected() {
            inner.disarm();
            Deferred::never()
        } else {
            inner.call(request, &mut attempt)
        };
        ResponseFuture::new(attempt, call, self)
    }
}

impl<S: Clone, C: Clone, R: Clone, A: Clone, W: Clone, D: Clone> Clone
    for AdaptiveCooldown<S, C, R, A, W, D>
{
    /// The clone shares the gate. It has no readiness of its own yet.
    fn clone(&self) -> Self {
        Self::new(self.inner.service.clone(), Arc::clone(self.gate.gate()), self.options.clone())
    }
}

impl<S: fmt::Debug, C, R, A: fmt::Debug, W, D> fmt::Debug for AdaptiveCooldown<S, C, R, A, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveCooldown")
            .field("inner", &self.inner.service)
            .field("gate", self.gate.gate())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
