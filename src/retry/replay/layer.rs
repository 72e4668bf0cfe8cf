use super::ReplayBody;
use http::Request;
use http_body::Body;
use std::task::{Context, Poll};
use tower::Service;
use tower_layer::Layer;

/// Wraps the bodies of requests, so that they can be sent again up to a size. See the [module docs](super).
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct ReplayLayer {
    max_bytes: usize,
}

impl ReplayLayer {
    /// Keeps up to so many bytes of each request's body. With zero, requests without a body only can be sent again.
    ///
    /// All calls in flight may keep as much at a time.
    pub const fn new(max_bytes: usize) -> Self {
        Self { max_bytes }
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Replay { inner, max_bytes: self.max_bytes }
    }
}

/// The service that [`ReplayLayer`] makes. See the [module docs](super).
///
/// Its readiness, its future and its errors are those of the inner service.
#[derive(Clone, Copy, Debug)]
pub struct Replay<S> {
    inner: S,
    max_bytes: usize,
}

impl<S> Replay<S> {
    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.inner.call(request.map(|body| ReplayBody::new(body, self.max_bytes)))
    }
}
