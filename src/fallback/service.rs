use super::{FallbackError, ResponseFuture, layer::Options};
use crate::{
    arrival::{HandOn, came},
    request::{ByClone, CopyRequest},
    signal::{Classify, HttpClassifier},
};
use std::{
    fmt,
    task::{Context, Poll},
};
use tower::Service;

/// The service that [`FallbackLayer`](super::FallbackLayer) makes. See the [module docs](super).
#[derive(Clone)]
pub struct Fallback<S, F, C = HttpClassifier, K = ByClone> {
    inner: S,
    fallback: F,
    options: Options<C, K>,
}

impl<S, F, C, K> Fallback<S, F, C, K> {
    pub(super) const fn new(inner: S, fallback: F, options: Options<C, K>) -> Self {
        Self { inner, fallback, options }
    }

    /// The first service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The first service. Calling it goes past the fallback.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The first service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, F, Req, C, K> Service<Req> for Fallback<S, F, C, K>
where
    S: Service<Req>,
    F: Service<Req, Response = S::Response> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    K: CopyRequest<Req> + Clone,
{
    type Response = S::Response;
    type Error = FallbackError<S::Error, F::Error>;
    type Future = ResponseFuture<S, F, Req, C, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(FallbackError::Primary)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let copy = self.options.copy.copy(&request);
        // The clone is readied if and when it is needed.
        let (second, options) = (self.fallback.clone(), self.options.clone());
        let now = came();
        let _with_it = HandOn::new(now);
        ResponseFuture::new((now, self.inner.call(request)), second, copy, options)
    }
}

impl<S: fmt::Debug, F: fmt::Debug, C, K> fmt::Debug for Fallback<S, F, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("inner", &self.inner)
            .field("fallback", &self.fallback)
            .field("options", &self.options)
            .finish()
    }
}
