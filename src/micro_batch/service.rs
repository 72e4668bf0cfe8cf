use super::{
    ResponseFuture,
    layer::Options,
    member::{Member, Shared},
};
use crate::{
    CloneService,
    arrival::HandOn,
    deferred::Inner,
    rollout::{Admit, Everyone},
    signal::{Classify, HttpClassifier},
};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;

/// The service that [`MicroBatchLayer`](super::MicroBatchLayer) makes. See the [module docs](super).
pub struct MicroBatch<S, C = HttpClassifier, A = Everyone> {
    inner: Inner<S>,
    shared: Arc<Shared>,
    options: Options<C, A>,
}

impl<S, C, A> MicroBatch<S, C, A> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>, options: Options<C, A>) -> Self {
        Self { inner: Inner::new(inner), shared, options }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner.service
    }

    /// The inner service. Calling it goes past the line.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner.service
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner.service
    }
}

impl<S, Req, C, A> Service<Req> for MicroBatch<S, C, A>
where
    S: Service<Req> + CloneService,
    C: Classify<S::Response, S::Error> + Clone,
    A: Admit<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let mut member = if self.options.admit.admits_request(&request) {
            Member::enter(&self.shared)
        } else {
            Member::control(&self.shared)
        };
        let _with_it = HandOn::new(member.arrived());
        let call = self.inner.call(request, &mut member);
        ResponseFuture::new(member, call, self.options.classify.clone())
    }
}

impl<S: Clone, C: Clone, A: Clone> Clone for MicroBatch<S, C, A> {
    /// The clone shares the line. It has no readiness of its own yet.
    fn clone(&self) -> Self {
        Self::new(self.inner.service.clone(), Arc::clone(&self.shared), self.options.clone())
    }
}

impl<S: fmt::Debug, C, A: fmt::Debug> fmt::Debug for MicroBatch<S, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicroBatch")
            .field("inner", &self.inner.service)
            .field("shared", &self.shared)
            .field("options", &self.options)
            .finish()
    }
}
