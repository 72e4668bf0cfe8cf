use super::{KeyOf, gates::Gates};
use crate::{
    CloneService, WaitReason,
    arrival::came,
    cooldown::{
        NeverReject, NoDeadline, Reject, ResponseFuture, TimeLeft,
        anchor::GateRef,
        attempt::{Attempt, Sending},
        layer::Options,
    },
    cost::{CostOf, OneRequest},
    deferred::Inner,
    rollout::{Admit, Everyone},
    signal::{Classify, HttpClassifier},
};
use std::{
    any::type_name,
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;

/// The service that [`KeyedCooldownLayer`](super::KeyedCooldownLayer) makes. See the [module docs](super).
pub struct KeyedCooldown<
    S,
    F,
    C = HttpClassifier,
    R = NeverReject,
    A = Everyone,
    W = OneRequest,
    D = NoDeadline,
> {
    inner: Inner<S>,
    by: F,
    gates: Arc<Gates>,
    options: Options<C, R, A, W, D>,
}

impl<S, F, C, R, A, W, D> KeyedCooldown<S, F, C, R, A, W, D> {
    pub(super) const fn new(inner: S, by: F, gates: Arc<Gates>, options: Options<C, R, A, W, D>) -> Self {
        Self { inner: Inner::new(inner), by, gates, options }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner.service
    }

    /// The inner service. Calling it goes past the gates.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner.service
    }

    /// The inner service. The gates live on in the layer, the handles, and other services.
    pub fn into_inner(self) -> S {
        self.inner.service
    }
}

impl<S, Req, F, C, R, A, W, D> Service<Req> for KeyedCooldown<S, F, C, R, A, W, D>
where
    S: Service<Req> + CloneService,
    F: KeyOf<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    R: Reject<S::Response, S::Error> + Clone,
    A: Admit<Req>,
    W: CostOf<Req>,
    D: TimeLeft<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let now = came();
        let gate = GateRef::Direct(self.gates.of_request(&self.by, &request, now));
        let arrival = (now, WaitReason::Normal);
        match self.options.book(&request, &self.inner, &gate, now, now) {
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

impl<S: Clone, F: Clone, C: Clone, R: Clone, A: Clone, W: Clone, D: Clone> Clone
    for KeyedCooldown<S, F, C, R, A, W, D>
{
    /// The clone shares the gates. It has no readiness of its own yet.
    fn clone(&self) -> Self {
        Self::new(self.inner.service.clone(), self.by.clone(), Arc::clone(&self.gates), self.options.clone())
    }
}

impl<S: fmt::Debug, F, C, R, A: fmt::Debug, W, D> fmt::Debug for KeyedCooldown<S, F, C, R, A, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCooldown")
            .field("inner", &self.inner.service)
            .field("by", &type_name::<F>())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
